#pragma once

#include <heed/core/view.hpp>

#include <sys/mman.h>
#include <unistd.h>

namespace heed::test {

/// A page of memory between two that nobody may touch: a read or a write one byte too far ends the program.
class guard_pages {
 public:
  guard_pages() : bytes_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    start_ = static_cast<std::byte*>(mmap(nullptr, 3 * bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    detail::expect(start_ != MAP_FAILED && mprotect(start_ + bytes_, bytes_, PROT_READ | PROT_WRITE) == 0,
                   "guard_pages: the system gives no pages");
  }
  guard_pages(guard_pages const&) = delete;
  guard_pages& operator=(guard_pages const&) = delete;
  ~guard_pages() { munmap(start_, 3 * bytes_); }

  /// The first elements of the page.
  template <class T>
  T* front() const {
    return reinterpret_cast<T*>(start_ + bytes_);
  }
  /// Its last n elements.
  template <class T>
  T* back(index n) const {
    return reinterpret_cast<T*>(start_ + 2 * bytes_) - n;
  }

 private:
  std::size_t bytes_;
  std::byte* start_;
};

}  // namespace heed::test
