#pragma once

#include <heed/core/simd.hpp>

/// Squares of lanes × lanes numbers, transposed in registers.

namespace heed {
HEED_ISA_BEGIN

namespace impl {

#if defined(__AVX512F__)
/// The last three of the four levels of a 16×16 transposition: 4×4 blocks in registers, then blocks of lanes between
/// registers. In comes what the first level makes: halves of rows i and i + 4 side by side,
/// left halves before right ones.
HEED_ALWAYS_INLINE inline void transpose_halves(__m512 (&r)[16]) {
  __m512 t[16];
  unroll<8>([&](int i) HEED_LAMBDA_INLINE {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  });
  unroll<8>([&](int i) HEED_LAMBDA_INLINE {
    int const from = i / 2 * 4 + i % 2, to = i / 2 * 4 + i % 2 * 2;
    __m512d const a = _mm512_castps_pd(t[from]), b = _mm512_castps_pd(t[from + 2]);
    r[to] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
    r[to + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
  });
  unroll<8>([&](int i) HEED_LAMBDA_INLINE {
    int const from = i / 4 * 8 + i % 4;
    t[from] = _mm512_shuffle_f32x4(r[from], r[from + 4], 0x88);
    t[from + 4] = _mm512_shuffle_f32x4(r[from], r[from + 4], 0xdd);
  });
  unroll<16>([&](int i) HEED_LAMBDA_INLINE { r[i] = t[i]; });
}

HEED_ALWAYS_INLINE inline void transpose_registers(__m512 (&r)[16]) {
  __m512 t[16];
  unroll<8>([&](int i) HEED_LAMBDA_INLINE {
    int const row = i / 4 * 8 + i % 4;
    t[i] = _mm512_shuffle_f32x4(r[row], r[row + 4], 0x44);
    t[i + 8] = _mm512_shuffle_f32x4(r[row], r[row + 4], 0xee);
  });
  transpose_halves(t);
  unroll<16>([&](int i) HEED_LAMBDA_INLINE { r[i] = t[i]; });
}

/// Eight numbers at a, then eight at b.
HEED_ALWAYS_INLINE inline __m512 both_halves(float const* a, float const* b) {
  __m512d const low = _mm512_castpd256_pd512(_mm256_castps_pd(_mm256_loadu_ps(a)));
  return _mm512_castpd_ps(_mm512_insertf64x4(low, _mm256_castps_pd(_mm256_loadu_ps(b)), 1));
}

/// The square whose row i is at row_at(i). Halves of rows meet on their way from memory, on any port: that leaves 48
/// shuffles of 64 to the one port that has them.
template <class Rows>
HEED_ALWAYS_INLINE inline void load_transposed_registers(Rows row_at, __m512 (&r)[16]) {
  unroll<8>([&](int i) HEED_LAMBDA_INLINE {
    int const row = i / 4 * 8 + i % 4;
    float const *const a = row_at(row), *const b = row_at(row + 4);
    r[i] = both_halves(a, b);
    r[i + 8] = both_halves(a + 8, b + 8);
  });
  transpose_halves(r);
}
#elif defined(__AVX__)
/// The last two of the three levels of an 8×8 transposition; see above.
HEED_ALWAYS_INLINE inline void transpose_halves(__m256 (&r)[8]) {
  __m256 t[8];
  unroll<4>([&](int i) HEED_LAMBDA_INLINE {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  });
  unroll<4>([&](int i) HEED_LAMBDA_INLINE {
    int const from = i / 2 * 4 + i % 2, to = i / 2 * 4 + i % 2 * 2;
    r[to] = _mm256_shuffle_ps(t[from], t[from + 2], 0x44);
    r[to + 1] = _mm256_shuffle_ps(t[from], t[from + 2], 0xee);
  });
}

HEED_ALWAYS_INLINE inline void transpose_registers(__m256 (&r)[8]) {
  __m256 t[8];
  unroll<4>([&](int i) HEED_LAMBDA_INLINE {
    t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
  });
  transpose_halves(t);
  unroll<8>([&](int i) HEED_LAMBDA_INLINE { r[i] = t[i]; });
}

template <class Rows>
HEED_ALWAYS_INLINE inline void load_transposed_registers(Rows row_at, __m256 (&r)[8]) {
  unroll<4>([&](int i) HEED_LAMBDA_INLINE {
    float const *const a = row_at(i), *const b = row_at(i + 4);
    r[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(a)), _mm_loadu_ps(b), 1);
    r[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(a + 4)), _mm_loadu_ps(b + 4), 1);
  });
  transpose_halves(r);
}
#endif

}  // namespace impl

/// The square of lanes × lanes elements, rows[i][j] ↔ rows[j][i].
template <real T>
HEED_ALWAYS_INLINE inline void transpose(batch<T> (&rows)[static_cast<std::size_t>(lanes<T>)]) {
#if defined(__AVX512F__) || defined(__AVX__)
  if constexpr (std::same_as<T, float>) {
    decltype(rows[0].data) r[static_cast<std::size_t>(lanes<T>)];
    unroll<lanes<T>>([&](int i) HEED_LAMBDA_INLINE { r[i] = rows[i].data; });
    impl::transpose_registers(r);
    unroll<lanes<T>>([&](int i) HEED_LAMBDA_INLINE { rows[i] = batch<T>(r[i]); });
    return;
  }
#endif
  constexpr int w = lanes<T>;
  alignas(64) T square[static_cast<std::size_t>(w * w)];
  alignas(64) T column[static_cast<std::size_t>(w)];
  for (int i = 0; i < w; ++i)
    store(square + i * w, rows[i]);
  for (int j = 0; j < w; ++j) {
    for (int i = 0; i < w; ++i)
      column[i] = square[i * w + j];
    rows[j] = load(column);
  }
}

/// columns[j][i] = row_at(i)[j]: the same of a square in memory, with fewer shuffles.
template <real T, class Rows>
HEED_ALWAYS_INLINE inline void load_transposed(Rows row_at, batch<T> (&columns)[static_cast<std::size_t>(lanes<T>)]) {
#if defined(__AVX512F__) || defined(__AVX__)
  if constexpr (std::same_as<T, float>) {
    decltype(columns[0].data) r[static_cast<std::size_t>(lanes<T>)];
    impl::load_transposed_registers(row_at, r);
    unroll<lanes<T>>([&](int i) HEED_LAMBDA_INLINE { columns[i] = batch<T>(r[i]); });
    return;
  }
#endif
  unroll<lanes<T>>([&](int i) HEED_LAMBDA_INLINE { columns[i] = load(row_at(i)); });
  transpose<T>(columns);
}

HEED_ISA_END
}  // namespace heed
