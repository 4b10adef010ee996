#pragma once

#include <cstddef>

/// Counts what the program asks of the heap, on all threads: every form of operator new, and where the C library lets
/// us (glibc without a sanitizer) malloc and its kin as well, which is where Eigen gets its memory.

namespace heed::test {

/// Requests since the start of the program.
std::size_t allocations_so_far();

/// Bytes of these requests.
std::size_t bytes_so_far();

/// Whether malloc is counted, too, and not operator new alone.
bool counts_malloc();

/// The requests since this object was made.
class allocation_count {
 public:
  allocation_count() : requests_(allocations_so_far()), bytes_(bytes_so_far()) {}

  std::size_t count() const { return allocations_so_far() - requests_; }
  std::size_t bytes() const { return bytes_so_far() - bytes_; }

 private:
  std::size_t requests_, bytes_;
};

}  // namespace heed::test
