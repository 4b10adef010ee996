#pragma once

#include <cstddef>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

/// Memory that tensors own.

namespace heed::detail {

/// Large pieces begin on a large page, and the system is asked for such pages: it then looks up few addresses instead of
/// many while keys and values stream by. Where it gives them only to who asks (Linux, transparent_hugepage "madvise"),
/// decode over 32768 keys of 8 heads takes 2 to 8 % less time, and a bias of 2048², whose rows stand 8 KiB apart, costs 18
/// to 22 % of a call instead of 26 (Emerald Rapids, `heed_bench_attention --benchmark_filter='decode|bias'`, both kinds of
/// pages in turns).
inline constexpr std::size_t large_page = std::size_t{2} << 20;  // of x86-64, and of AArch64 with pages of 4 KiB
inline constexpr std::size_t least_alignment = 64;               // a cache line, and the widest vector

/// Pieces of at least two large pages: a smaller one might hold none.
constexpr std::align_val_t alignment_of(std::size_t bytes) {
  return std::align_val_t{bytes >= 2 * large_page ? large_page : least_alignment};
}

/// @throws std::bad_alloc
inline void* allocate(std::size_t bytes) {
  void* const memory = ::operator new(bytes, alignment_of(bytes));
#if defined(MADV_HUGEPAGE)
  if (bytes >= 2 * large_page)
    ::madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: where it is refused, nothing is lost
#endif
  return memory;
}

/// @param bytes as they were asked for
inline void release(void* memory, std::size_t bytes) { ::operator delete(memory, alignment_of(bytes)); }

}  // namespace heed::detail
