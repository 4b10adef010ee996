#pragma once

#include <heed/core/amx.hpp>

/// Floats in fixed point, as three signed digits of eight bits, which is how AMX tiles multiply them with int8 codes: exactly,
/// into 32 bits.
///
///     x ≈ (d₀ 2¹⁶ + d₁ 2⁸ + d₂) unit,   unit = most / 0x7f7f00,   |error| ≤ 1.5 unit
///
/// where `most` is the greatest |x| of the numbers that share the unit: nearly as exact as a float for the greatest of
/// them, and for sums over all of them.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

#if defined(HEED_HAS_AMX)

inline constexpr int digit_count = 3;

/// What the digits of a row of numbers count. Where one of them is not finite, or all are so small that the unit would
/// have no inverse, there are none.
struct digit_unit {
  float unit = 0, inverse = 0;
  bool exists = false;
};

HEED_NOINLINE inline digit_unit unit_of(float const* x, std::ptrdiff_t n) {
  // Three digits of at most 127 make 0x7f7f7f; the rest is room for rounding. Below `least` digits / most overflows, and the
  // unit is soon subnormal: 2^-104 and 2^-126 would do, too.
  constexpr float digits = 0x7f7f00, least = 0x1p-100f;
  batch<float> const zero(0.0f);
  batch<float> sum[2] = {zero, zero}, top[2] = {zero, zero};
  for (std::ptrdiff_t j = 0; j < n; j += 2 * lanes<float>)
    unroll<2>([&](int i) HEED_LAMBDA_INLINE {
      std::ptrdiff_t const at = j + i * lanes<float>;
      batch<float> const some = load_or_zero(x + at, n - at);
      sum[i] = fma(some, zero, sum[i]);
      top[i] = heed::max(heed::abs(some), top[i]);
    });
  if (heed::any<float>(not_equal<float>(sum[0] + sum[1], zero)))
    return {};
  float const most = reduce_max(heed::max(top[0], top[1]));
  if (most == 0.0f)
    return {0, 0, true};
  return {most / digits, digits / most, most >= least};
}

/// The digits of n numbers, the greatest at `to`, the others `ld` and 2 · ld bytes behind it, padded with zeros to 64.
HEED_NOINLINE inline void split_row(float const* x, std::ptrdiff_t n, float inverse, std::byte* to, std::ptrdiff_t ld) {
  // A number plus 0x808080 has its digits, plus 128 each, as its bytes.
  __m512i const middle = _mm512_set1_epi32(0x808080);
  for (std::ptrdiff_t j = 0; j < (n + tile_codes - 1) / tile_codes * tile_codes; j += lanes<float>) {
    batch<float> const scaled = load_or_zero(x + j, n - j) * batch<float>(inverse);
    __m512i const bytes = _mm512_xor_si512(_mm512_add_epi32(_mm512_cvtps_epi32(scaled.data), middle), middle);
    unroll<digit_count>([&](int i) HEED_LAMBDA_INLINE {
      __m512i const digit = _mm512_srli_epi32(bytes, static_cast<unsigned>(16 - 8 * i));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * ld + j), _mm512_cvtepi32_epi8(digit));
    });
  }
}

/// Quarter i of x[j] becomes quarter j of x[i].
HEED_ALWAYS_INLINE inline void transpose_quarters(batch<float> (&x)[4]) {
  __m512 const low[2] = {_mm512_shuffle_f32x4(x[0].data, x[1].data, 0x44),
                         _mm512_shuffle_f32x4(x[2].data, x[3].data, 0x44)};
  __m512 const high[2] = {_mm512_shuffle_f32x4(x[0].data, x[1].data, 0xee),
                          _mm512_shuffle_f32x4(x[2].data, x[3].data, 0xee)};
  x[0] = _mm512_shuffle_f32x4(low[0], low[1], 0x88);
  x[1] = _mm512_shuffle_f32x4(low[0], low[1], 0xdd);
  x[2] = _mm512_shuffle_f32x4(high[0], high[1], 0x88);
  x[3] = _mm512_shuffle_f32x4(high[0], high[1], 0xdd);
}

/// What each digit counts, of four numbers one after the other, and 0 beside the three of each.
HEED_ALWAYS_INLINE inline batch<float> weights_of_digits(float const* unit) {
  __m512i const thrice = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  __m512 const of_number = _mm512_permutexvar_ps(thrice, _mm512_castps128_ps512(_mm_loadu_ps(unit)));
  return _mm512_mul_ps(of_number, _mm512_broadcast_f32x4(_mm_set_ps(0.0f, 1.0f, 256.0f, 65536.0f)));
}

HEED_ALWAYS_INLINE inline batch<float> widen_sums(std::int32_t const* sums) {
  return _mm512_cvtepi32_ps(_mm512_load_si512(sums));
}

/// row[r][j] = Σ_i weight[4 r + i] · sums[j · ld + 4 r + i] for 16 × 4 sums of digits' products.
HEED_ALWAYS_INLINE inline void join_columns(std::int32_t const* sums, std::ptrdiff_t ld, batch<float> const& weight,
                                            batch<float> (&row)[4]) {
  auto const number = [&](int j) HEED_LAMBDA_INLINE { return widen_sums(sums + j * ld) * weight; };
  unroll<4>([&](int i) HEED_LAMBDA_INLINE {
    row[i] = quarter_sums(number(4 * i), number(4 * i + 1), number(4 * i + 2), number(4 * i + 3));
  });
  transpose_quarters(row);
}

/// The same for 16 columns of one number, whose digits' sums lie in rows.
HEED_ALWAYS_INLINE inline batch<float> join_rows(std::int32_t const* sums, std::ptrdiff_t ld, float unit) {
  batch<float> const digit(256.0f);
  batch<float> const upper = fma(widen_sums(sums), digit, widen_sums(sums + ld));
  return fma(upper, digit, widen_sums(sums + 2 * ld)) * batch<float>(unit);
}

/// 64 channels of four rows as a row of four right operands. Lanes of 128 bits stay where they are, so that channels come
/// in fours: those of operand t are 16 L + 4 t + i for lane L. `transpose_quarters` puts sums back in order.
HEED_ALWAYS_INLINE inline void interleave(std::int8_t const* const (&rows)[4], std::ptrdiff_t channel, std::byte* to) {
  auto const row = [&](int i) HEED_LAMBDA_INLINE { return _mm512_loadu_si512(rows[i] + channel); };
  __m512i const a = row(0), b = row(1), c = row(2), d = row(3);
  __m512i const low[2] = {_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d)};
  __m512i const high[2] = {_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d)};
  _mm512_store_si512(to, _mm512_unpacklo_epi16(low[0], low[1]));
  _mm512_store_si512(to + 64, _mm512_unpackhi_epi16(low[0], low[1]));
  _mm512_store_si512(to + 128, _mm512_unpacklo_epi16(high[0], high[1]));
  _mm512_store_si512(to + 192, _mm512_unpackhi_epi16(high[0], high[1]));
}

#endif

}  // namespace impl
HEED_ISA_END
}  // namespace heed
