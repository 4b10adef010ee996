#pragma once

#include <heed/core/modifier.hpp>
#include <heed/core/site.hpp>
#include <heed/kernel/exp.hpp>

#include <tuple>

namespace heed {
HEED_ISA_BEGIN

namespace impl {

template <score_stage Stage, class M>
concept in_stage = requires { requires M::stage == Stage; };

template <class M>
concept masks_keys = requires(M const& m, site<double> const& at) { m.visible(at); };

template <class M>
concept differs_by_head = requires(M const& m) { m.for_head(index{}); };

/// What stands for a map while one head is at work: what its `for_head` gives, else the map itself; a small one as a
/// copy, so that its numbers stay in registers while scores are stored.
template <class M>
decltype(auto) of_head(M const& m, index head) {
  if constexpr (differs_by_head<M>)
    return m.for_head(head);
  else if constexpr (std::is_trivially_copyable_v<M> && sizeof(M) <= 64)
    return M(m);
  else
    return (m);
}

}  // namespace impl

/// The score maps of a call, composed: within a stage they act in the order given, and the stages are always softcap,
/// bias, function, mask, whatever the order of the arguments was.
///
/// A map is any type with `static constexpr score_stage stage` and `apply(s, site)`, or with `visible(site)`. A map
/// with `for_head(head)` is replaced by what that returns before the sweep over a head's scores: look-ups go there.
template <class... Maps>
struct score_maps {
  std::tuple<Maps const&...> maps;

  static constexpr bool change_scores =
      ((impl::in_stage<score_stage::softcap, Maps> || impl::in_stage<score_stage::bias, Maps> ||
        impl::in_stage<score_stage::function, Maps>) ||
       ...);
  static constexpr bool hide_keys = (impl::masks_keys<Maps> || ...);
  static constexpr bool any = change_scores || hide_keys;

  /// Calls f with the maps as they are for one head.
  template <class F>
  HEED_ALWAYS_INLINE void with_head(index head, F&& f) const {
    std::apply(
        [&](Maps const&... each) HEED_LAMBDA_INLINE {
          [&](auto const&... of_this) HEED_LAMBDA_INLINE {
            f(score_maps<std::remove_cvref_t<decltype(of_this)>...>{{of_this...}});
          }(impl::of_head(each, head)...);
        },
        maps);
  }

  template <score_stage Stage, class S>
  HEED_ALWAYS_INLINE S apply(S s, site<S> const& at) const {
    std::apply([&](Maps const&... each) HEED_LAMBDA_INLINE { ((s = one<Stage>(each, s, at)), ...); }, maps);
    return s;
  }

  /// Whether every map that masks lets the pair be seen.
  template <class S, class Mask>
  HEED_ALWAYS_INLINE Mask visible(Mask seen, site<S> const& at) const {
    std::apply([&](Maps const&... each) HEED_LAMBDA_INLINE { ((seen = and_visible(each, seen, at)), ...); }, maps);
    return seen;
  }

 private:
  template <score_stage Stage, class M, class S>
  HEED_ALWAYS_INLINE static S one(M const& m, S s, site<S> const& at) {
    if constexpr (impl::in_stage<Stage, M> && Stage != score_stage::mask)
      return m.apply(s, at);
    else
      return s;
  }
  template <class M, class Mask, class S>
  HEED_ALWAYS_INLINE static Mask and_visible(M const& m, Mask seen, site<S> const& at) {
    if constexpr (impl::masks_keys<M>)
      return seen & m.visible(at);
    else
      return seen;
  }
};

HEED_ISA_END
}  // namespace heed
