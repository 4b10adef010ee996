#pragma once

#include <heed/core/memory.hpp>
#include <heed/core/view.hpp>

#include <algorithm>
#include <memory>
#include <utility>

namespace heed {

/// A tensor that owns its memory: row-major, 64-byte aligned, from 4 MiB on in large pages where the system has them, zero
/// at birth; copies are deep.
template <class T, int Rank>
class tensor {
 public:
  using value_type = T;
  static constexpr int rank = Rank;
  static constexpr std::size_t alignment = detail::least_alignment;

  tensor() = default;

  /// @throws argument_error for a negative extent, std::bad_alloc
  explicit tensor(index_array<Rank> const& extents) {
    for (index e : extents)
      detail::expect(e >= 0, "tensor: extents must not be negative, got ", e);
    view_ = heed::view<T, Rank>(nullptr, extents);
    if (view_.size() == 0)
      return;
    view_ = heed::view<T, Rank>(static_cast<T*>(detail::allocate(bytes())), extents);
    std::uninitialized_fill_n(data(), size(), T(0));
  }

  tensor(tensor const& other) : tensor(other.extents()) { std::copy_n(other.data(), size(), data()); }
  tensor(tensor&& other) noexcept : view_(std::exchange(other.view_, {})) {}
  tensor& operator=(tensor other) noexcept {
    std::swap(view_, other.view_);
    return *this;
  }
  ~tensor() { detail::release(view_.data(), bytes()); }

  T* data() { return view_.data(); }
  T const* data() const { return view_.data(); }
  index extent(int r) const { return view_.extent(r); }
  index stride(int r) const { return view_.stride(r); }
  index_array<Rank> const& extents() const { return view_.extents(); }
  index_array<Rank> const& strides() const { return view_.strides(); }
  index size() const { return view_.size(); }
  heed::view<T, Rank> view() { return view_; }
  heed::view<T const, Rank> view() const { return view_; }

  template <class... Index>
  T& operator()(Index... at) {
    return view_(at...);
  }
  template <class... Index>
  T const& operator()(Index... at) const {
    return view_(at...);
  }

  template <class... Index>
  auto matrix(Index... at) {
    return view().matrix(at...);
  }
  template <class... Index>
  auto matrix(Index... at) const {
    return view().matrix(at...);
  }

 private:
  std::size_t bytes() const { return static_cast<std::size_t>(view_.size()) * sizeof(T); }

  heed::view<T, Rank> view_;
};

template <class T, int Rank>
view<T, Rank> as_view(tensor<T, Rank>& t) {
  return t.view();
}
template <class T, int Rank>
view<T const, Rank> as_view(tensor<T, Rank> const& t) {
  return t.view();
}

}  // namespace heed
