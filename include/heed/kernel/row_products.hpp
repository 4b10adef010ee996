#pragma once

#include <heed/kernel/products.hpp>

/// The two products for a few query rows: lanes run along the channels, and every key or value row that is loaded serves
/// all query rows at hand.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// How many keys a tile takes beside R rows: 8 to 16 accumulators, to cover two FMA pipes of latency 4.
template <int R>
inline constexpr int keys_beside = R >= 4 ? 4 : 8;

/// s[r][j] = q_r · k_j for R rows and J keys (a multiple of 4); q is padded with zeros to whole vectors.
template <int R, int J, real T>
HEED_ALWAYS_INLINE inline void dot_tile(T const* k, index ldk, T const* q, index ldq, index dim, T* s, index lds) {
  constexpr index w = lanes<T>;
  batch<T> sum[R * J];
  unroll<R * J>([&](auto i) HEED_LAMBDA_INLINE { sum[i] = batch<T>(T(0)); });
  auto const step = [&](index c, auto load_key) HEED_LAMBDA_INLINE {
    batch<T> row[R];
    unroll<R>([&](auto r) HEED_LAMBDA_INLINE { row[r] = load(q + r * ldq + c); });
    unroll<J>([&](auto j) HEED_LAMBDA_INLINE {
      batch<T> const key = load_key(k + j * ldk + c);
      unroll<R>([&](auto r) HEED_LAMBDA_INLINE { sum[r * J + j] = fma(row[r], key, sum[r * J + j]); });
    });
  };
  index c = 0;
  for (; c + w <= dim; c += w) step(c, [](T const* p) HEED_LAMBDA_INLINE { return load(p); });
  if (c < dim) step(c, [&](T const* p) HEED_LAMBDA_INLINE { return load_first(p, dim - c); });
  unroll<R>([&](auto r) HEED_LAMBDA_INLINE {
    unroll<J / 4>([&](auto g) HEED_LAMBDA_INLINE {
      constexpr int at = r * J + 4 * g;
      reduce_add4(sum[at], sum[at + 1], sum[at + 2], sum[at + 3], s + r * lds + 4 * g);
    });
  });
}

template <int R, real T>
HEED_NOINLINE void dot_rows(T const* k, index ldk, index n, T const* q, index ldq, index dim, T* s, index lds) {
  constexpr int most = keys_beside<R>;
  index j = 0;
  for (; j + most <= n; j += most) dot_tile<R, most>(k + j * ldk, ldk, q, ldq, dim, s + j, lds);
  for (; j + 4 <= n; j += 4) dot_tile<R, 4>(k + j * ldk, ldk, q, ldq, dim, s + j, lds);
  for (; j < n; ++j) dot_tile<R, 4>(k + j * ldk, 0, q, ldq, dim, s + j, lds);  // one key four times; s has the room
}

/// acc[r][c] = acc[r][c] · rescale[r] + Σ_j w[r][j] · v[j][c] for R rows and V vectors of channels from c on.
template <int R, int V, bool Whole, real T>
HEED_ALWAYS_INLINE inline void sum_tile(T const* v, index ldv, index n, T const* w, index ldw, T* acc, index ldacc,
                                        T const* rescale, index channels) {
  batch<T> sum[R * V];
  unroll<R * V>([&](auto i) HEED_LAMBDA_INLINE { sum[i] = batch<T>(T(0)); });
  for (index j = 0; j < n; ++j) {
    batch<T> value[V];
    unroll<V>([&](auto u) HEED_LAMBDA_INLINE {
      T const* const p = v + j * ldv + u * lanes<T>;
      value[u] = Whole ? load(p) : load_first(p, channels);
    });
    unroll<R>([&](auto r) HEED_LAMBDA_INLINE {
      batch<T> const weight(w[r * ldw + j]);
      unroll<V>([&](auto u) HEED_LAMBDA_INLINE { sum[r * V + u] = fma(weight, value[u], sum[r * V + u]); });
    });
  }
  unroll<R * V>([&](auto i) HEED_LAMBDA_INLINE {
    T* const place = acc + (i / V) * ldacc + (i % V) * lanes<T>;
    store(place, fma(load(place), batch<T>(rescale[i / V]), sum[i]));
  });
}

template <int R, real T>
HEED_NOINLINE void sum_rows(T const* v, index ldv, index n, T const* w, index ldw, index dim_v, T* acc, index ldacc,
                            T const* rescale) {
  constexpr index w1 = lanes<T>;
  constexpr int most = R >= 4 ? 4 : 8;
  index c = 0;
  for (; c + most * w1 <= dim_v; c += most * w1)
    sum_tile<R, most, true>(v + c, ldv, n, w, ldw, acc + c, ldacc, rescale, w1);
  for (; c + w1 <= dim_v; c += w1) sum_tile<R, 1, true>(v + c, ldv, n, w, ldw, acc + c, ldacc, rescale, w1);
  if (c < dim_v) sum_tile<R, 1, false>(v + c, ldv, n, w, ldw, acc + c, ldacc, rescale, dim_v - c);
}

/// Calls f(constant count, first row) over the rows in fours, then two, then one.
template <class F>
void row_groups(index rows, F&& f) {
  index r = 0;
  for (; r + 4 <= rows; r += 4) f(std::integral_constant<int, 4>{}, r);
  if (r + 2 <= rows) {
    f(std::integral_constant<int, 2>{}, r);
    r += 2;
  }
  if (r < rows) f(std::integral_constant<int, 1>{}, r);
}

}  // namespace impl

/// s[r][j] = q_r · k_j for n keys. `s` has room for 3 more keys than n.
template <real T>
void row_scores(T const* k, index ldk, index n, T const* q, index ldq, index rows, index dim, T* s, index lds) {
  impl::row_groups(rows, [&](auto count, index r) {
    impl::dot_rows<decltype(count)::value>(k, ldk, n, q + r * ldq, ldq, dim, s + r * lds, lds);
  });
}

/// acc[r] = acc[r] · rescale[r] + Σ_j w[r][j] · v_j over n keys; acc is padded to whole vectors.
template <real T>
void row_values(T const* v, index ldv, index n, T const* w, index ldw, index rows, index dim_v, T* acc, index ldacc,
                T const* rescale) {
  impl::row_groups(rows, [&](auto count, index r) {
    impl::sum_rows<decltype(count)::value>(v, ldv, n, w + r * ldw, ldw, dim_v, acc + r * ldacc, ldacc, rescale + r);
  });
}

/// `row_values` of one row where v holds numbers that are not finite: only keys whose bit is set count. The same sums
/// in the same order.
template <real T>
HEED_NOINLINE void guarded_row_values(T const* v, index ldv, index n, T const* w, std::uint64_t visible, index dim_v,
                                      T* acc, T rescale) {
  for (index c = 0; c < dim_v; ++c) {
    T sum = T(0);
    for (index j = 0; j < n; ++j) sum = fma(w[j], (visible >> j & 1U) != 0 ? v[j * ldv + c] : T(0), sum);
    acc[c] = fma(acc[c], rescale, sum);
  }
}

HEED_ISA_END
}  // namespace heed
