#pragma once

#include <heed/kernel/exp.hpp>

/// The running softmax: how its state takes in new scores, and how two states become one. The same functions serve one
/// number and a SIMD batch of rows; kernels keep the state lane-wise, `softmax_state` is its scalar face.
///
///     m = max s,   l = Σ e^(s − m),   acc = Σ e^(s − m) v,   u = Σ e^(s − m) (s − m)
///
/// Scores may be in natural units or already multiplied by log2 e; `unit` is what is left to multiply: log2 e or 1.
/// The empty state m = −inf, l = acc = u = 0 is a true identity.
/// @see Rabe and Staats, arXiv 2112.05682; Dao et al., arXiv 2205.14135; formulas A1

namespace heed {
HEED_ISA_BEGIN

/// log2 e, in the scalar type.
template <real T>
inline constexpr T log2_e = T(1.4426950408889634074);
template <real T>
inline constexpr T ln_2 = T(0.6931471805599453094);

/// m where it is finite or NaN, 0 where nothing has been seen: (−inf) − (−inf) must not arise.
template <real T, class S>
HEED_ALWAYS_INLINE inline S safe_maximum(S m) {
  return heed::select(m == S(-std::numeric_limits<T>::infinity()), S(T(0)), m);
}

/// What a state with maximum `from` is multiplied with to be one with maximum `to` ≥ from: e^(from − to), 0 for an
/// empty state.
template <real T, class S>
HEED_ALWAYS_INLINE inline S rescale_factor(S from, S to, S unit) {
  return exp2_weight((from - safe_maximum<T>(to)) * unit);
}

/// To how much a row's weights may grow, 2^lag, where following the maximum is late: with values below `large_value` so
/// far that rows hardly ever need it twice, and sums of 2^30 keys are finite still; with larger ones, whose sums
/// overflow sooner, by 2^8. By 2^8 in all cases scores of σ = 8 take 1.5 times as long (`heed_bench_attention
/// --benchmark_filter='amx/.*/steep'`).
inline constexpr int usual_lag = 32, lag_of_large_values = 8;
inline constexpr float large_value = 0x1p64f;

/// The maximum after `seen` where following it costs more than a subtraction: the old one stays as long as no weight
/// exceeds 2^lag. Any number near the maximum serves as well as it does, since only differences count.
template <real T, class S>
HEED_ALWAYS_INLINE inline S late_maximum(S seen, S old, S unit, T lag) {
  return heed::select((seen - old) * unit > S(lag), seen, old);
}

/// u after the maximum moved: u ← r (u + (from − to) l), in units of the scores.
template <real T, class S>
HEED_ALWAYS_INLINE inline S rescaled_entropy_sum(S u, S l, S from, S to, S r) {
  S const nothing = S(-std::numeric_limits<T>::infinity());
  return heed::select(from == nothing, S(T(0)), r * (u + (from - safe_maximum<T>(to)) * l));
}

/// Joins the state of one row over some keys with its state over others: exactly commutative, associative to rounding,
/// and the empty state is the identity. Writes into the first.
/// @param running whether sums are relative to the maximum; without (squared_relu) they just add up
/// @param sum_of_squares whether l holds Σ w² (l2_softmax)
template <real T>
void merge_states(T& m, T& l, T& u, T* acc, T other_m, T other_l, T other_u, T const* other_acc, std::ptrdiff_t n,
                  T unit, bool running = true, bool sum_of_squares = false) {
  bool const other_is_less = !running || !(m < other_m);
  T r = T(1);
  if (running) {
    // Only the state with the lesser maximum is rescaled.
    T const top = other_is_less ? m : other_m, less = other_is_less ? other_m : m;
    r = rescale_factor<T>(less, top, unit);
    u = other_is_less ? u + rescaled_entropy_sum<T>(other_u, other_l, less, top, r)
                      : other_u + rescaled_entropy_sum<T>(u, l, less, top, r);
    m = top;
  } else {
    m = heed::max(m, other_m);
  }
  // One form for both roles: a compiler that contracts x·a + y·b would round the two products differently.
  auto const join = [=](T mine, T other, T factor) {
    return other_is_less ? fma(other, factor, mine) : fma(mine, factor, other);
  };
  l = join(l, other_l, sum_of_squares ? r * r : r);
  for (std::ptrdiff_t c = 0; c < n; ++c)
    acc[c] = join(acc[c], other_acc[c], r);
}

/// The entropy of a finished row, ln l − u/l in nats (`to_nats`: 1, or ln 2 where u counts log2 e-fold scores); never
/// below 0, 0 for an empty row.
template <real T>
inline T finished_entropy(T l, T u, T to_nats) {
  if (l == T(0))
    return T(0);
  T const h = std::log(l) - u / l * to_nats;
  return h < T(0) ? T(0) : h;
}

HEED_ISA_END
}  // namespace heed
