#pragma once

#include <heed/core/simd.hpp>

#include <limits>

/// exp, log and tanh of a score: for SIMD batches and, under the same names, for one number.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// 2^f as 1 + f·(c1 + f·(c2 + …)): minimax for the relative error, with the constant held at exactly 1 so that 2^0 is
/// exactly 1. `near` on [−1/2, 1/2], beside the nearest whole number; `above` on [0, 1], above the next lower one.
/// float: degree 6, 2e-9; after rounding under 1 ulp, or under 1.6 `above`, since the instruction that finds f rounds it
/// down (degree 5 reaches 2.02 ulp). double: degree 12, 1.1e-19.
template <real T>
struct exp2_polynomial;
template <>
struct exp2_polynomial<float> {
  static constexpr float near[] = {0x1.62e430p-1f, 0x1.ebfbdcp-3f,  0x1.c6aee8p-5f,
                                   0x1.3b2d4cp-7f, 0x1.5f3e52p-10f, 0x1.41fbbcp-13f};
  static constexpr float above[] = {0x1.62e42cp-1f, 0x1.ebfd3ap-3f,  0x1.c68af6p-5f,
                                    0x1.3cfd82p-7f, 0x1.473738p-10f, 0x1.c44580p-13f};
  static constexpr float magic = 0x1.8p23f + 127.0f;  // adding it rounds to a whole number n and leaves n + bias below
  static constexpr float cut = -126.0f;               // below 2^cut results are subnormal
  /// Weights from 2^(cut + spare) on may be multiplied with values from 2^-spare on, and give no subnormal product.
  static constexpr int spare = 26;
};
template <>
struct exp2_polynomial<double> {
  static constexpr double near[] = {0.69314718055994530925,     0.24022650695910071233,   0.055504108664821627039,
                                    0.0096181291076284794928,   0.0013333558146406470697, 0.00015403530393370733411,
                                    0.000015252733841556772589, 1.321548680870556279e-6,  1.0178057087733941105e-7,
                                    7.0548973041554992774e-9,   4.455817908336064493e-10, 2.5729324177362304214e-11};
  static constexpr double above[] = {0x1.62e42fefa39efp-1,  0x1.ebfbdff82c5c6p-3,  0x1.c6b08d7048ce6p-5,
                                     0x1.3b2ab6fbddb70p-7,  0x1.5d87fe6ccd31ap-10, 0x1.430914892d208p-13,
                                     0x1.ffcbb617b65e0p-17, 0x1.62c44fcf3a1b3p-20, 0x1.b4ceabed6085ep-24,
                                     0x1.e97d4f23dd807p-28, 0x1.bfb19fb5ecdeep-32, 0x1.4758bb73f3d36p-35};
  static constexpr double magic = 0x1.8p52 + 1023.0;
  static constexpr double cut = -1022.0;
  static constexpr int spare = 62;
};

/// The polynomial of these coefficients, times `factor`, a power of two.
template <auto const& C, class Batch, real T = typename Batch::value_type>
HEED_ALWAYS_INLINE inline Batch horner(Batch f, T factor = T(1)) {
  constexpr int degree = static_cast<int>(std::size(C));
  Batch p(C[degree - 1] * factor);
  unroll<degree - 1>([&](int i) HEED_LAMBDA_INLINE { p = fma(p, f, Batch(C[degree - 2 - i] * factor)); });
  return fma(p, f, Batch(factor));
}

}  // namespace impl

/// Below 2 to this power weights are exactly 0 (or half a step further where no instruction rounds to a whole number):
/// 2^-100 of the row's greatest in float, 2^-960 in double, nothing beside what rounding takes. If they went on until they
/// were subnormal, their products with values would be long before, and each of those takes many cores 150 cycles: 2048 rows
/// of steep scores take 3.9 times as long under AVX2, 1.3 times under AVX-512 (`heed_bench_attention
/// --benchmark_filter=modifier/steep`).
template <real T>
inline constexpr T exp2_cut =
    impl::exp2_polynomial<T>::cut + T(impl::exp2_polynomial<T>::spare) - (has_power_scaling ? T(0) : T(0.5));

/// The square of a weight that is not below this is not below 2^exp2_cut.
template <real T>
inline constexpr T least_in_square = std::same_as<T, float> ? T(0x1p-50) : T(0x1p-480);

/// 2^x for x ≤ 0 (tolerating what rounding puts above it): at most 2 ulp, exactly 1 at 0, exactly 0 below `exp2_cut`;
/// NaN stays NaN. The weights of every softmax.
template <real T>
HEED_ALWAYS_INLINE inline batch<T> exp2_weight(batch<T> x) {
  using table = impl::exp2_polynomial<T>;
  if constexpr (has_power_scaling) {
    return scale_by_power(impl::horner<table::above>(above_whole(x)), x, batch<T>(exp2_cut<T>));
  } else {
    // 2^spare is taken off the power and put on the polynomial, so that the power is 0 from 2^(cut + spare − 1) on.
    constexpr T magic = table::magic - T(table::spare), lift = T(std::uint64_t{1} << table::spare);
    batch<T> const y = heed::max(batch<T>(table::cut + table::spare - 1), x);  // this order keeps a NaN x
    batch<T> const shifted = y + batch<T>(magic);
    batch<T> const f = y - (shifted - batch<T>(magic));
    return impl::horner<table::near>(f, lift) * exponent_from_low_bits(shifted);
  }
}

/// 2^x of one number, by the same steps.
template <real T>
inline T exp2_weight(T x) {
  alignas(64) T power[static_cast<std::size_t>(lanes<T>)];
  store(power, exp2_weight(batch<T>(x)));
  return power[0];
}

/// e^x over the whole range, for score functors: overflow gives +inf, NaN stays NaN.
template <real T, class Arch>
inline xsimd::batch<T, Arch> exp(xsimd::batch<T, Arch> const& x) {
  using b = batch<T>;
  constexpr T log2e = T(1.4426950408889634074);
  constexpr T top = T(std::numeric_limits<T>::max_exponent);
  constexpr T ln2_high = std::same_as<T, float> ? T(0.693359375) : T(6.93147180369123816490e-01);
  constexpr T ln2_low = std::same_as<T, float> ? T(-2.12194440e-4) : T(1.90821492927058770002e-10);
  using table = impl::exp2_polynomial<T>;
  b const t = x * b(log2e);
  b const y = heed::min(b(top), heed::max(b(table::cut), t));
  b const shifted = y + b(table::magic);
  b const n = shifted - b(table::magic);
  b const f = fma(n, b(-ln2_low), fma(n, b(-ln2_high), x)) * b(log2e);
  b const over = heed::select(n == b(top), b(T(1)), b(T(0)));  // 2^top is no number: 2^(top−1) twice
  b const power = impl::horner<table::near>(f) * exponent_from_low_bits(shifted - over) * (b(T(1)) + over);
  return heed::select(t < b(table::cut), b(T(0)), heed::select(x == x, power, x));
}

/// tanh x: x · (1 + x²·P(x²)) up to 0.625, (1 − e)/(1 + e) with e = e^−2|x| beyond (the quotient alone cancels near 0),
/// which is only formed where a lane needs it. −0 stays −0. float: P minimax, 6e-9. double: xsimd's.
template <real T, class Arch>
inline xsimd::batch<T, Arch> tanh(xsimd::batch<T, Arch> const& x) {
  using b = batch<T>;
  if constexpr (std::same_as<T, double>) {
    return xsimd::tanh(x);
  } else {
    b const square = x * x;
    b p = fma(b(-0.005590975138859882f), square, b(0.020538783273953684f));
    p = fma(p, square, b(-0.053709646318285044f));
    p = fma(p, square, b(0.13331092121233398f));
    p = fma(p, square, b(-0.3333326951229966f));
    b const near = x * fma(p, square, b(1.0f));
    auto const is_far = square > b(0.625f * 0.625f);
    if (!heed::any<T>(is_far))
      return near;
    b const e = exp2_weight(heed::abs(x) * b(-2.8853900817779268147f));
    return heed::select(is_far, with_sign_of(quotient<T>(b(1.0f) - e, b(1.0f) + e), x), near);
  }
}

/// log x = e·ln 2 + log m with m = x/2^e in [√½, √2) and log m = 2 artanh r, r = (m − 1)/(m + 1), by its series, whose
/// remainder is 2e-9 (float) or 1e-18 (double) of the result. log 0 = −inf, NaN below 0, subnormal numbers included.
template <real T, class Arch>
inline xsimd::batch<T, Arch> log(xsimd::batch<T, Arch> const& x) {
  using b = batch<T>;
  using limits = std::numeric_limits<T>;
  constexpr int terms = std::same_as<T, float> ? 4 : 10;
  constexpr T ln2_high = std::same_as<T, float> ? T(0.693359375) : T(6.93147180369123816490e-01);
  constexpr T ln2_low = std::same_as<T, float> ? T(-2.12194440e-4) : T(1.90821492927058770002e-10);
  auto const subnormal = x < b(limits::min());
  constexpr T lift = T(std::uint64_t(1) << limits::digits);
  auto const [whole, exponent] = split_exponent<T>(heed::select(subnormal, x * b(lift), x));
  auto const upper = whole > b(T(1.4142135623730950488));
  b const m = heed::select(upper, whole * b(T(0.5)), whole);
  b const e = exponent + heed::select(upper, b(T(1)), b(T(0))) - heed::select(subnormal, b(T(limits::digits)), b(T(0)));
  b const r = quotient<T>(m - b(T(1)), m + b(T(1)));
  b const square = r * r;
  b p(T(2) / T(2 * terms + 1));
  unroll<terms - 1>([&](int i) HEED_LAMBDA_INLINE { p = fma(p, square, b(T(2) / T(2 * (terms - i) - 1))); });
  b const log_m = fma(r * square, p, r + r);
  b const finite = fma(e, b(ln2_high), fma(e, b(ln2_low), log_m));
  b const at_zero = heed::select(x == b(T(0)), b(-limits::infinity()), b(limits::quiet_NaN()));
  return heed::select(x > b(limits::max()), x, heed::select(x > b(T(0)), finite, at_zero));
}

template <real T>
inline T exp(T x) {
  return std::exp(x);
}
template <real T>
inline T log(T x) {
  return std::log(x);
}
template <real T>
inline T tanh(T x) {
  return std::tanh(x);
}

HEED_ISA_END
}  // namespace heed
