#pragma once

#include <heed/core/description.hpp>
#include <heed/kernel/band.hpp>
#include <heed/kernel/load.hpp>
#include <heed/kernel/prefetch.hpp>

#include <limits>

/// What is added to scores element by element: biases, and masks as 0 or −inf, so that one plane of numbers carries
/// them all and −inf means hidden. Types end here: the kernels see rows of numbers.

namespace heed {
HEED_ISA_BEGIN

/// One [q, kv] tensor of a call, or the rule that stands for one.
struct plane {
  enum class source { bias, mask, segments, relative };

  source from = source::bias;
  operand values{};  // bias, mask: [batch, heads_q, q_len, kv_len]; relative: [1, 1, heads, n]
  view<std::int32_t const, 2> query_ids, key_ids;  // segments
  index first = 0;                                 // relative: the distance of table entry 0

  /// Whether what it hides is missing from n_i: masks and segments are, biases are not.
  bool counts() const { return from == source::mask || from == source::segments; }

  /// to[t] = this plane's number for key first_key + t.
  template <real T>
  void fill(index batch, index head, index row, index position, index first_key, index n, T* to) const {
    switch (from) {
    case source::bias:
      load_rows(values.at(batch, head, row, first_key), values.kind, 0, values.strides[3], 1, n, to, 0);
      return;
    case source::mask:
      return fill_mask(values.at(batch, head, row, first_key), n, to);
    case source::segments:
      return fill_segments(batch, row, first_key, n, to);
    case source::relative:
      return fill_relative(head, position - first_key - first, n, to);
    }
  }

 private:
  template <real T>
  static constexpr T hidden = -std::numeric_limits<T>::infinity();

  template <real T>
  void fill_mask(std::byte const* p, index n, T* to) const {
    for (index t = 0; t < n; ++t)
      to[t] = p[t * values.strides[3]] != std::byte{0} ? T(0) : hidden<T>;
  }

  template <real T>
  void fill_segments(index batch, index row, index first_key, index n, T* to) const {
    std::int32_t const id = query_ids(batch, row);
    for (index t = 0; t < n; ++t)
      to[t] = id >= 0 && key_ids(batch, first_key + t) == id ? T(0) : hidden<T>;
  }

  /// `distance` counts from table entry 0 and falls by one a key.
  template <real T>
  void fill_relative(index head, index distance, index n, T* to) const {
    index const last = values.extents[3] - 1;
    for (index t = 0; t < n; ++t)
      to[t] = static_cast<T>(values(0, 0, head, std::clamp<index>(distance - t, 0, last)));
  }
};

/// All planes of a call.
struct planes {
  plane items[20];
  std::size_t count = 0;
  bool lower_counts = false;  // any mask or segments

  explicit operator bool() const { return count != 0; }
  plane const* begin() const { return items; }
  plane const* end() const { return items + count; }

  void add(plane const& p) {
    items[count++] = p;
    lower_counts = lower_counts || p.counts();
  }

  /// What a plane that is alone says of `rows` rows from `row` on, where it is read as it lies. The memory's own
  /// prefetcher does not follow that many rows at a time.
  lines_ahead lines(index batch, index head, index row, index rows, key_range keys) const {
    plane const& only = items[0];
    operand const& x = only.values;
    bool const stored = only.from == plane::source::bias || only.from == plane::source::mask;
    if (count != 1 || !stored || x.strides[3] != 1)
      return {};
    index const size = size_of(x.kind), stride = x.strides[2] * size;
    return {x.at(batch, head, row, keys.begin), stride, (keys.end - keys.begin) * size, stride == 0 ? 1 : rows};
  }
};

/// to[t] = the sum of all planes for key first_key + t; −inf of any stays −inf. `spare` holds n numbers.
template <real T>
HEED_NOINLINE void fill_planes(planes const& all, index batch, index head, index row, index position, index first_key,
                               index n, T* to, T* spare) {
  constexpr T hidden = -std::numeric_limits<T>::infinity();
  all.items[0].fill(batch, head, row, position, first_key, n, to);
  for (std::size_t p = 1; p < all.count; ++p) {
    all.items[p].fill(batch, head, row, position, first_key, n, spare);
    for (index t = 0; t < n; ++t)
      to[t] = to[t] == hidden || spare[t] == hidden ? hidden : to[t] + spare[t];
  }
}

/// n_i where masks, segments or a user's own mask, `sees(key)`, hide keys: counted over the keys that the band leaves.
template <class Sees>
index count_visible(planes const& all, band const& b, index batch, index head, index row, Sees sees) {
  constexpr index step = 256;
  float numbers[step];
  std::uint8_t seen[step];
  index total = 0;
  auto const count_range = [&](key_range keys) {
    for (index at = keys.begin; at < keys.end; at += step) {
      index const n = std::min(step, keys.end - at);
      for (index t = 0; t < n; ++t)
        seen[t] = sees(at + t);
      for (plane const& p : all) {
        if (!p.counts())
          continue;
        p.fill(batch, head, row, b.position(row), at, n, numbers);
        for (index t = 0; t < n; ++t)
          seen[t] &= numbers[t] == 0.0f;
      }
      for (index t = 0; t < n; ++t)
        total += seen[t];
    }
  };
  index const prefix = b.prefix(row);
  count_range({0, prefix});
  count_range({std::max(prefix, b.lo(row)), b.hi(row)});
  return total;
}

HEED_ISA_END
}  // namespace heed
