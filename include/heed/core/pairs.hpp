#pragma once

#include <heed/core/simd.hpp>

/// Storage that is widened two vectors at a time. A bfloat16 is the upper half of a float: of two neighbours the first is
/// shifted into place, and the second is there once the lower half is cleared. `load_widened` needs a permutation for each,
/// and a single port has it; in return even elements come in one vector and odd ones in the next.
///
/// With AVX-512 alone: decode then takes 3 to 9 % less time (`heed_bench_attention --benchmark_filter=decode.*bfloat16`, old
/// and new in turns on the same rows). With the sixteen registers of AVX2 and SSE2 one row gains, and the values of four
/// rows take up to 30 % longer.

namespace heed {
HEED_ISA_BEGIN

#if defined(__AVX512F__)
inline constexpr bool widens_pairs = true;
#else
inline constexpr bool widens_pairs = false;
#endif

/// Whether V vectors of a storage are read so.
template <class Stored, int V>
inline constexpr bool in_pairs = widens_pairs && std::same_as<Stored, Eigen::bfloat16> && V % 2 == 0;

#if defined(__AVX512F__)
/// 2 · lanes bfloat16s at p, widened exactly.
HEED_ALWAYS_INLINE inline void load_pair(Eigen::bfloat16 const* p, batch<float>& even, batch<float>& odd) {
  __m512i const both = _mm512_loadu_si512(p);
  even = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
  odd = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
}

/// Even and odd numbers into their order, the first half where the even ones were.
HEED_ALWAYS_INLINE inline void join_pair(batch<float>& even, batch<float>& odd) {
  __m512i const low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  __m512i const high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
  __m512 const a = even.data, b = odd.data;
  even = _mm512_permutex2var_ps(a, low, b);
  odd = _mm512_permutex2var_ps(a, high, b);
}

/// The reverse, in memory: 2 · lanes numbers at p, the even ones before the odd ones.
HEED_ALWAYS_INLINE inline void split_pair(float const* p, float* to) {
  __m512i const even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  __m512i const odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  __m512 const a = load(p).data, b = load(p + lanes<float>).data;
  store(to, batch<float>(_mm512_permutex2var_ps(a, even, b)));
  store(to + lanes<float>, batch<float>(_mm512_permutex2var_ps(a, odd, b)));
}
#endif

/// V · lanes elements at p, widened exactly: in order, or where `in_pairs` of each two vectors the even ones, then the odd.
template <int V, class Stored, real T>
HEED_ALWAYS_INLINE inline void load_vectors(Stored const* p, batch<T>* to) {
  if constexpr (in_pairs<Stored, V>)
    unroll<V / 2>([&](int u) HEED_LAMBDA_INLINE { load_pair(p + 2 * u * lanes<T>, to[2 * u], to[2 * u + 1]); });
  else
    unroll<V>([&](int u) HEED_LAMBDA_INLINE { to[u] = load_widened(p + u * lanes<T>); });
}

HEED_ISA_END
}  // namespace heed
