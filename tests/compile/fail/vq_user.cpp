// expect: vq keys take no modifier of your own
#include <heed/vq/attention.hpp>

struct own {
  static constexpr auto stage = heed::score_stage::bias;
  template <class S, class Site>
  S apply(S s, Site const& at) const {
    return s - at.distance();
  }
};

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out, heed::codebook<float> const& book) {
  heed::vq_attention(x, x, x, out, book, 2, own{});
}
