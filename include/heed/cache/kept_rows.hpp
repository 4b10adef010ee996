#pragma once

#include <heed/cache/quantized.hpp>

#include <algorithm>
#include <cmath>

namespace heed {

/// What a key–value cache may hold.
template <class T>
concept cache_scalar = storage_scalar<T> || std::same_as<T, int8>;

HEED_ISA_BEGIN

/// Rows `[heads, capacity, channels]` that come in one by one, rounded into their storage: T, or codes with a scale a row.
template <cache_scalar T>
class kept_rows {
 public:
  using number = arithmetic_t<T>;  // what rows come in as
  using near_key = T;              // what the few near keys of a ring are kept as

  kept_rows(index heads, index capacity, index channels) : rows_({heads, capacity, channels}) {}

  index heads() const { return rows_.extent(0); }
  index capacity() const { return rows_.extent(1); }
  index channels() const { return rows_.extent(2); }

  /// Returns the first channel whose number this storage cannot keep, or −1; then the row is there.
  index put(index head, index row, number const* from) {
    std::transform(from, from + channels(), &rows_(head, row, 0), [](number x) { return round_to<T>(x); });
    return -1;
  }

  view<T const, 3> first(index rows) const { return {rows_.data(), {heads(), rows, channels()}, rows_.strides()}; }

 private:
  tensor<T, 3> rows_;
};

template <>
class kept_rows<int8> {
 public:
  using number = float;
  using near_key = float;

  kept_rows(index heads, index capacity, index channels)
      : codes_({heads, capacity, channels}), scales_({heads, capacity}) {}

  index heads() const { return codes_.extent(0); }
  index capacity() const { return codes_.extent(1); }
  index channels() const { return codes_.extent(2); }

  index put(index head, index row, number const* from) {
    auto const* const bad = std::find_if_not(from, from + channels(), [](number x) { return std::isfinite(x); });
    if (bad != from + channels())
      return bad - from;
    int8* const to = &codes_(head, row, 0);
    scales_(head, row) = impl::quantize_block(
        channels(), [&](index c) { return static_cast<double>(from[c]); }, [&](index c, int8 code) { to[c] = code; });
    return -1;
  }

  quantized_view<int8, 3> first(index rows) const {
    return {view<int8 const, 3>(codes_.data(), {heads(), rows, channels()}, codes_.strides()),
            view<float const, 2>(scales_.data(), {heads(), rows}, scales_.strides())};
  }

 private:
  tensor<int8, 3> codes_;
  tensor<float, 2> scales_;
};

HEED_ISA_END
}  // namespace heed
