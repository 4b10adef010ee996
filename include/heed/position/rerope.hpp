#pragma once

#include <heed/position/rotary.hpp>

/// Rotary codes whose distances stop growing, or grow slower, beyond a window: models see far keys at distances that
/// they were trained on. One fused pass: only tiles that straddle the window compute two products.

namespace heed {
HEED_ISA_BEGIN

/// ReRoPE: the distance is min(rel, window); towards later keys max(rel, −window).
///
///     s_ij = scale · (R_i q)·(R_j k)    for |i − j| < window
///     s_ij = scale · (R_±w q)·k         beyond; rel = window is on the far side
///
/// - window ≥ 1; may be fractional only in theory: whole numbers are what models use. window ≥ length is plain RoPE.
/// @throws argument_error for window < 1 (when the call is made)
/// @see Su, kexue.fm/archives/9708; formulas B4
struct rerope {
  static constexpr auto kind = family::position;
  rotary rotation;
  double window;

  rerope(rotary code, std::convertible_to<double> auto w) : rotation(std::move(code)), window(static_cast<double>(w)) {}

  void describe(description& d) const {
    rotation.describe(d);
    d.position.rule = position_rule::rerope;
    d.position.window = window;
  }
};

/// Leaky ReRoPE: the distance is window + (rel − window) / k beyond the window. k = 1 is RoPE, k → ∞ is ReRoPE.
/// @see Su, kexue.fm/archives/9708; formulas B4
struct leaky_rerope {
  static constexpr auto kind = family::position;
  rotary rotation;
  double window;
  double k;

  leaky_rerope(rotary code, std::convertible_to<double> auto w, std::convertible_to<double> auto slope_inverse)
      : rotation(std::move(code)), window(static_cast<double>(w)), k(static_cast<double>(slope_inverse)) {}

  void describe(description& d) const {
    rotation.describe(d);
    d.position.rule = position_rule::leaky_rerope;
    d.position.window = window;
    d.position.slope_inverse = k;
  }
};

/// Self-Extend: beyond the window, positions count groups: floor(i/g) − floor(j/g) + window − floor(window/g).
/// @see Jin et al. 2024, arXiv 2401.01325; formulas B4
struct self_extend {
  static constexpr auto kind = family::position;
  rotary rotation;
  double window;
  index group;

  self_extend(rotary code, std::convertible_to<double> auto w, std::integral auto positions_per_group)
      : rotation(std::move(code)), window(static_cast<double>(w)), group(static_cast<index>(positions_per_group)) {}

  void describe(description& d) const {
    rotation.describe(d);
    d.position.rule = position_rule::self_extend;
    d.position.window = window;
    d.position.group = group;
  }
};

HEED_ISA_END
}  // namespace heed
