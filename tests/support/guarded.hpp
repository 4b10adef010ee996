#pragma once

#include <heed/core/tensor.hpp>

#include <cstring>
#include <string>
#include <vector>

namespace heed::test {

/// A tensor of any strides among guard bytes: before it, behind it, and in every gap that its strides leave. After a
/// call, `damage()` tells the first byte outside the tensor's elements that has changed.
template <class T, int Rank>
class guarded {
 public:
  explicit guarded(index_array<Rank> const& extents) : guarded(extents, detail::row_major_strides<Rank>(extents)) {}

  /// Strides in elements; negative ones are fine.
  guarded(index_array<Rank> const& extents, index_array<Rank> const& strides) {
    index lowest = 0, highest = 0;
    bool empty = false;
    for (std::size_t r = 0; r < extents.size(); ++r) {
      empty = empty || extents[r] == 0;
      index const reach = (extents[r] - 1) * strides[r];
      (reach < 0 ? lowest : highest) += reach;
    }
    index const elements = empty ? 0 : highest - lowest + 1;
    bytes_.assign(static_cast<std::size_t>(elements) * sizeof(T) + 2 * margin + alignment, fill);
    owned_.assign(bytes_.size(), false);
    auto const address = reinterpret_cast<std::uintptr_t>(bytes_.data());
    first_ = margin + (alignment - address % alignment) % alignment;
    T* const start = reinterpret_cast<T*>(bytes_.data() + first_) - (empty ? 0 : lowest);
    view_ = heed::view<T, Rank>(start, extents, strides);
    if (!empty)
      claim(start, 0);
  }

  guarded(guarded const&) = delete;
  guarded& operator=(guarded const&) = delete;

  heed::view<T, Rank> view() const { return view_; }

  /// Empty if no byte outside the elements was written.
  std::string damage() const {
    for (std::size_t i = 0; i < bytes_.size(); ++i)
      if (!owned_[i] && bytes_[i] != fill)
        return "byte " + std::to_string(static_cast<index>(i) - static_cast<index>(first_)) +
               " from the lowest element was overwritten";
    return {};
  }

 private:
  static constexpr unsigned char fill = 0xa5;
  static constexpr std::size_t margin = 512, alignment = 64;

  void claim(T* at, int r) {
    if (r == Rank) {
      auto const place = static_cast<std::size_t>(reinterpret_cast<unsigned char*>(at) - bytes_.data());
      for (std::size_t i = 0; i < sizeof(T); ++i)
        owned_[place + i] = true;
      return;
    }
    for (index i = 0; i < view_.extent(r); ++i)
      claim(at + i * view_.stride(r), r + 1);
  }

  std::vector<unsigned char> bytes_;
  std::vector<bool> owned_;
  std::size_t first_ = 0;
  heed::view<T, Rank> view_;
};

/// A tensor as a view is handed to heed.
template <class T, int Rank>
view<T, Rank> as_view(guarded<T, Rank> const& g) {
  return g.view();
}

}  // namespace heed::test
