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
template <real T, int R, int V, class Sees>
HEED_ALWAYS_INLINE inline void add_value(T const* w, T const* v, batch<T> (&sum)[R * V], Sees sees) {
  batch<T> value[V];
  unroll<V>([&](int u) HEED_LAMBDA_INLINE { value[u] = load(v + u * lanes<T>); });
  unroll<R>([&](int r) HEED_LAMBDA_INLINE {
    if (!sees(r))
      return;
    batch<T> const weight(w[r]);
    unroll<V>([&](int u) HEED_LAMBDA_INLINE { sum[r * V + u] = fma(weight, value[u], sum[r * V + u]); });
  });
}

/// `value_rows` for R rows and V vectors of channels, from v on. First come the keys that all rows see; then the steps of
/// a staircase, each with one row fewer, as the compiler knows: asking every row takes a causal call 2 % longer
/// (`heed_bench_attention --benchmark_filter=prefill/dim64_128/causal`, both in turns).
template <int R, int V, real T>
HEED_NOINLINE void value_tile_of_rows(weighed_keys<T> const& x, T const* v, index lane, T const* factor, T* out,
                                      index ldout) {
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
      add_value<T, R, V>(w + j * width, v + j * x.ldv, sum, [&](int r) { return x.sees(lane + r, j); });
  unroll_constants<R - 1>([&](auto step) HEED_LAMBDA_INLINE {
    constexpr int next = decltype(step)::value + 1;
    for (; j < x.end[lane + next]; ++j)
      add_value<T, R, V>(w + j * width, v + j * x.ldv, sum, [](int r) HEED_LAMBDA_INLINE { return r >= next; });
  });
  unroll<R * V>([&](int i) HEED_LAMBDA_INLINE {
    store(out + i / V * ldout + i % V * lanes<T>, sum[i] * batch<T>(factor[i / V]));
  });
}

/// `value_rows` for V vectors of channels, from c on. Rows go in full tiles, then as many as a full block leaves of those,
/// then alone: no other heights, to keep what a call compiles small.
template <int V, real T>
void value_tiles_of_rows(weighed_keys<T> const& x, index lane, index count, index c, T const* factor, T* out,
                         index ldout) {
  constexpr int most = tile_rows<T, V>, rest = std::max(1, block_lanes<T> % most);
  index i = 0;
  auto const take = [&](auto rows) HEED_LAMBDA_INLINE {
    for (; i + rows <= count; i += rows)
      value_tile_of_rows<rows, V>(x, x.v + c, lane + i, factor + i, out + i * ldout + c, ldout);
  };
  take(std::integral_constant<int, most>{});
  take(std::integral_constant<int, rest>{});
  take(std::integral_constant<int, 1>{});
}

/// Vectors of channels, a power of two, that take the first of n channels left of dim_v. A width of three would take some
/// 3 % off 128 keys of dim 111, and half a second longer to compile.
template <real T>
index channel_vectors(index n, index dim_v) {
  index const wanted = (n + lanes<T> - 1) / lanes<T>;
  return std::bit_floor(static_cast<unsigned>(std::min<index>({wanted, dim_v / lanes<T>, register_tile<T>::vectors})));
}

}  // namespace impl

/// out[i][c] = factor[i] · Σ_j w[j][lane + i] v[j][c] over the keys j that lane + i sees, 0 if there are none, for `count`
/// lanes and dim_v ≥ `lanes` channels. Where those are no multiple, the last vector still ends with the last of them and
/// takes some a second time, as is cheaper than a tile for every rest.
template <real T>
void value_rows(weighed_keys<T> const& x, index lane, index count, index dim_v, T const* factor, T* out, index ldout) {
  constexpr auto widths = std::bit_width(static_cast<unsigned>(register_tile<T>::vectors));
  for (index c = 0; c < dim_v;) {
    index const vectors = impl::channel_vectors<T>(dim_v - c, dim_v), end = std::min(c + vectors * lanes<T>, dim_v);
    unroll_constants<widths>([&](auto power) HEED_LAMBDA_INLINE {
      constexpr int V = 1 << power;
      if (vectors == V)
        impl::value_tiles_of_rows<V>(x, lane, count, end - V * lanes<T>, factor, out, ldout);
    });
    c = end;
  }
}

HEED_ISA_END
}  // namespace heed
