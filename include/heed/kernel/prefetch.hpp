#pragma once

#include <heed/core/view.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

/// Asking the memory for rows ahead of who reads or writes them, one cache line at a time and evenly: a burst of requests
/// waits for itself, and what follows waits for it.

namespace heed {
HEED_ISA_BEGIN

/// Walks over the cache lines of equally spaced rows in the order of addresses. It knows no last row: to ask for what
/// lies behind it reads nothing.
class line_walk {
 public:
  static constexpr index line = 64;  // bytes

  line_walk() = default;

  /// @param stride from row to row, in bytes
  /// @param bytes of a row
  line_walk(void const* rows, index stride, index bytes)
      : at_(reinterpret_cast<std::uintptr_t>(rows)), lines_((bytes + line - 1) / line),
        gap_(static_cast<std::uintptr_t>(stride - lines_ * line)),
        left_(gap_ != 0 ? lines_ : std::numeric_limits<index>::max()) {}

  /// Asks for the line at an address: into the first-level cache, or (`Level` 2) the second.
  template <int Level>
  HEED_ALWAYS_INLINE static void ask(std::uintptr_t address) {
    __builtin_prefetch(reinterpret_cast<void const*>(address), 0, 4 - Level);
  }

  template <int Level>
  HEED_ALWAYS_INLINE void next() {
    ask<Level>(at_);
    at_ += line;
    if (--left_ == 0) [[unlikely]] {
      at_ += gap_;
      left_ = lines_;
    }
  }

  /// The next `count` lines, in runs from gap to gap.
  template <int Level>
  HEED_ALWAYS_INLINE void next(index count) {
    for (index run = 0; count > 0; count -= run) {
      run = std::min(count, left_);
#pragma GCC unroll 4
      for (index i = 0; i < run; ++i)
        ask<Level>(at_ + static_cast<std::uintptr_t>(i * line));
      at_ += static_cast<std::uintptr_t>(run * line);
      left_ -= run;
      if (left_ == 0) [[unlikely]] {
        at_ += gap_;
        left_ = lines_;
      }
    }
  }

  /// The address that is asked for next.
  std::uintptr_t at() const { return at_; }
  index lines_of_row() const { return lines_; }

 private:
  std::uintptr_t at_ = 0;
  index lines_ = 0;
  std::uintptr_t gap_ = 0;
  index left_ = 0;  // lines to the next gap; where rows touch there is none, so that a branch is never foretold wrongly
};

/// The lines of `rows` such rows, each once, into the second-level cache; then nothing.
class lines_ahead {
 public:
  lines_ahead() = default;
  lines_ahead(void const* first, index stride, index bytes, index rows)
      : walk_(first, stride, bytes), left_(std::max<index>(rows, 0) * walk_.lines_of_row()) {}

  HEED_ALWAYS_INLINE void next() {
    if (left_ == 0)
      return;
    --left_;
    walk_.next<2>();
  }

  /// The next `count`, as far as there are so many.
  HEED_ALWAYS_INLINE void next(index count) {
    index const run = std::min(count, left_);
    left_ -= run;
    walk_.next<2>(run);
  }

  index left() const { return left_; }
  std::uintptr_t at() const { return walk_.at(); }

 private:
  line_walk walk_;
  index left_ = 0;
};

HEED_ISA_END
}  // namespace heed
