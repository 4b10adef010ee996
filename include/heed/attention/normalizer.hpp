#pragma once

#include <heed/attention/modifiers.hpp>

/// How a row of scores becomes a row of weights.

namespace heed {

/// What a squared_relu row is divided by; a divisor of 0 gives out = 0.
struct fixed {
  double value;
  explicit constexpr fixed(std::convertible_to<double> auto v) : value(static_cast<double>(v)) {}
};
/// The row's visible keys, n_i.
struct visible {};
/// The sum of the row's own weights.
struct row_sum {};

HEED_ISA_BEGIN

/// `e^s / Σ e^s`, the default.
struct softmax {
  static constexpr auto kind = family::normalizer;
  static constexpr auto rule = normalizer_rule::softmax;
  void describe(description& d) const { d.normalizer = rule; }
};

/// `max(s, 0)² / divisor`; divisor: `fixed{n}`, `visible{}` or `row_sum{}`. The GAU of kexue.fm/archives/8934, 1/(n s),
/// is `fixed{n}` with the default scale; the paper's 1/n² is `fixed{1}, scale{1/n}`.
/// @see Hua et al. 2022, arXiv 2202.10447; formulas C1
struct squared_relu {
  static constexpr auto kind = family::normalizer;
  static constexpr auto rule = normalizer_rule::squared_relu;

  explicit constexpr squared_relu(fixed f) : divisor(divisor_rule::fixed), value(f.value) {}
  explicit constexpr squared_relu(visible) : divisor(divisor_rule::visible) {}
  explicit constexpr squared_relu(row_sum) : divisor(divisor_rule::row_sum) {}

  void describe(description& d) const {
    detail::expect(value > 0 && std::isfinite(value), "attention: squared_relu's fixed divisor must be positive and ",
                   "finite, got ", value);
    d.normalizer = rule;
    d.divisor = divisor;
    d.divisor_value = value;
  }

  divisor_rule divisor;
  double value = 1;
};

/// `e^s / √(Σ e^2s)`.
/// @see kexue.fm/archives/9105; formulas C1
struct l2_softmax {
  static constexpr auto kind = family::normalizer;
  static constexpr auto rule = normalizer_rule::l2_softmax;
  void describe(description& d) const { d.normalizer = rule; }
};

HEED_ISA_END
}  // namespace heed
