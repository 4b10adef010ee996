#pragma once

#include <heed/attention/attention.hpp>
#include <heed/position/rerope.hpp>

/// Which modifiers vector-quantised keys allow: those that treat all far keys of one code alike.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

template <class M>
constexpr void check_vq_modifier() {
  constexpr family f = family_of<M>();
  static_assert(f != family::mask, "heed: vq keys take no mask: it would tell far keys of one code apart");
  static_assert(f != family::bias,
                "heed: vq keys take no bias: it would tell far keys of one code apart; a relative_bias will do");
  static_assert(f != family::alibi, "heed: vq keys take no alibi: its slope would tell far keys of one code apart");
  static_assert(f != family::score, "heed: vq keys take no score functor: it could tell far keys of one code apart");
  static_assert(f != family::segments, "heed: vq keys take no segments: they would tell far keys of one code apart");
  static_assert(f != family::window && f != family::sink_tokens,
                "heed: vq keys take no window and no sink_tokens: they would tell far keys of one code apart");
  static_assert(f != family::position || std::same_as<M, rerope>,
                "heed: vq keys take no position code but rerope: any other would tell far keys of one code apart");
  static_assert(f != family::user,
                "heed: vq keys take no modifier of your own: it could tell far keys of one code apart");
  static_assert(f != family::normalizer || std::same_as<M, softmax>, "heed: vq keys are made for softmax alone");
  static_assert(f != family::entropy, "heed: vq keys know the entropy over codes only, not that over keys");
  static_assert(f != family::amx, "heed: vq attention takes no with_amx: its codes are multiplied in float");
  static_assert(f != family::gate, "heed: vq attention takes no gate: multiply its result");
}

/// For the state, which knows where it stands.
template <class M>
constexpr void check_vq_state_modifier() {
  constexpr family f = family_of<M>();
  static_assert(f != family::offset && f != family::lengths,
                "heed: vq_state::step takes no offset and no lengths: the state knows its length");
}

template <class... Ms>
constexpr void check_vq_modifiers(std::tuple<Ms const&...> const*) {
  (check_vq_modifier<Ms>(), ...);
}
template <class... Ms>
constexpr void check_vq_state_modifiers(std::tuple<Ms const&...> const*) {
  (check_vq_state_modifier<Ms>(), ...);
}

/// Around a query, the keys that must stay single: beyond them every key of a code gets the same score. A key at
/// distance position − key > behind, or < −ahead, is far.
struct vq_reach {
  bool any = false;  // whether distance matters at all
  index behind = 0;
  index ahead = 0;
};

inline vq_reach reach_of(description const& d) {
  constexpr index most = index{1} << 40;
  vq_reach r;
  if (d.position.rule == position_rule::rerope) {
    auto const window = static_cast<index>(std::ceil(std::min(d.position.window, static_cast<double>(most))));
    r = {true, window - 1, window - 1};
  }
  if (d.relative_bias) {
    index const first = std::clamp(d.relative_bias_first, -most, most), n = d.relative_bias->extents[3];
    r.any = true;
    r.behind = std::max(r.behind, first + n - 2);
    r.ahead = std::max(r.ahead, -first - 1);
  }
  return r;
}

}  // namespace impl
HEED_ISA_END
}  // namespace heed
