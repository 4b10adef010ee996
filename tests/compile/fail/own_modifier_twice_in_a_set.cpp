// expect: heed: two modifiers of one type of your own in one call
#include <heed/attention/attention.hpp>

struct near {
  template <class Site>
  auto visible(Site const& at) const {
    return at.distance() < decltype(at.distance())(9.0f);
  }
};

auto const set = heed::modifiers(near{}, heed::modifiers(heed::causal{}, near{}));
