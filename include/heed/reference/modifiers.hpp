#pragma once

#include <heed/core/description.hpp>
#include <heed/core/modifier.hpp>
#include <heed/core/site.hpp>

#include <tuple>
#include <type_traits>

/// How the reference listens to the modifiers of a call: it knows none of them by name. What a modifier says as data
/// (`describe`) is read as data, and every formula is the reference's own; what only code can say, a score functor or
/// a user's own modifier, is called, one score at a time.

namespace heed {
HEED_ISA_BEGIN
namespace reference {

/// Several modifiers as one, as `heed::modifiers(…)` makes them.
template <class M>
concept bundle = requires(M const& m) { std::tuple_size<std::remove_cvref_t<decltype(m.members)>>::value; };

template <class M>
concept speaks_data = requires(M const& m, description& said) { m.describe(said); };

/// One of the library's own, whose description says everything about it.
template <class M>
concept only_data = speaks_data<M> && requires { requires M::kind != family::user; };

template <class M>
concept maps_scores = requires { requires M::stage <= score_stage::mask; } && !only_data<M>;

template <class M>
concept hides_keys = requires(M const& m, site<double> const& at) { static_cast<bool>(m.visible(at)); };

/// Calls f with the modifier, or with every member of a bundle and of the bundles in it.
template <class F, class M>
void for_each_modifier(F const& f, M const& m) {
  if constexpr (bundle<M>)
    std::apply([&f](auto const&... members) { (reference::for_each_modifier(f, members), ...); }, m.members);
  else
    f(m);
}

/// What the modifiers of one call say: the data, and the two things that only their code can do.
template <class... Ms>
class instructions {
 public:
  explicit instructions(Ms const&... ms) : modifiers_(ms...) {
    each([this](auto const& m) {
      if constexpr (speaks_data<std::remove_cvref_t<decltype(m)>>)
        m.describe(data);
    });
  }

  /// The score after the modifiers that map it at this stage. They compute in double, whatever Scalar is.
  template <class Scalar>
  Scalar mapped(score_stage when, Scalar s, site<double> const& at) const {
    each([&](auto const& m) {
      using M = std::remove_cvref_t<decltype(m)>;
      if constexpr (maps_scores<M>) {
        if (M::stage == when)
          s = static_cast<Scalar>(m.apply(static_cast<double>(s), at));
      }
    });
    return s;
  }

  /// Whether no modifier of the user's own hides this key from this query.
  bool shows(site<double> const& at) const {
    bool shown = true;
    each([&](auto const& m) {
      if constexpr (hides_keys<std::remove_cvref_t<decltype(m)>>)
        shown = shown && static_cast<bool>(m.visible(at));
    });
    return shown;
  }

  description data;

 private:
  template <class F>
  void each(F const& f) const {
    std::apply([&f](auto const&... ms) { (reference::for_each_modifier(f, ms), ...); }, modifiers_);
  }

  std::tuple<Ms const&...> modifiers_;
};

}  // namespace reference
HEED_ISA_END
}  // namespace heed
