#pragma once

#include <heed/core/error.hpp>
#include <heed/core/scalar.hpp>

#include <array>
#include <cstddef>
#include <functional>
#include <limits>
#include <utility>

namespace heed {

/// Lengths, positions and strides: signed, in elements.
using index = std::ptrdiff_t;

/// No limit, where a length is asked for.
inline constexpr index unbounded = std::numeric_limits<index>::max();

template <int Rank>
using index_array = std::array<index, static_cast<std::size_t>(Rank)>;

namespace detail {

/// Sorts a handful of things in place. (std::sort warns falsely, at every user's, about arrays this short.)
template <class T, class Less = std::less<>>
constexpr void sort_few(T* items, std::size_t count, Less less = {}) {
  for (std::size_t i = 1; i < count; ++i)
    for (std::size_t j = i; j > 0 && less(items[j], items[j - 1]); --j)
      std::swap(items[j], items[j - 1]);
}

template <int Rank>
HEED_ALWAYS_INLINE constexpr index_array<Rank> row_major_strides(index_array<Rank> const& extents) {
  index_array<Rank> strides{};
  index step = 1;
  for (int r = Rank - 1; r >= 0; --r) {
    strides[static_cast<std::size_t>(r)] = step;
    step *= extents[static_cast<std::size_t>(r)];
  }
  return strides;
}

}  // namespace detail

/// A tensor in somebody else's memory: pointer, extents, strides.
///
///     element(i, j, …) = data[i · stride(0) + j · stride(1) + …]
///
/// - Strides count elements, may be negative, and 0 where an input is broadcast. Without strides: row-major.
/// - Copying a view copies no element; `view<T, R>` converts to `view<T const, R>`.
/// - Attention reads rank 2 as `[len, dim]`, rank 3 as `[heads, len, dim]`, rank 4 as `[batch, heads, len, dim]`.
template <class T, int Rank>
class view {
  static_assert(Rank >= 1, "heed: a view has at least one dimension");

 public:
  using value_type = std::remove_const_t<T>;
  static constexpr int rank = Rank;

  view() = default;

  HEED_ALWAYS_INLINE constexpr view(T* data, index_array<Rank> const& extents)
      : data_(data), extents_(extents), strides_(detail::row_major_strides<Rank>(extents)) {}

  HEED_ALWAYS_INLINE constexpr view(T* data, index_array<Rank> const& extents, index_array<Rank> const& strides)
      : data_(data), extents_(extents), strides_(strides) {}

  template <class U>
    requires(std::is_const_v<T> && std::is_same_v<U, value_type>)
  HEED_ALWAYS_INLINE constexpr view(view<U, Rank> const& other)
      : data_(other.data()), extents_(other.extents()), strides_(other.strides()) {}

  HEED_ALWAYS_INLINE constexpr T* data() const { return data_; }
  HEED_ALWAYS_INLINE constexpr index extent(int r) const { return extents_[static_cast<std::size_t>(r)]; }
  HEED_ALWAYS_INLINE constexpr index stride(int r) const { return strides_[static_cast<std::size_t>(r)]; }
  HEED_ALWAYS_INLINE constexpr index_array<Rank> const& extents() const { return extents_; }
  HEED_ALWAYS_INLINE constexpr index_array<Rank> const& strides() const { return strides_; }

  HEED_ALWAYS_INLINE constexpr index size() const {
    index n = 1;
    for (index e : extents_)
      n *= e;
    return n;
  }

  template <class... Index>
    requires(sizeof...(Index) == Rank)
  HEED_ALWAYS_INLINE constexpr T& operator()(Index... at) const {
    index place = 0;
    int r = 0;
    ((place += static_cast<index>(at) * stride(r++)), ...);
    return data_[place];
  }

  /// The matrix of the last two dimensions at the leading indices, as an Eigen map (strides ≥ 0, as Eigen wants them).
  template <class... Index>
    requires(sizeof...(Index) + 2 == Rank)
  auto matrix(Index... at) const {
    using matrix_type = Eigen::Matrix<value_type, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using map_type = Eigen::Map<std::conditional_t<std::is_const_v<T>, matrix_type const, matrix_type>,
                                Eigen::Unaligned, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
    index place = 0;
    int r = 0;
    ((place += static_cast<index>(at) * stride(r++)), ...);
    return map_type(data_ + place, extent(Rank - 2), extent(Rank - 1),
                    Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(stride(Rank - 2), stride(Rank - 1)));
  }

 private:
  T* data_ = nullptr;
  index_array<Rank> extents_{};
  index_array<Rank> strides_{};
};

/// A view as itself: the end of every chain of `as_view` overloads.
template <class T, int Rank>
HEED_ALWAYS_INLINE constexpr view<T, Rank> as_view(view<T, Rank> const& v) {
  return v;
}

/// `[batch, len, heads, dim]` read as `[batch, heads, len, dim]`: the same memory, two strides exchanged.
template <class T>
constexpr view<T, 4> heads_first(view<T, 4> const& v) {
  return {v.data(),
          {v.extent(0), v.extent(2), v.extent(1), v.extent(3)},
          {v.stride(0), v.stride(2), v.stride(1), v.stride(3)}};
}

/// `[len, heads, dim]` read as `[heads, len, dim]`.
template <class T>
constexpr view<T, 3> heads_first(view<T, 3> const& v) {
  return {v.data(), {v.extent(1), v.extent(0), v.extent(2)}, {v.stride(1), v.stride(0), v.stride(2)}};
}

/// `[batch, len, heads · dim]` read as `[batch, heads, len, dim]`.
/// @throws argument_error if `heads` does not divide the last extent
template <class T>
view<T, 4> split_heads(view<T, 3> const& v, index heads) {
  detail::expect(heads > 0 && v.extent(2) % heads == 0, "split_heads: heads must divide the last extent ", v.extent(2),
                 ", got ", heads);
  index const dim = v.extent(2) / heads;
  return {v.data(), {v.extent(0), heads, v.extent(1), dim}, {v.stride(0), dim * v.stride(2), v.stride(1), v.stride(2)}};
}

/// `[len, heads · dim]` read as `[heads, len, dim]`.
/// @throws argument_error if `heads` does not divide the last extent
template <class T>
view<T, 3> split_heads(view<T, 2> const& v, index heads) {
  detail::expect(heads > 0 && v.extent(1) % heads == 0, "split_heads: heads must divide the last extent ", v.extent(1),
                 ", got ", heads);
  index const dim = v.extent(1) / heads;
  return {v.data(), {heads, v.extent(0), dim}, {dim * v.stride(1), v.stride(0), v.stride(1)}};
}

/// The three parts of a packed projection `[batch, len, (heads_q + 2 · heads_kv) · dim]`, queries first, then keys,
/// then values, each as `[batch, heads, len, dim]`.
template <class T>
struct packed_parts {
  view<T, 4> q, k, v;
};

/// @throws argument_error if `heads_q + 2 · heads_kv` does not divide the last extent, or either is not positive
template <class T>
packed_parts<T> split_packed_qkv(view<T, 3> const& x, index heads_q, index heads_kv) {
  index const heads = heads_q + 2 * heads_kv;
  detail::expect(heads_q > 0 && heads_kv > 0 && x.extent(2) % heads == 0,
                 "split_packed_qkv: heads_q + 2 heads_kv must divide the last extent ", x.extent(2), ", got ", heads_q,
                 " + 2 * ", heads_kv);
  view<T, 4> const all = split_heads(x, heads);
  auto const part = [&](index first, index count) {
    return view<T, 4>(all.data() + first * all.stride(1), {all.extent(0), count, all.extent(2), all.extent(3)},
                      all.strides());
  };
  return {part(0, heads_q), part(heads_q, heads_kv), part(heads_q + heads_kv, heads_kv)};
}

}  // namespace heed
