#pragma once

#include <heed/core/simd.hpp>

#if defined(__linux__) && defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/// AMX: the operating system's permission, the tile registers, and bfloat16 in pairs, which is how tiles take it.

namespace heed {

/// Whether this process may use AMX tiles. Made by `enable_amx`, shown to a call by `with_amx`; copied freely.
class amx_permit {
 public:
  explicit operator bool() const { return granted_; }
  friend amx_permit enable_amx() noexcept;

 private:
  bool granted_ = false;
};

/// Asks the operating system to let this process use AMX tiles; true if the processor has bfloat16 tiles and the system
/// agrees. Asking again does no harm. No state is kept but the system's own: keep the permit.
inline amx_permit enable_amx() noexcept {
  amx_permit permit;
#if defined(__linux__) && defined(__x86_64__)
  constexpr unsigned amx_bf16 = 1U << 22, request = 0x1023, tile_data = 18;  // cpuid 7.0 edx; ARCH_REQ_XCOMP_PERM
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & amx_bf16) != 0)
    permit.granted_ = syscall(SYS_arch_prctl, request, tile_data) == 0;
#endif
  return permit;
}

HEED_ISA_BEGIN

/// Whether this build has bfloat16 tiles for arithmetic in T.
#if defined(HEED_HAS_AMX)
template <real T>
inline constexpr bool has_tiles = std::same_as<T, float>;
#else
template <real T>
inline constexpr bool has_tiles = false;
#endif

namespace impl {

/// A tile register holds 16 rows of 64 bytes: 16 × 16 floats, or 16 × 32 bfloat16s.
inline constexpr std::ptrdiff_t tile_size = 16;
inline constexpr std::ptrdiff_t tile_pairs = 32;

#if defined(HEED_HAS_AMX)

/// Configures all eight tile registers as whole tiles for the calling thread, and gives them back.
class tile_session {
 public:
  tile_session() {
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } const whole;
    asm volatile("ldtilecfg %0" ::"m"(whole));
  }
  ~tile_session() { asm volatile("tilerelease" ::: "memory"); }
  tile_session(tile_session const&) = delete;
  tile_session& operator=(tile_session const&) = delete;
};

// g++ 12's intrinsics tell the compiler nothing of the memory they read: stores would sink below the loads.
template <int Tile>
HEED_ALWAYS_INLINE inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(Tile));
}
template <int Tile>
HEED_ALWAYS_INLINE inline void tile_load(void const* p, std::ptrdiff_t stride_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride_bytes), "i"(Tile) : "memory");
}
template <int Tile>
HEED_ALWAYS_INLINE inline void tile_store(void* p, std::ptrdiff_t stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride_bytes), "i"(Tile) : "memory");
}
/// sum[i][j] += Σ_t left[i][2t] right[t][2j] + left[i][2t + 1] right[t][2j + 1], subnormal numbers taken as 0.
template <int Sum, int Left, int Right>
HEED_ALWAYS_INLINE inline void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(Left), "i"(Right));
}

/// The first n ≤ 32 bfloat16s at p, 0 behind them; a batch of floats by its bits only.
HEED_ALWAYS_INLINE inline batch<float> load_pairs(Eigen::bfloat16 const* p, std::ptrdiff_t n) {
  auto const first = static_cast<__mmask32>((std::uint64_t{1} << n) - 1U);
  return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(first, p));
}

/// Pairs (even[i], odd[i]) of the first n ≤ 16 bfloat16s of two rows, 0 behind them.
HEED_ALWAYS_INLINE inline batch<float> interleave(Eigen::bfloat16 const* even, Eigen::bfloat16 const* odd,
                                                  std::ptrdiff_t n) {
  auto const first = static_cast<__mmask16>((1U << n) - 1U);
  __m512i const low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first, even));
  __m512i const high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first, odd));
  return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

/// The pairs with every infinite or NaN bfloat16 replaced by 0; `finite` becomes false if there was one.
HEED_ALWAYS_INLINE inline batch<float> finite_pairs(batch<float> const& pairs, bool& finite) {
  __m512i const exponent = _mm512_set1_epi16(0x7f80), bits = _mm512_castps_si512(pairs.data);
  __mmask32 const usual = _mm512_cmpneq_epi16_mask(_mm512_and_si512(bits, exponent), exponent);
  finite = finite && usual == 0xffffffffU;
  return _mm512_castsi512_ps(_mm512_maskz_mov_epi16(usual, bits));
}

/// Rounds two batches to bfloat16 in place, to nearest even, and returns them as pairs (even, odd).
HEED_ALWAYS_INLINE inline batch<float> round_to_pairs(batch<float>& even, batch<float>& odd) {
  auto const rounded = [](batch<float> const& x) HEED_LAMBDA_INLINE {
    return _mm512_cvtepu16_epi32(std::bit_cast<__m256i>(_mm512_cvtneps_pbh(x.data)));
  };
  __m512i const low = rounded(even), high = _mm512_slli_epi32(rounded(odd), 16);
  even = batch<float>(_mm512_castsi512_ps(_mm512_slli_epi32(low, 16)));
  odd = batch<float>(_mm512_castsi512_ps(high));
  return _mm512_castsi512_ps(_mm512_or_si512(low, high));
}

/// The pairs' even and odd members, widened.
HEED_ALWAYS_INLINE inline batch<float> even_of_pairs(batch<float> const& pairs) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs.data), 16));
}
HEED_ALWAYS_INLINE inline batch<float> odd_of_pairs(batch<float> const& pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs.data), _mm512_set1_epi32(-65536)));
}

#endif

}  // namespace impl
HEED_ISA_END
}  // namespace heed
