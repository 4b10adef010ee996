#pragma once

#include <heed/core/scalar.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <xsimd/xsimd.hpp>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/// The one file that knows xsimd, its versions and the intrinsics it lacks. Everything else speaks of `batch<T>`, but for
/// transpose.hpp and pairs.hpp, which move numbers between lanes.
///
/// Rules that hold here whatever the xsimd version:
/// - `max(a, b)` and `min(a, b)` return b where either is NaN (the x86 rule): `max(bound, x)` keeps a NaN x;
/// - `fma(a, b, c)` is one instruction wherever the machine has it;
/// - `not_equal(a, b)` holds where either is NaN, as for numbers; xsimd's `!=` does not under AVX and AVX-512.

namespace heed {
HEED_ISA_BEGIN

template <class T>
using batch = xsimd::batch<T>;
template <class T>
using batch_mask = typename batch<T>::batch_bool_type;

/// How many T fit a vector register.
template <class T>
inline constexpr int lanes = static_cast<int>(batch<T>::size);

template <class T>
inline constexpr bool is_batch = false;
template <class T, class Arch>
inline constexpr bool is_batch<xsimd::batch<T, Arch>> = true;

/// float or double.
template <class T>
concept real = std::same_as<T, float> || std::same_as<T, double>;

namespace impl {
/// A constant in the scalar type of S, which is a number or a batch of them.
template <class S>
struct scalar_of {
  using type = S;
};
template <class T, class Arch>
struct scalar_of<xsimd::batch<T, Arch>> {
  using type = T;
};
template <class S>
HEED_ALWAYS_INLINE constexpr auto as_scalar(double value) {
  return static_cast<typename scalar_of<S>::type>(value);
}
}  // namespace impl

// --- unrolling -----------------------------------------------------------------------------------------------------

/// Calls f(0), …, f(N−1) in a row, unrolled: arrays of batches stay in registers at -O2 only if every index into them is
/// a constant once the loop is gone. The pragma costs the compiler far less than a constant of a type of its own a step.
template <int N, class F>
HEED_ALWAYS_INLINE inline void unroll(F&& f) {
  HEED_UNROLL
  for (int i = 0; i < N; ++i)
    f(i);
}

/// The same with f(constant 0), …, f(constant N−1), where a step needs its number as a template argument.
template <int N, class F>
HEED_ALWAYS_INLINE inline void unroll_constants(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>)
      HEED_LAMBDA_INLINE { (f(std::integral_constant<int, I>{}), ...); }(std::make_integer_sequence<int, N>{});
}

// --- memory --------------------------------------------------------------------------------------------------------

template <real T>
HEED_ALWAYS_INLINE inline batch<T> load(T const* p) {
  return batch<T>::load_unaligned(p);
}
template <real T>
HEED_ALWAYS_INLINE inline void store(T* p, batch<T> const& x) {
  x.store_unaligned(p);
}

/// The first n elements, 0 < n ≤ lanes, the other lanes 0; no byte past them is touched.
template <real T>
HEED_ALWAYS_INLINE inline batch<T> load_first(T const* p, std::ptrdiff_t n) {
#if defined(__AVX512F__)
  if constexpr (std::same_as<T, float>)
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << n) - 1U), p);
  else
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1U << n) - 1U), p);
#else
  alignas(64) T part[static_cast<std::size_t>(lanes<T>)] = {};
  std::memcpy(part, p, static_cast<std::size_t>(n) * sizeof(T));
  return load(part);
#endif
}

/// Writes the first n lanes, 0 < n ≤ lanes.
template <real T>
HEED_ALWAYS_INLINE inline void store_first(T* p, batch<T> const& x, std::ptrdiff_t n) {
#if defined(__AVX512F__)
  if constexpr (std::same_as<T, float>)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1U << n) - 1U), x.data);
  else
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1U << n) - 1U), x.data);
#else
  alignas(64) T part[static_cast<std::size_t>(lanes<T>)];
  store(part, x);
  std::memcpy(p, part, static_cast<std::size_t>(n) * sizeof(T));
#endif
}

// --- arithmetic ----------------------------------------------------------------------------------------------------

#if defined(__AVX512F__)
HEED_ALWAYS_INLINE inline batch<float> fma(batch<float> a, batch<float> b, batch<float> c) {
  return _mm512_fmadd_ps(a.data, b.data, c.data);
}
HEED_ALWAYS_INLINE inline batch<double> fma(batch<double> a, batch<double> b, batch<double> c) {
  return _mm512_fmadd_pd(a.data, b.data, c.data);
}
HEED_ALWAYS_INLINE inline batch<float> max(batch<float> a, batch<float> b) { return _mm512_max_ps(a.data, b.data); }
HEED_ALWAYS_INLINE inline batch<double> max(batch<double> a, batch<double> b) { return _mm512_max_pd(a.data, b.data); }
HEED_ALWAYS_INLINE inline batch<float> min(batch<float> a, batch<float> b) { return _mm512_min_ps(a.data, b.data); }
HEED_ALWAYS_INLINE inline batch<double> min(batch<double> a, batch<double> b) { return _mm512_min_pd(a.data, b.data); }
#else
template <real T>
HEED_ALWAYS_INLINE inline batch<T> fma(batch<T> a, batch<T> b, batch<T> c) {
  return xsimd::fma(a, b, c);
}
#if defined(__AVX__)
HEED_ALWAYS_INLINE inline batch<float> max(batch<float> a, batch<float> b) { return _mm256_max_ps(a.data, b.data); }
HEED_ALWAYS_INLINE inline batch<double> max(batch<double> a, batch<double> b) { return _mm256_max_pd(a.data, b.data); }
HEED_ALWAYS_INLINE inline batch<float> min(batch<float> a, batch<float> b) { return _mm256_min_ps(a.data, b.data); }
HEED_ALWAYS_INLINE inline batch<double> min(batch<double> a, batch<double> b) { return _mm256_min_pd(a.data, b.data); }
#elif defined(__SSE2__)
HEED_ALWAYS_INLINE inline batch<float> max(batch<float> a, batch<float> b) { return _mm_max_ps(a.data, b.data); }
HEED_ALWAYS_INLINE inline batch<double> max(batch<double> a, batch<double> b) { return _mm_max_pd(a.data, b.data); }
HEED_ALWAYS_INLINE inline batch<float> min(batch<float> a, batch<float> b) { return _mm_min_ps(a.data, b.data); }
HEED_ALWAYS_INLINE inline batch<double> min(batch<double> a, batch<double> b) { return _mm_min_pd(a.data, b.data); }
#else
template <real T>
HEED_ALWAYS_INLINE inline batch<T> max(batch<T> a, batch<T> b) {
  return xsimd::select(a > b, a, b);
}
template <real T>
HEED_ALWAYS_INLINE inline batch<T> min(batch<T> a, batch<T> b) {
  return xsimd::select(a < b, a, b);
}
#endif
#endif

template <real T, class Arch>
HEED_ALWAYS_INLINE inline xsimd::batch<T, Arch> select(xsimd::batch_bool<T, Arch> const& condition,
                                                       xsimd::batch<T, Arch> const& a, xsimd::batch<T, Arch> const& b) {
  return xsimd::select(condition, a, b);
}
template <real T>
HEED_ALWAYS_INLINE inline batch_mask<T> not_equal(batch<T> const& a, batch<T> const& b) {
  return !(a == b);
}
template <real T, class Arch>
HEED_ALWAYS_INLINE inline xsimd::batch<T, Arch> abs(xsimd::batch<T, Arch> const& a) {
  return xsimd::abs(a);
}
/// a ≥ 0 with the sign of `of`, that of a zero included.
template <class T, class Arch>
HEED_ALWAYS_INLINE inline xsimd::batch<T, Arch> with_sign_of(xsimd::batch<T, Arch> const& a,
                                                             xsimd::batch<T, Arch> const& of) {
  return a | xsimd::bitofsign(of);
}

/// The same names for one number, so that a functor is written once.
template <real T>
HEED_ALWAYS_INLINE inline T max(T a, T b) {
  return a > b ? a : b;
}
template <real T>
HEED_ALWAYS_INLINE inline T min(T a, T b) {
  return a < b ? a : b;
}
template <real T>
HEED_ALWAYS_INLINE inline T abs(T a) {
  return std::fabs(a);
}
template <real T>
HEED_ALWAYS_INLINE inline T fma(T a, T b, T c) {
#if defined(__FMA__) || defined(__aarch64__)
  return std::fma(a, b, c);
#else
  return a * b + c;  // as the batches of such a machine do
#endif
}
template <real T>
HEED_ALWAYS_INLINE inline T select(bool condition, T a, T b) {
  return condition ? a : b;
}

/// 0, 1, 2, … along the lanes.
template <real T>
HEED_ALWAYS_INLINE inline batch<T> iota() {
  alignas(64) static constexpr auto numbers = [] {
    std::array<T, static_cast<std::size_t>(lanes<T>)> n{};
    for (std::size_t i = 0; i < n.size(); ++i)
      n[i] = static_cast<T>(i);
    return n;
  }();
  return load(numbers.data());
}

/// The mask as an integer, lane 0 in bit 0.
template <real T>
HEED_ALWAYS_INLINE inline std::uint64_t mask_bits(batch_mask<T> const& m) {
#if defined(__AVX512F__)
  return static_cast<std::uint64_t>(m.data);
#elif defined(__AVX__)
  if constexpr (std::same_as<T, float>)
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(std::bit_cast<__m256i>(m.data))));
  else
    return static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(std::bit_cast<__m256i>(m.data))));
#elif defined(__SSE2__)
  if constexpr (std::same_as<T, float>)
    return static_cast<unsigned>(_mm_movemask_ps(_mm_castsi128_ps(std::bit_cast<__m128i>(m.data))));
  else
    return static_cast<unsigned>(_mm_movemask_pd(_mm_castsi128_pd(std::bit_cast<__m128i>(m.data))));
#else
  bool flags[static_cast<std::size_t>(lanes<T>)];
  m.store_unaligned(flags);
  std::uint64_t bits = 0;
  for (int i = 0; i < lanes<T>; ++i)
    bits |= std::uint64_t{flags[i]} << i;
  return bits;
#endif
}

template <real T>
HEED_ALWAYS_INLINE inline bool any(batch_mask<T> const& m) {
  return mask_bits<T>(m) != 0;
}

namespace impl {
/// f over the lanes, halving the vector: a fixed order.
template <real T, class F>
HEED_ALWAYS_INLINE inline T reduce_lanes(batch<T> const& x, F f) {
#if defined(__SSE2__)
  if constexpr (std::same_as<T, float>) {
#if defined(__AVX512F__)
    __m128 const even = f(_mm512_castps512_ps128(x.data), _mm512_extractf32x4_ps(x.data, 2));
    __m128 const four = f(even, f(_mm512_extractf32x4_ps(x.data, 1), _mm512_extractf32x4_ps(x.data, 3)));
#elif defined(__AVX__)
    __m128 const four = f(_mm256_castps256_ps128(x.data), _mm256_extractf128_ps(x.data, 1));
#else
    __m128 const four = x.data;
#endif
    __m128 const two = f(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(f(two, _mm_shuffle_ps(two, two, 1)));
  }
#endif
  alignas(64) T v[static_cast<std::size_t>(lanes<T>)];
  store(v, x);
  for (int half = lanes<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i)
      v[i] = f(v[i], v[i + half]);
  return v[0];
}
}  // namespace impl

/// Sum and maximum over the lanes.
template <real T>
HEED_ALWAYS_INLINE inline T reduce_add(batch<T> const& x) {
  return impl::reduce_lanes<T>(x, [](auto a, auto b) HEED_LAMBDA_INLINE {
    if constexpr (real<decltype(a)>)
      return a + b;
    else
      return _mm_add_ps(a, b);
  });
}
template <real T>
HEED_ALWAYS_INLINE inline T reduce_max(batch<T> const& x) {
  return impl::reduce_lanes<T>(x, [](auto a, auto b) HEED_LAMBDA_INLINE {
    if constexpr (real<decltype(a)>)
      return heed::max(a, b);
    else
      return _mm_max_ps(a, b);
  });
}

/// The reverse of `mask_bits`.
template <real T>
HEED_ALWAYS_INLINE inline batch_mask<T> mask_from_bits(std::uint64_t bits) {
  alignas(64) T flags[static_cast<std::size_t>(lanes<T>)];
  for (int i = 0; i < lanes<T>; ++i)
    flags[i] = static_cast<T>((bits >> i) & 1U);
  return load(flags) != batch<T>(T(0));
}

/// a / b, correctly rounded: xsimd's operator for AArch64 floats is an estimate and Newton's steps.
template <real T>
HEED_ALWAYS_INLINE inline batch<T> quotient(batch<T> const& a, batch<T> const& b) {
#if defined(__aarch64__)
  if constexpr (std::same_as<T, float>)
    return batch<T>(vdivq_f32(a.data, b.data));
#endif
  return a / b;
}

#if defined(__AVX512F__)
namespace impl {
/// Four numbers in each quarter of the vector: the sums over that quarter of a, b, c and d.
HEED_ALWAYS_INLINE inline __m512 quarter_sums(batch<float> const& a, batch<float> const& b, batch<float> const& c,
                                              batch<float> const& d) {
  __m512 const ab = _mm512_add_ps(_mm512_unpacklo_ps(a.data, b.data), _mm512_unpackhi_ps(a.data, b.data));
  __m512 const cd = _mm512_add_ps(_mm512_unpacklo_ps(c.data, d.data), _mm512_unpackhi_ps(c.data, d.data));
  return _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
}
}  // namespace impl
#endif

/// The sums over the lanes of four batches, written to four consecutive numbers.
template <real T>
HEED_ALWAYS_INLINE inline void reduce_add4(batch<T> const& a, batch<T> const& b, batch<T> const& c, batch<T> const& d,
                                           T* sums) {
#if defined(__AVX512F__) || defined(__AVX__) || defined(__SSE2__)
  if constexpr (std::same_as<T, float>) {
#if defined(__AVX512F__)
    __m512 const wide = impl::quarter_sums(a, b, c, d);
    __m256 const half = _mm256_add_ps(_mm512_castps512_ps256(wide),
                                      _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(wide), 1)));
    __m128 const four = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif defined(__AVX__)
    __m256 const half = _mm256_hadd_ps(_mm256_hadd_ps(a.data, b.data), _mm256_hadd_ps(c.data, d.data));
    __m128 const four = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#else
    __m128 const ab = _mm_add_ps(_mm_unpacklo_ps(a.data, b.data), _mm_unpackhi_ps(a.data, b.data));
    __m128 const cd = _mm_add_ps(_mm_unpacklo_ps(c.data, d.data), _mm_unpackhi_ps(c.data, d.data));
    __m128 const four = _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
#endif
    _mm_storeu_ps(sums, four);
    return;
  }
#endif
  sums[0] = reduce_add(a);
  sums[1] = reduce_add(b);
  sums[2] = reduce_add(c);
  sums[3] = reduce_add(d);
}

/// The same for four times four batches, that of x[4 r + i] to row r of `sums`, four numbers each: the same bits.
template <real T>
HEED_ALWAYS_INLINE inline void reduce_add4x4(batch<T> const (&x)[16], T* sums, std::ptrdiff_t ld) {
#if defined(__AVX512F__)
  if constexpr (std::same_as<T, float>) {
    __m512 row[4];
    unroll<4>([&](int r) HEED_LAMBDA_INLINE {
      row[r] = impl::quarter_sums(x[4 * r], x[4 * r + 1], x[4 * r + 2], x[4 * r + 3]);
    });
    auto const halves = [&](int r) HEED_LAMBDA_INLINE {
      return _mm512_add_ps(_mm512_shuffle_f32x4(row[r], row[r + 1], 0x44),
                           _mm512_shuffle_f32x4(row[r], row[r + 1], 0xee));
    };
    __m512 const low = halves(0), high = halves(2);
    __m512 const all = _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
    _mm_storeu_ps(sums, _mm512_castps512_ps128(all));
    _mm_storeu_ps(sums + ld, _mm512_extractf32x4_ps(all, 1));
    _mm_storeu_ps(sums + 2 * ld, _mm512_extractf32x4_ps(all, 2));
    _mm_storeu_ps(sums + 3 * ld, _mm512_extractf32x4_ps(all, 3));
    return;
  }
#endif
  for (int r = 0; r < 4; ++r)
    reduce_add4(x[4 * r], x[4 * r + 1], x[4 * r + 2], x[4 * r + 3], sums + r * ld);
}

/// 2^n for the whole number n hidden in the low bits of `shifted`; see exp.hpp.
HEED_ALWAYS_INLINE inline batch<float> exponent_from_low_bits(batch<float> const& shifted) {
  using bits = xsimd::batch<std::int32_t>;
  return std::bit_cast<batch<float>>(bits(std::bit_cast<bits>(shifted) << 23));
}
HEED_ALWAYS_INLINE inline batch<double> exponent_from_low_bits(batch<double> const& shifted) {
  using bits = xsimd::batch<std::int64_t>;
  return std::bit_cast<batch<double>>(bits(std::bit_cast<bits>(shifted) << 52));
}

/// Whether the two functions below are there: one instruction each, and a comparison.
#if defined(__AVX512F__) && defined(__AVX512DQ__)
inline constexpr bool has_power_scaling = true;

/// x minus the greatest whole number that is not above it, in [0, 1], rounded down; 0 for an infinite x. 9: towards −∞,
/// without an exception for what is inexact.
HEED_ALWAYS_INLINE inline batch<float> above_whole(batch<float> const& x) { return _mm512_reduce_ps(x.data, 9); }
HEED_ALWAYS_INLINE inline batch<double> above_whole(batch<double> const& x) { return _mm512_reduce_pd(x.data, 9); }

/// p · 2^n with that whole number n, and 0 where x < cut.
HEED_ALWAYS_INLINE inline batch<float> scale_by_power(batch<float> const& p, batch<float> const& x,
                                                      batch<float> const& cut) {
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x.data, cut.data, _CMP_NLT_UQ), p.data, x.data);
}
HEED_ALWAYS_INLINE inline batch<double> scale_by_power(batch<double> const& p, batch<double> const& x,
                                                       batch<double> const& cut) {
  return _mm512_maskz_scalef_pd(_mm512_cmp_pd_mask(x.data, cut.data, _CMP_NLT_UQ), p.data, x.data);
}
#else
inline constexpr bool has_power_scaling = false;
#endif

/// A positive normal number taken apart: x = mantissa · 2^exponent with the mantissa in [1, 2).
template <real T>
struct mantissa_exponent {
  batch<T> mantissa, exponent;
};

template <real T>
HEED_ALWAYS_INLINE inline mantissa_exponent<T> split_exponent(batch<T> const& x) {
  using limits = std::numeric_limits<T>;
  using word = std::conditional_t<std::same_as<T, float>, std::uint32_t, std::uint64_t>;
  using bits = xsimd::batch<word>;
  constexpr int width = limits::digits - 1;
  constexpr word fraction = (word(1) << width) - 1;
  batch<T> const whole(T(word(1) << width));  // its fraction bits hold a whole number
  bits const all = std::bit_cast<bits>(x);
  bits const mantissa = (all & bits(fraction)) | std::bit_cast<bits>(batch<T>(T(1)));
  bits const biased = bits(all >> width) | std::bit_cast<bits>(whole);
  return {std::bit_cast<batch<T>>(mantissa),
          std::bit_cast<batch<T>>(biased) - (whole + batch<T>(T(limits::max_exponent - 1)))};
}

// --- narrow storage ------------------------------------------------------------------------------------------------

namespace impl {
template <class Stored>
HEED_ALWAYS_INLINE inline batch<float> widened_one_by_one(Stored const* p) {
  alignas(64) float wide[static_cast<std::size_t>(lanes<float>)];
  for (int i = 0; i < lanes<float>; ++i)
    wide[i] = static_cast<float>(p[i]);
  return load(wide);
}
template <class Stored>
HEED_ALWAYS_INLINE inline void narrow_one_by_one(Stored* p, batch<float> const& x) {
  alignas(64) float wide[static_cast<std::size_t>(lanes<float>)];
  store(wide, x);
  for (int i = 0; i < lanes<float>; ++i)
    p[i] = round_to<Stored>(wide[i]);
}
}  // namespace impl

/// lanes<float> halves, bfloat16s or bytes at p, widened exactly.
HEED_ALWAYS_INLINE inline batch<float> load_widened(Eigen::half const* p) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(p)));
#elif defined(__AVX__) && defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
#else
  return impl::widened_one_by_one(p);
#endif
}
HEED_ALWAYS_INLINE inline batch<float> load_widened(Eigen::bfloat16 const* p) {
#if defined(__AVX512BW__)
  // One permutation that fills with zeros, where widening and shifting are two: word i to the upper half of lane i.
  __m512i const places = _mm512_slli_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), 16);
  __m512i const narrow = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(p)));
  return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaaU, places, narrow));
#elif defined(__AVX512F__)
  __m512i const wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
#elif defined(__AVX2__)
  __m256i const wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
#elif defined(__SSE2__) && !defined(__AVX__)
  __m128i const narrow = _mm_loadl_epi64(reinterpret_cast<__m128i const*>(p));
  return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), narrow));
#else
  return impl::widened_one_by_one(p);
#endif
}
HEED_ALWAYS_INLINE inline batch<float> load_widened(std::int8_t const* p) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p))));
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p))));
#elif defined(__SSE2__) && !defined(__AVX__)
  std::int32_t four;
  std::memcpy(&four, p, sizeof four);
  __m128i const bytes = _mm_cvtsi32_si128(four), pairs = _mm_unpacklo_epi8(bytes, bytes);
  return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(pairs, pairs), 24));
#else
  return impl::widened_one_by_one(p);
#endif
}
HEED_ALWAYS_INLINE inline batch<float> load_widened(float const* p) { return load(p); }
HEED_ALWAYS_INLINE inline batch<double> load_widened(double const* p) { return load(p); }

/// `load_widened` of the first n elements, 0 < n ≤ lanes, the other lanes 0; no byte past them is touched.
template <class Stored>
HEED_ALWAYS_INLINE inline auto load_widened_first(Stored const* p, std::ptrdiff_t n) {
  if constexpr (real<Stored>) {
    return load_first(p, n);
  } else {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    auto const first = static_cast<std::uint16_t>((1U << n) - 1U);
    if constexpr (sizeof(Stored) == 2) {
      __m256i const part = _mm256_maskz_loadu_epi16(first, p);
      return load_widened(reinterpret_cast<Stored const*>(&part));
    } else {
      __m128i const part = _mm_maskz_loadu_epi8(first, p);
      return load_widened(reinterpret_cast<Stored const*>(&part));
    }
#else
    alignas(64) Stored part[static_cast<std::size_t>(lanes<float>)] = {};
    std::memcpy(static_cast<void*>(part), p, static_cast<std::size_t>(n) * sizeof(Stored));
    return load_widened(part);
#endif
  }
}

/// As many of the n > 0 elements at p as fit a batch, widened; 0 behind the last.
template <class Stored>
HEED_ALWAYS_INLINE inline auto load_widened_of(Stored const* p, std::ptrdiff_t n) {
  constexpr std::ptrdiff_t w = std::same_as<Stored, double> ? lanes<double> : lanes<float>;
#if defined(__AVX512F__)
  return load_widened_first(p, n < w ? n : w);
#else
  return n < w ? load_widened_first(p, n) : load_widened(p);
#endif
}

/// lanes<T> booleans at p as what a mask adds: 0 where true, −inf where false.
template <real T>
HEED_ALWAYS_INLINE inline batch<T> load_hidden(std::byte const* p) {
  constexpr T hidden = -std::numeric_limits<T>::infinity();
#if defined(__AVX512F__)
  if constexpr (std::same_as<T, float>) {
    __m512i const flags = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
    return _mm512_maskz_mov_ps(_mm512_testn_epi32_mask(flags, flags), _mm512_set1_ps(hidden));
  }
#elif defined(__AVX2__)
  if constexpr (std::same_as<T, float>) {
    __m256i const flags = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p)));
    __m256i const off = _mm256_cmpeq_epi32(flags, _mm256_setzero_si256());
    return _mm256_and_ps(_mm256_castsi256_ps(off), _mm256_set1_ps(hidden));
  }
#endif
  alignas(64) T numbers[static_cast<std::size_t>(lanes<T>)];
  for (int i = 0; i < lanes<T>; ++i)
    numbers[i] = p[i] != std::byte{0} ? T(0) : hidden;
  return load(numbers);
}

/// The reverse of load_widened: lanes<float> numbers rounded to nearest even, NaN kept, overflow to infinity.
HEED_ALWAYS_INLINE inline void store_narrowed(Eigen::half* p, batch<float> const& x) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x.data, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX__) && defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.data, _MM_FROUND_TO_NEAREST_INT));
#else
  impl::narrow_one_by_one(p, x);
#endif
}
HEED_ALWAYS_INLINE inline void store_narrowed(Eigen::bfloat16* p, batch<float> const& x) {
#if defined(__AVX512F__)
  __m512i const bits = _mm512_castps_si512(x.data), high = _mm512_srli_epi32(bits, 16);
  __m512i const odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  __m512i const rounded =
      _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  __mmask16 const nan = _mm512_cmp_ps_mask(x.data, x.data, _CMP_UNORD_Q);
  __m512i const result = _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(result));
#else
  impl::narrow_one_by_one(p, x);
#endif
}
HEED_ALWAYS_INLINE inline void store_narrowed(float* p, batch<float> const& x) { store(p, x); }
HEED_ALWAYS_INLINE inline void store_narrowed(double* p, batch<double> const& x) { store(p, x); }

HEED_ISA_END
}  // namespace heed
