#pragma once

#include <heed/core/view.hpp>

#include <algorithm>
#include <concepts>
#include <iterator>
#include <ranges>
#include <span>

namespace heed {

/// A read-only tensor of rank 4 whose scalar is known at run time: what a mask, a bias or a gate is to a kernel, so
/// that its type does not multiply the kernels.
struct operand {
  std::byte const* data = nullptr;
  scalar_kind kind = scalar_kind::float32;
  index_array<4> extents{};
  index_array<4> strides{};  // in elements
  bool given = false;        // whether there is one at all: a null view is one, too, and is refused by name

  // Quantised rows: an element is its code times the scale of its block of channels.
  float const* scales = nullptr;
  index_array<4> scale_strides{};  // [batch, head, row, block]
  index scale_block = 1;           // channels

  explicit operator bool() const { return given; }

  std::byte const* at(index a, index b, index c, index d) const {
    index const place = a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3];
    return data + place * size_of(kind);
  }

  /// The scale of the block of channels around an element.
  float const* scale_at(index a, index b, index c, index d) const {
    return scales + a * scale_strides[0] + b * scale_strides[1] + c * scale_strides[2] +
           d / scale_block * scale_strides[3];
  }

  /// The element as a double; a bool as 0 or 1.
  double operator()(index a, index b, index c, index d) const {
    std::byte const* p = at(a, b, c, d);
    switch (kind) {
    case scalar_kind::float32:
      return static_cast<double>(*reinterpret_cast<float const*>(p));
    case scalar_kind::float64:
      return *reinterpret_cast<double const*>(p);
    case scalar_kind::float16:
      return static_cast<double>(*reinterpret_cast<Eigen::half const*>(p));
    case scalar_kind::bfloat16:
      return static_cast<double>(*reinterpret_cast<Eigen::bfloat16 const*>(p));
    case scalar_kind::boolean:
      return *p != std::byte{0} ? 1.0 : 0.0;
    case scalar_kind::int8_code: {
      auto const code = static_cast<double>(*reinterpret_cast<std::int8_t const*>(p));
      return scales == nullptr ? code : code * static_cast<double>(*scale_at(a, b, c, d));
    }
    }
    return 0;
  }
};

/// Any view as an operand of rank 4: missing dimensions go in front, as extents of 1.
template <class T, int Rank>
operand make_operand(view<T, Rank> const& v) {
  static_assert(Rank <= 4, "heed: at most four dimensions: [batch, heads, q_len, kv_len]");
  operand result{
      reinterpret_cast<std::byte const*>(v.data()), kind_of<std::remove_const_t<T>>(), {1, 1, 1, 1}, {}, true};
  for (int r = 0; r < Rank; ++r) {
    auto const to = static_cast<std::size_t>(r + 4 - Rank);
    result.extents[to] = v.extent(r);
    result.strides[to] = v.stride(r);
  }
  return result;
}

/// The operand with every extent of 1 stretched (stride 0) to `extents`.
/// @throws argument_error if another extent differs or its data is null; `what` names it in the message
inline operand broadcast(operand const& from, index_array<4> const& extents, char const* function, char const* what) {
  static constexpr char const* names[] = {"batch", "heads", "rows", "columns"};
  operand result = from;
  for (std::size_t r = 0; r < 4; ++r) {
    if (from.extents[r] == extents[r])
      continue;
    detail::expect(from.extents[r] == 1, function, ": ", what, " must have 1 or ", extents[r], " ", names[r], ", got ",
                   from.extents[r]);
    result.extents[r] = extents[r];
    result.strides[r] = 0;
  }
  bool const empty = std::find(extents.begin(), extents.end(), 0) != extents.end();
  detail::expect(empty || from.data != nullptr, function, ": ", what, ".data must not be null");
  return result;
}

/// One number per row to be written, `[batch, heads, q_len]`, in float or double: lse and entropy.
struct row_output {
  std::byte* data = nullptr;
  scalar_kind kind = scalar_kind::float32;
  index_array<3> extents{1, 1, 1};
  index_array<3> strides{};  // in elements
  bool given = false;        // as for `operand`

  explicit operator bool() const { return given; }

  void store(index batch, index head, index row, double value) const {
    std::byte* p = data + (batch * strides[0] + head * strides[1] + row * strides[2]) * size_of(kind);
    if (kind == scalar_kind::float32)
      *reinterpret_cast<float*>(p) = static_cast<float>(value);
    else
      *reinterpret_cast<double*>(p) = value;
  }
};

/// A writable view of rank 1 to 3 as a row output.
template <class T, int Rank>
row_output make_row_output(view<T, Rank> const& v) {
  static_assert(std::same_as<T, float> || std::same_as<T, double>,
                "heed: lse and entropy are written to a float or double tensor that is not const");
  static_assert(Rank <= 3, "heed: at most three dimensions: [batch, heads_q, q_len]");
  row_output result{reinterpret_cast<std::byte*>(v.data()), kind_of<T>(), {1, 1, 1}, {}, true};
  for (int r = 0; r < Rank; ++r) {
    auto const to = static_cast<std::size_t>(r + 3 - Rank);
    result.extents[to] = v.extent(r);
    result.strides[to] = v.stride(r);
  }
  return result;
}

/// A list of numbers in somebody else's memory: one per batch, or one per head.
class number_list {
 public:
  number_list() = default;

  template <std::ranges::contiguous_range Range>
    requires std::is_arithmetic_v<std::ranges::range_value_t<Range>>
  explicit number_list(Range const& range)
      : data_(std::ranges::data(range)), size_(static_cast<index>(std::ranges::size(range))) {
    using value = std::ranges::range_value_t<Range>;
    whole_ = [](void const* p, index i) { return static_cast<index>(static_cast<value const*>(p)[i]); };
    real_ = [](void const* p, index i) { return static_cast<double>(static_cast<value const*>(p)[i]); };
  }

  /// An Eigen vector.
  template <class Derived>
  explicit number_list(Eigen::PlainObjectBase<Derived> const& vector)
      : number_list(std::span<typename Derived::Scalar const>(vector.data(), static_cast<std::size_t>(vector.size()))) {
  }

  explicit operator bool() const { return whole_ != nullptr; }  // an empty list is one, too
  index size() const { return size_; }
  index whole(index i) const { return whole_(data_, i); }
  double real(index i) const { return real_(data_, i); }

 private:
  void const* data_ = nullptr;
  index size_ = 0;
  index (*whole_)(void const*, index) = nullptr;
  double (*real_)(void const*, index) = nullptr;
};

}  // namespace heed
