#pragma once

#include <heed/kernel/tile.hpp>

#include <bit>
#include <cstdint>

/// The two matrix products of attention, with queries in lanes. Both are the same sum of outer products, so they share
/// one micro-kernel; they differ in what is broadcast and in how the accumulators leave the registers.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// sum[r][v] = Σ_t left(r, t) · right[t][v] over count ≥ 1 steps: `left` gives numbers to broadcast, `right` rows of
/// lanes. The first step multiplies, which spares the zeros to add to. The tallest full tiles, in which nearly all time
/// goes, take two steps at once: a gain of 4 % over one; three or four lose up to 2 % of it, eight 6 %, since the compiler
/// runs out of registers (`heed_bench_attention --benchmark_filter=prefill`, old and new in turns, as below). Six raise the
/// share of the peak and the time of a call: bench/results.md, ceilings.
template <real T, int Rows, int Vectors, class Left>
HEED_ALWAYS_INLINE inline void outer_products(Left left, T const* right, index width, index count,
                                              batch<T> (&sum)[Rows * Vectors]) {
  auto const step = [&](index t, auto begins) HEED_LAMBDA_INLINE {
    batch<T> b[Vectors];
    unroll<Vectors>([&](int v) HEED_LAMBDA_INLINE { b[v] = load(right + t * width + v * lanes<T>); });
    unroll<Rows>([&](int r) HEED_LAMBDA_INLINE {
      batch<T> const a(left(r, t));
      unroll<Vectors>([&](int v) HEED_LAMBDA_INLINE {
        batch<T>& s = sum[r * Vectors + v];
        s = begins() ? a * b[v] : fma(a, b[v], s);
      });
    });
  };
  std::true_type constexpr first;
  std::false_type constexpr next;
  step(0, first);
  index t = 1;
  if constexpr (Vectors == register_tile<T>::vectors && Rows + 1 >= register_tile<T>::rows) {
    if (count % 2 == 0)
      step(t++, next);
    for (; t < count; t += 2) {
      step(t, next);
      step(t + 1, next);
    }
  } else {
    for (; t < count; ++t)
      step(t, next);
  }
}

/// Calls f(constant height, first row) over [0, n) in pieces of at most `Most` rows. The full tile (`Any`) knows every
/// height and cuts evenly, since a single left-over row would run at a fraction of the speed; tiles of fewer vectors,
/// which only staircases and short prompts use, know powers of two, to keep what a call compiles small. Pieces of one
/// height follow each other, so that nothing is divided or chosen between them: 0.5 to 1 % of a call.
template <int Most, bool Any, class F>
HEED_ALWAYS_INLINE inline void pieces(index n, F&& f) {
  index first = 0, end = 0;  // of the pieces of one height
  while (first < n) {
    index const left = n - first, count = (left + Most - 1) / Most, taller = left % count;
    index height = left / count;
    if constexpr (Any) {
      height += taller > 0;
      end = taller > 0 ? first + taller * height : n;
    } else {
      height = std::min<index>(Most, index{1} << (63 - std::countl_zero(static_cast<std::uint64_t>(left))));
      end = n - left % height;
    }
    unroll_constants<Most>([&](auto i) HEED_LAMBDA_INLINE {
      constexpr int rows = i + 1;
      if constexpr (Any || (rows & (rows - 1)) == 0)
        if (height == rows)
          for (; first < end; first += rows)
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

/// s[j][lane] = Σ_c k[j][c] · q[c][lane] for n keys of dim ≥ 1; with `maximum`, it takes the greatest score of each lane.
template <real T, int Vectors>
HEED_NOINLINE void score_tile(T const* k, index ldk, index n, T const* q, index dim, T* s, T* maximum) {
  constexpr index width = block_lanes<T>;
  pieces<tile_rows<T, Vectors>, Vectors == register_tile<T>::vectors>(
      n, [&](auto rows, index first) HEED_LAMBDA_INLINE {
        constexpr int R = decltype(rows)::value;
        batch<T> sum[R * Vectors];
        T const* const key = k + first * ldk;
        outer_products<T, R, Vectors>([=](index r, index c) HEED_LAMBDA_INLINE { return key[r * ldk + c]; }, q, width,
                                      dim, sum);
        unroll<R * Vectors>([&](int i) HEED_LAMBDA_INLINE {
          store(s + (first + i / Vectors) * width + (i % Vectors) * lanes<T>, sum[i]);
        });
        if (maximum)
          unroll<Vectors>([&](int v) HEED_LAMBDA_INLINE {
            batch<T> top = load(maximum + v * lanes<T>);
            unroll<R>([&](int r) HEED_LAMBDA_INLINE { top = heed::max(sum[r * Vectors + v], top); });
            store(maximum + v * lanes<T>, top);
          });
      });
}

/// o[c][lane] = o[c][lane] · rescale[lane] + Σ_j v[j][c] · w[j][lane] over n ≥ 1 keys; where `rescale` is null,
/// the sum alone, over whatever stood there.
template <real T, int Vectors>
HEED_NOINLINE void value_tile(T const* v, index ldv, index n, T const* w, index dim_v, T* o, T const* rescale) {
  constexpr index width = block_lanes<T>;
  pieces<tile_rows<T, Vectors>, Vectors == register_tile<T>::vectors>(
      dim_v, [&](auto rows, index first) HEED_LAMBDA_INLINE {
        constexpr int R = decltype(rows)::value;
        batch<T> sum[R * Vectors];
        T const* const column = v + first;
        outer_products<T, R, Vectors>([=](index c, index j) HEED_LAMBDA_INLINE { return column[j * ldv + c]; }, w,
                                      width, n, sum);
        unroll<Vectors>([&](int u) HEED_LAMBDA_INLINE {
          T* const place = o + first * width + u * lanes<T>;
          if (rescale == nullptr) {
            unroll<R>([&](int r) HEED_LAMBDA_INLINE { store(place + r * width, sum[r * Vectors + u]); });
            return;
          }
          batch<T> const factor = load(rescale + u * lanes<T>);
          unroll<R>([&](int r) HEED_LAMBDA_INLINE {
            store(place + r * width, fma(load(place + r * width), factor, sum[r * Vectors + u]));
          });
        });
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

/// `value_tile` of no keys, for any number of lane vectors.
template <real T>
void only_rescale(int vectors, index dim_v, T* o, T const* rescale) {
  for (index c = 0; c < dim_v; ++c, o += block_lanes<T>)
    for (index lane = 0; lane < vectors * lanes<T>; lane += lanes<T>)
      store(o + lane, rescale ? load(o + lane) * load(rescale + lane) : batch<T>(T(0)));
}

/// Rows of n that a product takes at once: all, but only a few where register tiles stand side by side, so that they
/// stay in the first-level cache for the next one.
template <real T>
HEED_ALWAYS_INLINE inline index rows_in_turn(index n) {
  return register_tile<T>::side_by_side == 1 ? n : 4 * register_tile<T>::rows;
}

}  // namespace impl

/// Scores of n keys against `vectors` lane vectors; see `impl::score_tile`.
template <real T>
void scores(int vectors, T const* k, index ldk, index n, T const* q, index dim, T* s, T* maximum) {
  index const step = impl::rows_in_turn<T>(n);
  for (index j = 0; j < n; j += step)
    impl::with_vectors<T>(vectors, [&](auto v, index lane) {
      impl::score_tile<T, decltype(v)::value>(k + j * ldk, ldk, std::min(step, n - j), q + lane, dim,
                                              s + j * block_lanes<T> + lane, maximum ? maximum + lane : nullptr);
    });
}

/// Weighted values of n keys added to `vectors` lane vectors; see `impl::value_tile`.
template <real T>
void values(int vectors, T const* v, index ldv, index n, T const* w, index dim_v, T* o, T const* rescale) {
  if (n == 0)
    return impl::only_rescale(vectors, dim_v, o, rescale);
  index const step = impl::rows_in_turn<T>(dim_v);
  for (index c = 0; c < dim_v; c += step)
    impl::with_vectors<T>(vectors, [&](auto u, index lane) {
      impl::value_tile<T, decltype(u)::value>(v + c, ldv, n, w + lane, std::min(step, dim_v - c),
                                              o + c * block_lanes<T> + lane, rescale ? rescale + lane : nullptr);
    });
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
