#pragma once

#include <heed/attention/modifiers.hpp>
#include <heed/kernel/exp.hpp>

/// What is done to a score by a formula.

namespace heed {
HEED_ISA_BEGIN

/// `cap · tanh(score / cap)`, cap > 0; before biases and masks.
struct softcap {
  static constexpr auto kind = family::softcap;
  static constexpr auto stage = score_stage::softcap;
  double cap;

  explicit constexpr softcap(std::convertible_to<double> auto c) : cap(static_cast<double>(c)) {}

  void describe(description& d) const {
    detail::expect(cap > 0 && std::isfinite(cap), "attention: softcap must be positive and finite, got ", cap);
    d.softcap = cap;
  }

  template <class S, class Site>
  HEED_ALWAYS_INLINE S apply(S s, Site const&) const {
    return S(impl::as_scalar<S>(cap)) * heed::tanh(s * S(impl::as_scalar<S>(1 / cap)));
  }
};

/// `s ← f(s, site)`: any functor, written once for one number and for a SIMD batch of them.
///
///     heed::score{[](auto s, auto at) { return s - 0.1f * heed::abs(at.distance()); }}
///
/// - It comes last before the mask, sees the score in natural units, and returns the new one.
/// - `at`: see `site`. Usable on s: arithmetic, comparisons, `heed::select, min, max, abs, exp, log, tanh`. A NaN is
///   found by `!(s == s)`; some versions of xsimd take `s != s` for false.
/// - It may be called for hidden pairs; const, noexcept, no side effects. A returned −inf gives weight 0 but does not
///   hide the key's value.
template <class F>
struct score {
  static constexpr auto kind = family::score;
  static constexpr auto stage = score_stage::function;
  F function;

  explicit score(F f) : function(std::move(f)) {}

  template <class S, class Site>
  HEED_ALWAYS_INLINE S apply(S s, Site const& at) const {
    return function(s, at);
  }
};

HEED_ISA_END
}  // namespace heed
