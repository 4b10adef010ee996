#include "support/counting_allocator.hpp"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <new>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define HEED_TEST_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HEED_TEST_SANITIZED 1
#endif
#if defined(__GLIBC__) && !defined(HEED_TEST_SANITIZED)
#define HEED_TEST_COUNTS_MALLOC 1
#endif

namespace {

std::atomic<std::size_t> requests{0};
std::atomic<std::size_t> bytes{0};

void note(std::size_t size) {
  requests.fetch_add(1, std::memory_order_relaxed);
  bytes.fetch_add(size, std::memory_order_relaxed);
}

}  // namespace

#if defined(HEED_TEST_COUNTS_MALLOC)

// glibc's own, by the names it keeps for programs that replace the public ones: the heap stays one heap.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) {
  note(size);
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  note(count * size);
  return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) {
  note(size);
  return __libc_realloc(old, size);
}
void* memalign(std::size_t alignment, std::size_t size) {
  note(size);
  return __libc_memalign(alignment, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  note(size);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, std::size_t alignment, std::size_t size) {
  note(size);
  void* const memory = __libc_memalign(alignment, size);
  if (memory == nullptr)
    return ENOMEM;
  *result = memory;
  return 0;
}
}

namespace {
void* take(std::size_t size) { return __libc_malloc(size); }
void* take(std::size_t size, std::size_t alignment) { return __libc_memalign(alignment, size); }
}  // namespace

#else

namespace {
void* take(std::size_t size) { return std::malloc(size); }
void* take(std::size_t size, std::size_t alignment) {
  return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}
}  // namespace

#endif

namespace {

template <class... Alignment>
void* take_or_null(std::size_t size, Alignment... alignment) {
  note(size);
  return take(size == 0 ? 1 : size, static_cast<std::size_t>(alignment)...);
}

template <class... Alignment>
void* take_or_throw(std::size_t size, Alignment... alignment) {
  void* const memory = take_or_null(size, alignment...);
  if (memory == nullptr)
    throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t size) { return take_or_throw(size); }
void* operator new[](std::size_t size) { return take_or_throw(size); }
void* operator new(std::size_t size, std::align_val_t alignment) { return take_or_throw(size, alignment); }
void* operator new[](std::size_t size, std::align_val_t alignment) { return take_or_throw(size, alignment); }
void* operator new(std::size_t size, std::nothrow_t const&) noexcept { return take_or_null(size); }
void* operator new[](std::size_t size, std::nothrow_t const&) noexcept { return take_or_null(size); }
void* operator new(std::size_t size, std::align_val_t alignment, std::nothrow_t const&) noexcept {
  return take_or_null(size, alignment);
}
void* operator new[](std::size_t size, std::align_val_t alignment, std::nothrow_t const&) noexcept {
  return take_or_null(size, alignment);
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace heed::test {

std::size_t allocations_so_far() { return requests.load(); }
std::size_t bytes_so_far() { return bytes.load(); }

bool counts_malloc() {
#if defined(HEED_TEST_COUNTS_MALLOC)
  return true;
#else
  return false;
#endif
}

}  // namespace heed::test
