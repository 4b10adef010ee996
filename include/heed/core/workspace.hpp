#pragma once

#include <heed/core/view.hpp>

#include <new>
#include <utility>

namespace heed {

/// Scratch to reuse between calls: with at least `workspace_bytes(…)` of it a call touches no heap. Serves one call at
/// a time. Owns its memory, or borrows the caller's (any alignment; up to 63 bytes go to aligning it).
class workspace {
 public:
  static constexpr std::size_t alignment = 64;

  workspace() = default;

  /// @throws std::bad_alloc
  explicit workspace(std::size_t bytes) { reserve(bytes); }

  workspace(void* memory, std::size_t bytes) {
    auto const address = reinterpret_cast<std::uintptr_t>(memory);
    std::size_t const skip = (alignment - address % alignment) % alignment;
    if (bytes <= skip)
      return;
    data_ = static_cast<std::byte*>(memory) + skip;
    bytes_ = bytes - skip;
  }

  workspace(workspace&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)),
        owns_(std::exchange(other.owns_, false)) {}
  workspace& operator=(workspace&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(owns_, other.owns_);
    return *this;
  }
  ~workspace() { release(); }

  /// Grows to at least `bytes`; what it held is lost.
  void reserve(std::size_t bytes) {
    if (bytes <= bytes_)
      return;
    release();
    data_ = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{alignment}));
    bytes_ = bytes;
    owns_ = true;
  }

  std::byte* data() const { return data_; }
  std::size_t size() const { return bytes_; }

 private:
  void release() {
    if (owns_)
      ::operator delete(data_, std::align_val_t{alignment});
    data_ = nullptr;
    bytes_ = 0;
    owns_ = false;
  }

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  bool owns_ = false;
};

}  // namespace heed
