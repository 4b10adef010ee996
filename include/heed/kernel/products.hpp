#pragma once

#include <heed/kernel/tile.hpp>

#include <bit>
#include <cstdint>

/// The two matrix products of attention, with queries in lanes. Both are the same sum of outer products and run through
/// the same micro-kernels; they differ in where the broadcast numbers lie and in how the sums leave the registers.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// Numbers to broadcast, left(r, t): rows of keys, or columns of values.
template <real T>
struct broadcast_numbers {
  T const* data;
  index row_stride, step_stride;

  HEED_ALWAYS_INLINE T operator()(index r, index t) const { return data[r * row_stride + t * step_stride]; }
  broadcast_numbers from_row(index r) const { return {data + r * row_stride, row_stride, step_stride}; }
};

/// sum[r][v] = Σ_t left(r, t) · right[t][v], where `right` has rows of lanes. The tallest full tiles, in which nearly
/// all time goes, take two steps at once: a gain of 1 to 2 %; four steps gain no more.
template <real T, int Rows, int Vectors>
HEED_ALWAYS_INLINE inline void outer_products(broadcast_numbers<T> left, T const* right, index count,
                                              batch<T> (&sum)[Rows * Vectors]) {
  auto const step = [&](index t) HEED_LAMBDA_INLINE {
    batch<T> b[Vectors];
    unroll<Vectors>([&](int v) HEED_LAMBDA_INLINE { b[v] = load(right + t * block_lanes<T> + v * lanes<T>); });
    unroll<Rows>([&](int r) HEED_LAMBDA_INLINE {
      batch<T> const a(left(r, t));
      unroll<Vectors>([&](int v) HEED_LAMBDA_INLINE { sum[r * Vectors + v] = fma(a, b[v], sum[r * Vectors + v]); });
    });
  };
  unroll<Rows * Vectors>([&](int i) HEED_LAMBDA_INLINE { sum[i] = batch<T>(T(0)); });
  index t = 0;
  if constexpr (Vectors == register_tile<T>::vectors && Rows + 1 >= register_tile<T>::rows)
    for (; t + 2 <= count; t += 2) {
      step(t);
      step(t + 1);
    }
  for (; t < count; ++t)
    step(t);
}

/// Calls f(constant height, first row) over [0, n) in pieces of at most `Most` rows. The full tile (`Any`) knows every
/// height and cuts evenly, since a single left-over row would run at a fraction of the speed; tiles of fewer vectors,
/// which only staircases and short prompts use, know powers of two, to keep what a call compiles small.
template <int Most, bool Any, class F>
HEED_ALWAYS_INLINE inline void pieces(index n, F&& f) {
  for (index first = 0, height = 0; first < n; first += height) {
    index const left = n - first, count = (left + Most - 1) / Most;
    height = Any ? (left + count - 1) / count
                 : std::min<index>(Most, index{1} << (63 - std::countl_zero(static_cast<std::uint64_t>(left))));
    unroll_constants<Most>([&](auto i) HEED_LAMBDA_INLINE {
      constexpr int rows = i + 1;
      if constexpr (Any || (rows & (rows - 1)) == 0)
        if (height == rows)
          f(std::integral_constant<int, rows>{}, first);
    });
  }
}

/// Tile height for a number of lane vectors: at most 8 rows, a power of two where it is not the full tile.
template <real T, int Vectors>
inline constexpr int tile_rows = Vectors == register_tile<T>::vectors
                                     ? register_tile<T>::rows
                                     : std::min(8, static_cast<int>(std::bit_floor(static_cast<unsigned>(
                                                       register_tile<T>::rows* register_tile<T>::vectors / Vectors))));

/// What becomes of a product's sums. Asked once a tile at run time: that costs nothing, and scores and values share
/// every kernel, which are most of what a call compiles.
template <real T>
struct sums_go {
  T* to;             // [row][lane]
  T const* rescale;  // [lane]: what is there, times this, is added; null where nothing is there
  T* maximum;        // [lane] takes the greatest sums, or null

  sums_go at(index row, index lane) const {
    return {to + row * block_lanes<T> + lane, rescale ? rescale + lane : nullptr, maximum ? maximum + lane : nullptr};
  }

  template <int Rows, int Vectors>
  HEED_ALWAYS_INLINE void leave(batch<T> const (&sum)[Rows * Vectors]) const {
    constexpr index width = block_lanes<T>;
    if (rescale)
      unroll<Vectors>([&](int v) HEED_LAMBDA_INLINE {
        batch<T> const factor = load(rescale + v * lanes<T>);
        unroll<Rows>([&](int r) HEED_LAMBDA_INLINE {
          T* const place = to + r * width + v * lanes<T>;
          store(place, fma(load(place), factor, sum[r * Vectors + v]));
        });
      });
    else
      unroll<Rows * Vectors>([&](int i) HEED_LAMBDA_INLINE {
        store(to + i / Vectors * width + i % Vectors * lanes<T>, sum[i]);
      });
    if (maximum)
      unroll<Vectors>([&](int v) HEED_LAMBDA_INLINE {
        batch<T> top = load(maximum + v * lanes<T>);
        unroll<Rows>([&](int r) HEED_LAMBDA_INLINE { top = heed::max(sum[r * Vectors + v], top); });
        store(maximum + v * lanes<T>, top);
      });
  }
};

/// Σ_t left(r, t) · right[t][lane] for n rows and `Vectors` lane vectors.
template <real T, int Vectors>
HEED_NOINLINE void product_tile(broadcast_numbers<T> left, index n, T const* right, index count, sums_go<T> sums) {
  pieces<tile_rows<T, Vectors>, Vectors == register_tile<T>::vectors>(
      n, [&](auto rows, index first) HEED_LAMBDA_INLINE {
        constexpr int R = decltype(rows)::value;
        batch<T> sum[R * Vectors];
        outer_products<T, R, Vectors>(left.from_row(first), right, count, sum);
        sums.at(first, 0).template leave<R, Vectors>(sum);
      });
}

/// Calls f(constant vectors, first lane) for a run-time number of lane vectors: for each register tile that they fill,
/// and for what is left.
template <real T, class F>
HEED_ALWAYS_INLINE inline void with_vectors(int vectors, F&& f) {
  constexpr int most = register_tile<T>::vectors;
  index lane = 0;
  for (; vectors >= most; vectors -= most, lane += most * lanes<T>)
    f(std::integral_constant<int, most>{}, lane);
  unroll_constants<most - 1>([&](auto i) HEED_LAMBDA_INLINE {
    if (vectors == i + 1)
      f(std::integral_constant<int, i + 1>{}, lane);
  });
}

/// The same for n rows and any number of lane vectors. Where register tiles stand side by side, a few rows at a time,
/// so that they stay in the first-level cache for the next tile.
template <real T>
void product(int vectors, broadcast_numbers<T> left, index n, T const* right, index count, sums_go<T> sums) {
  index const step = register_tile<T>::side_by_side == 1 ? n : 4 * register_tile<T>::rows;
  for (index row = 0; row < n; row += step)
    with_vectors<T>(vectors, [&](auto v, index lane) {
      product_tile<T, decltype(v)::value>(left.from_row(row), std::min(step, n - row), right + lane, count,
                                          sums.at(row, lane));
    });
}

}  // namespace impl

/// s[j][lane] = Σ_c k[j][c] · q[c][lane] for n keys and `vectors` lane vectors; `maximum`, where it is given, takes the
/// greatest score of each lane.
template <real T>
void scores(int vectors, T const* k, index ldk, index n, T const* q, index dim, T* s, T* maximum) {
  impl::product<T>(vectors, {k, ldk, 1}, n, q, dim, {s, nullptr, maximum});
}

/// o[c][lane] = o[c][lane] · rescale[lane] + Σ_j v[j][c] · w[j][lane] over n keys and `vectors` lane vectors.
template <real T>
void values(int vectors, T const* v, index ldv, index n, T const* w, index dim_v, T* o, T const* rescale) {
  impl::product<T>(vectors, {v, 1, ldv}, dim_v, w, n, {o, rescale, nullptr});
}

/// `values` where v holds numbers that are not finite and some pairs are hidden: key j reaches only the lanes set in
/// visible[j], since a weight of 0 would turn a hidden NaN into a NaN of the row. The same sums in the same order.
template <real T>
HEED_NOINLINE void guarded_values(int vectors, T const* v, index ldv, index n, T const* w, std::uint64_t const* visible,
                                  int first_lane, index dim_v, T* o, T const* rescale) {
  constexpr index width = block_lanes<T>;
  batch<T> const zero(T(0));
  for (int u = 0; u < vectors; ++u) {
    int const lane = u * lanes<T>;
    batch_mask<T> seen[static_cast<std::size_t>(most_keys)];
    for (index j = 0; j < n; ++j)
      seen[j] = mask_from_bits<T>(visible[j] >> (first_lane + lane));
    batch<T> const factor = load(rescale + lane);
    for (index c = 0; c < dim_v; ++c) {
      batch<T> sum = zero;
      for (index j = 0; j < n; ++j)
        sum = fma(heed::select(seen[j], batch<T>(v[j * ldv + c]), zero), load(w + j * width + lane), sum);
      T* const place = o + c * width + lane;
      store(place, fma(load(place), factor, sum));
    }
  }
}

HEED_ISA_END
}  // namespace heed
