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

/// Asks the operating system to let this process use AMX tiles; true if the processor has tiles of bfloat16 and of int8
/// and the system agrees. Asking again does no harm. No state is kept but the system's own: keep the permit.
inline amx_permit enable_amx() noexcept {
  amx_permit permit;
#if defined(__linux__) && defined(__x86_64__)
  constexpr unsigned kinds = 1U << 22 | 1U << 25;       // cpuid 7.0 edx: AMX-BF16, AMX-INT8
  constexpr unsigned request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kinds) == kinds)
    permit.granted_ = syscall(SYS_arch_prctl, request, tile_data) == 0;
#endif
  return permit;
}

HEED_ISA_BEGIN

/// Whether this build has AMX tiles for arithmetic in T.
#if defined(HEED_HAS_AMX)
template <real T>
inline constexpr bool has_tiles = std::same_as<T, float>;
#else
template <real T>
inline constexpr bool has_tiles = false;
#endif

namespace impl {

/// A tile register holds 16 rows of 64 bytes: 16 × 16 floats, 16 × 32 bfloat16s or 16 × 64 int8s.
inline constexpr std::ptrdiff_t tile_size = 16;
inline constexpr std::ptrdiff_t tile_pairs = 32;
inline constexpr std::ptrdiff_t tile_codes = 64;

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
/// sum[i][j] += Σ_t left[i][2t] right[t][2j] + left[i][2t + 1] right[t][2j + 1], subnormal numbers taken as 0; of int8
/// four products a step instead of two, exactly, into int32s.
template <class Stored, int Sum, int Left, int Right>
HEED_ALWAYS_INLINE inline void tile_multiply() {
  if constexpr (std::same_as<Stored, std::int8_t>)
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(Left), "i"(Right));
  else
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(Left), "i"(Right));
}

/// The first n floats at p, at most a batch, 0 behind them.
HEED_ALWAYS_INLINE inline batch<float> load_or_zero(float const* p, std::ptrdiff_t n) {
  return n > 0 ? load_widened_of(p, n) : batch<float>(0.0f);
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

/// Whether a member's magnitude is `limit` or more, infinities and NaN included, one bit each.
HEED_ALWAYS_INLINE inline std::uint32_t large_in_pairs(batch<float> const& pairs, Eigen::bfloat16 limit) {
  __m512i const magnitude = _mm512_and_si512(_mm512_castps_si512(pairs.data), _mm512_set1_epi16(0x7fff));
  return _mm512_cmpge_epu16_mask(magnitude, _mm512_set1_epi16(std::bit_cast<short>(limit)));
}

/// The pairs with every infinite or NaN bfloat16 replaced by 0; `finite` becomes false if there was one.
HEED_ALWAYS_INLINE inline batch<float> finite_pairs(batch<float> const& pairs, bool& finite) {
  std::uint32_t const infinite = large_in_pairs(pairs, std::numeric_limits<Eigen::bfloat16>::infinity());
  finite = finite && infinite == 0;
  return _mm512_castsi512_ps(_mm512_maskz_mov_epi16(~infinite, _mm512_castps_si512(pairs.data)));
}

/// Rounds two batches to bfloat16, to nearest even, and returns them as pairs (even, odd).
HEED_ALWAYS_INLINE inline batch<float> round_to_pairs(batch<float> const& even, batch<float> const& odd) {
  alignas(64) static constexpr auto order = [] {
    std::array<std::uint16_t, 32> from{};
    for (std::size_t i = 0; i < from.size(); ++i)
      from[i] = static_cast<std::uint16_t>(i / 2 + i % 2 * 16);
    return from;
  }();
  auto const halves = std::bit_cast<__m512i>(_mm512_cvtne2ps_pbh(odd.data, even.data));
  return _mm512_castsi512_ps(_mm512_permutexvar_epi16(_mm512_load_si512(order.data()), halves));
}

/// The greater of the pairs, member by member, for numbers that are not negative; NaN counts as the greatest.
HEED_ALWAYS_INLINE inline batch<float> greater_pairs(batch<float> const& a, batch<float> const& b) {
  return _mm512_castsi512_ps(_mm512_max_epu16(_mm512_castps_si512(a.data), _mm512_castps_si512(b.data)));
}
HEED_ALWAYS_INLINE inline bool any_pair_above(batch<float> const& pairs, Eigen::bfloat16 limit) {
  auto const bits = static_cast<short>(std::bit_cast<std::uint16_t>(limit));
  return _mm512_cmpgt_epu16_mask(_mm512_castps_si512(pairs.data), _mm512_set1_epi16(bits)) != 0;
}

/// 2^x for weights that are rounded to bfloat16, to 9e-5 of the result: a twentieth of what that rounding
/// takes. Exactly 1 at 0 and exactly 0 below −126; NaN stays NaN.
HEED_ALWAYS_INLINE inline batch<float> exp2_to_round(batch<float> const& x) {
  // 2^f on [0, 1) as 1 + f (c1 + f (c2 + f c3)), minimax. Masked: subnormal results would take 200 cycles each.
  constexpr int down = 0x09;
  batch<float> const f = _mm512_reduce_ps(x.data, down);
  batch<float> p = fma(batch<float>(0x1.3baaa6p-4f), f, batch<float>(0x1.d23790p-3f));
  p = fma(p, f, batch<float>(0x1.63e658p-1f));
  p = fma(p, f, batch<float>(1.0f));
  __mmask16 const normal = _mm512_cmp_ps_mask(x.data, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(normal, p.data, x.data);
}

/// The pairs' even and odd members, widened.
HEED_ALWAYS_INLINE inline batch<float> even_of_pairs(batch<float> const& pairs) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs.data), 16));
}
HEED_ALWAYS_INLINE inline batch<float> odd_of_pairs(batch<float> const& pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs.data), _mm512_set1_epi32(-65536)));
}

#else

class tile_session {};  // what a task holds where there are none

#endif

}  // namespace impl
HEED_ISA_END
}  // namespace heed
