#pragma once

#include <heed/kernel/band.hpp>
#include <heed/kernel/products.hpp>

/// The value product where one tile holds the weights of all keys: nothing is carried from key block to key block, so
/// lanes run along the channels instead. Rows leave as they are written, without a transposition, and each sums the keys
/// that it sees and no others: a causal call of 128 rows spares an eighth of its pairs, and never asks whether hidden
/// values are finite.

namespace heed {
HEED_ISA_BEGIN

/// Weights of a query block over all of its keys, their values, and which of them each lane sees.
template <real T>
struct weighed_keys {
  T const* w = nullptr;  // [key][lane]
  T const* v = nullptr;  // [key][channel]
  index ldv = 0;
  index end[static_cast<std::size_t>(block_lanes<T>)];  // [lane]: keys [0, end), which never falls from lane to lane
  std::uint64_t const* seen = nullptr;  // [register tile][key], one bit a lane: what else hides keys; null: nothing
  index seen_stride = 0;

  bool sees(index lane, index key) const {
    return key < end[lane] && (seen[lane / tile_lanes<T> * seen_stride + key] >> lane & 1U) != 0;
  }
};

namespace impl {

/// sum[r] += w[r] · v for the rows r that `sees` says.
template <real T, int R, class Sees>
HEED_ALWAYS_INLINE inline void add_value(T const* w, T const* v, batch<T> (&sum)[R * register_tile<T>::vectors],
                                         Sees sees) {
  constexpr int V = register_tile<T>::vectors;
  batch<T> value[V];
  unroll<V>([&](int u) HEED_LAMBDA_INLINE { value[u] = load(v + u * lanes<T>); });
  unroll<R>([&](int r) HEED_LAMBDA_INLINE {
    if (!sees(r))
      return;
    batch<T> const weight(w[r]);
    unroll<V>([&](int u) HEED_LAMBDA_INLINE { sum[r * V + u] = fma(weight, value[u], sum[r * V + u]); });
  });
}

/// `value_rows` for R rows and the channels of one register tile, from v on. First come the keys that all rows see; then
/// the steps of a staircase, each with one row fewer, as the compiler knows: asking every row takes a causal call 2 %
/// longer (`heed_bench_attention --benchmark_filter=prefill/dim64_128/causal`, both in turns).
template <int R, real T>
HEED_NOINLINE void value_tile_of_rows(weighed_keys<T> const& x, T const* v, index lane, T const* factor, T* out,
                                      index ldout) {
  constexpr int V = register_tile<T>::vectors;
  constexpr index width = block_lanes<T>;
  index const all = x.seen != nullptr ? 0 : x.end[lane];
  T const* const w = x.w + lane;
  batch<T> sum[R * V];
  if (all > 0)
    outer_products<T, R, V>([=](index r, index j) HEED_LAMBDA_INLINE { return w[j * width + r]; }, v, x.ldv, all, sum);
  else
    unroll<R * V>([&](int i) HEED_LAMBDA_INLINE { sum[i] = batch<T>(T(0)); });
  index j = all;
  if (x.seen != nullptr)
    for (; j < x.end[lane + R - 1]; ++j)
      add_value<T, R>(w + j * width, v + j * x.ldv, sum, [&](int r) { return x.sees(lane + r, j); });
  unroll_constants<R - 1>([&](auto step) HEED_LAMBDA_INLINE {
    constexpr int next = decltype(step)::value + 1;
    for (; j < x.end[lane + next]; ++j)
      add_value<T, R>(w + j * width, v + j * x.ldv, sum, [](int r) HEED_LAMBDA_INLINE { return r >= next; });
  });
  unroll<R * V>([&](int i) HEED_LAMBDA_INLINE {
    store(out + i / V * ldout + i % V * lanes<T>, sum[i] * batch<T>(factor[i / V]));
  });
}

}  // namespace impl

/// out[i][c] = factor[i] · Σ_j w[j][lane + i] v[j][c] over the keys j that lane + i sees, 0 if there are none, for `count`
/// lanes; dim_v is a multiple of `tile_lanes`. Rows go in full tiles, then as many as a full block leaves of those, then alone: no other
/// heights, to keep what a call compiles small.
template <real T>
void value_rows(weighed_keys<T> const& x, index lane, index count, index dim_v, T const* factor, T* out, index ldout) {
  constexpr int most = register_tile<T>::rows, rest = std::max(1, block_lanes<T> % most);
  for (index c = 0; c < dim_v; c += tile_lanes<T>) {
    index i = 0;
    auto const take = [&](auto rows) HEED_LAMBDA_INLINE {
      for (; i + rows <= count; i += rows)
        impl::value_tile_of_rows<rows>(x, x.v + c, lane + i, factor + i, out + i * ldout + c, ldout);
    };
    take(std::integral_constant<int, most>{});
    take(std::integral_constant<int, rest>{});
    take(std::integral_constant<int, 1>{});
  }
}

HEED_ISA_END
}  // namespace heed
