#pragma once

#include <heed/kernel/load.hpp>
#include <heed/kernel/products.hpp>

/// The two products for a few query rows: lanes run along the channels, and every key or value row that is loaded serves
/// all query rows at hand. Rows are read in their storage and widened in registers; the kernels are instantiated by
/// arithmetic and storage type alone, once a program, whatever the modifiers.

namespace heed {
HEED_ISA_BEGIN

/// How many numbers `row_scores` may write from the last key on.
inline constexpr index score_room = 8;

namespace impl {

/// How many keys a tile takes beside R rows: 8 to 16 accumulators, to cover two FMA pipes of latency 4.
template <int R>
inline constexpr int keys_beside = R >= 4 ? 4 : 8;
static_assert(keys_beside<1> <= score_room);

/// How far ahead rows are fetched, and how many keys are weighed before the next columns are: long caches are bound by
/// memory, and the core alone looks some 1.5 KiB ahead once four query rows share a load. What is fetched must go in the
/// order of addresses, evenly, and within reach of the memory's own prefetcher (4 KiB pages): at 2 KiB four query rows
/// gain 15–30 % over none, at 4 KiB or in bursts half of that (`heed_bench_attention --benchmark_filter=decode/32on8`).
inline constexpr index fetched_bytes = 2048;
inline constexpr index value_keys = 16;

/// Walks over the cache lines of rows, in the order of addresses.
template <class Stored>
class row_fetcher {
 public:
  static constexpr index line = 64 / static_cast<index>(sizeof(Stored));

  row_fetcher(Stored const* rows, index ld, index n)
      : at_(reinterpret_cast<std::uintptr_t>(rows)), lines_((n + line - 1) / line),
        gap_(static_cast<std::uintptr_t>((ld - lines_ * line) * static_cast<index>(sizeof(Stored)))), left_(lines_) {
    index const ahead = std::max<index>(1, fetched_bytes / (n * static_cast<index>(sizeof(Stored))));
    at_ += static_cast<std::uintptr_t>(ahead * ld * static_cast<index>(sizeof(Stored)));
  }

  index lines() const { return lines_; }
  /// Rows behind the last are asked for, too: that reads nothing.
  HEED_ALWAYS_INLINE void next() {
    __builtin_prefetch(reinterpret_cast<void const*>(at_), 0, 2);
    at_ += 64;
    if (--left_ == 0) {
      at_ += gap_;
      left_ = lines_;
    }
  }

 private:
  std::uintptr_t at_;
  index lines_;
  std::uintptr_t gap_;
  index left_;
};

/// s[r][j] = q_r · k_j for R rows and J keys (a multiple of 4); q is padded with zeros to whole vectors.
template <int R, int J, class Stored, real T>
HEED_ALWAYS_INLINE inline void dot_tile(Stored const* k, index ldk, T const* q, index ldq, index dim, T* s, index lds) {
  constexpr index w = lanes<T>;
  constexpr int fetches = std::max(1, J * lanes<T> * static_cast<int>(sizeof(Stored)) / 64);
  row_fetcher<Stored> ahead(k, ldk, dim);
  batch<T> sum[R * J];
  unroll<R * J>([&](auto i) HEED_LAMBDA_INLINE { sum[i] = batch<T>(T(0)); });
  for (index c = 0; c < dim; c += w) {
    batch<T> row[R];
    unroll<R>([&](auto r) HEED_LAMBDA_INLINE { row[r] = load(q + r * ldq + c); });
    unroll<fetches>([&](auto) HEED_LAMBDA_INLINE { ahead.next(); });
    unroll<J>([&](auto j) HEED_LAMBDA_INLINE {
      batch<T> const key = load_widened_of(k + j * ldk + c, dim - c);
      unroll<R>([&](auto r) HEED_LAMBDA_INLINE { sum[r * J + j] = fma(row[r], key, sum[r * J + j]); });
    });
  }
  unroll<R>([&](auto r) HEED_LAMBDA_INLINE {
    unroll<J / 4>([&](auto g) HEED_LAMBDA_INLINE {
      constexpr int at = r * J + 4 * g;
      reduce_add4(sum[at], sum[at + 1], sum[at + 2], sum[at + 3], s + r * lds + 4 * g);
    });
  });
}

template <int R, class Stored, real T>
HEED_NOINLINE void dot_rows(Stored const* k, index ldk, index n, T const* q, index ldq, index dim, T* s, index lds) {
  constexpr int keys = keys_beside<R>;
  index j = 0;
  for (bool whole; j < n; j += whole ? keys : 1) {  // the last keys one by one, each several times: s has the room
    whole = j + keys <= n;
    dot_tile<R, keys>(k + j * ldk, whole ? ldk : 0, q, ldq, dim, s + j, lds);
  }
}

/// acc[r][c] = acc[r][c] · rescale[r] + Σ_j w[r][j] · v[j][c] for R rows and V vectors of channels from c on; one vector
/// may have fewer `channels`. Whole rows are fetched where `ahead` is given.
template <int R, int V, class Stored, real T>
HEED_ALWAYS_INLINE inline void sum_tile(Stored const* v, index ldv, index n, T const* w, index ldw, T* acc, index ldacc,
                                        T const* rescale, index channels, row_fetcher<Stored>* ahead) {
  batch<T> sum[R * V];
  unroll<R * V>([&](auto i) HEED_LAMBDA_INLINE { sum[i] = batch<T>(T(0)); });
  for (index j = 0; j < n; ++j) {
    if (ahead)
      for (index i = 0; i < ahead->lines(); ++i)
        ahead->next();
    batch<T> value[V];
    unroll<V>([&](auto u) HEED_LAMBDA_INLINE {
      Stored const* const p = v + j * ldv + u * lanes<T>;
      value[u] = V > 1 ? load_widened(p) : load_widened_of(p, channels);
    });
    unroll<R>([&](auto r) HEED_LAMBDA_INLINE {
      batch<T> const weight(w[r * ldw + j]);
      unroll<V>([&](auto u) HEED_LAMBDA_INLINE { sum[r * V + u] = fma(weight, value[u], sum[r * V + u]); });
    });
  }
  unroll<R * V>([&](auto i) HEED_LAMBDA_INLINE {
    T* const place = acc + (i / V) * ldacc + (i % V) * lanes<T>;
    store(place, fma(load(place), batch<T>(rescale ? rescale[i / V] : T(1)), sum[i]));
  });
}

template <int R, class Stored, real T>
HEED_NOINLINE void sum_rows(Stored const* v, index ldv, index n, T const* w, index ldw, index dim_v, T* acc,
                            index ldacc, T const* rescale) {
  constexpr index w1 = lanes<T>;
  row_fetcher<Stored> rows(v, ldv, dim_v);
  index first = 0;
  do {
    index const keys = std::min(value_keys, n - first);
    auto const part = [&](auto vectors, index c) HEED_LAMBDA_INLINE {
      sum_tile<R, vectors>(v + first * ldv + c, ldv, keys, w + first, ldw, acc + c, ldacc,
                           first == 0 ? rescale : nullptr, dim_v - c, c == 0 ? &rows : nullptr);
    };
    index c = 0;
    for (; c + 4 * w1 <= dim_v; c += 4 * w1)
      part(std::integral_constant<int, 4>{}, c);
    for (; c < dim_v; c += w1)
      part(std::integral_constant<int, 1>{}, c);
    first += value_keys;
  } while (first < n);
}

/// Calls f(constant count, first row) over the rows in fours, then by twos where `Twos`, then one by one: a kernel for
/// two rows is worth its compile time for the arithmetic storage alone.
template <bool Twos, class F>
void row_groups(index rows, F&& f) {
  index r = 0;
  for (; r + 4 <= rows; r += 4)
    f(std::integral_constant<int, 4>{}, r);
  if constexpr (Twos)
    for (; r + 2 <= rows; r += 2)
      f(std::integral_constant<int, 2>{}, r);
  for (; r < rows; ++r)
    f(std::integral_constant<int, 1>{}, r);
}

}  // namespace impl

/// s[r][j] = q_r · k_j for n keys. `s` has room for score_room − 1 more keys than n.
template <class Stored, real T>
void row_scores(Stored const* k, index ldk, index n, T const* q, index ldq, index rows, index dim, T* s, index lds) {
  impl::row_groups<std::same_as<Stored, T>>(rows, [&](auto count, index r) {
    impl::dot_rows<decltype(count)::value>(k, ldk, n, q + r * ldq, ldq, dim, s + r * lds, lds);
  });
}

/// The same for keys of a storage that is known at run time.
template <real T>
HEED_NOINLINE void row_scores(stored_rows_at const& k, index n, T const* q, index ldq, index rows, index dim, T* s,
                              index lds) {
  with_stored<T>(k.data, k.kind, [&](auto const* p) { row_scores(p, k.ld, n, q, ldq, rows, dim, s, lds); });
}

/// s[r][j] = s[r][j] · scale[j]: what quantised keys and values are multiplied with is folded into scores and weights.
/// Only where a bit is set, if `visible` is given; elsewhere 0.
template <real T>
HEED_NOINLINE void scale_keys(T* s, float const* scale, index stride, index n, std::uint64_t const* visible = nullptr) {
  if constexpr (std::same_as<T, float>) {
    if (stride == 1 && visible == nullptr) {
      index j = 0;
      for (; j + lanes<T> <= n; j += lanes<T>)
        store(s + j, load(s + j) * load(scale + j));
      if (j < n)
        store_first(s + j, load_first(s + j, n - j) * load_first(scale + j, n - j), n - j);
      return;
    }
  }
  for (index j = 0; j < n; ++j)
    s[j] = visible == nullptr || (*visible >> j & 1U) != 0 ? s[j] * static_cast<T>(scale[j * stride]) : T(0);
}

/// acc[r] = acc[r] · rescale[r] + Σ_j w[r][j] · v_j over n keys; acc is padded to whole vectors.
template <class Stored, real T>
void row_values(Stored const* v, index ldv, index n, T const* w, index ldw, index rows, index dim_v, T* acc,
                index ldacc, T const* rescale) {
  impl::row_groups<std::same_as<Stored, T>>(rows, [&](auto count, index r) {
    impl::sum_rows<decltype(count)::value>(v, ldv, n, w + r * ldw, ldw, dim_v, acc + r * ldacc, ldacc, rescale + r);
  });
}
template <real T>
HEED_NOINLINE void row_values(stored_rows_at const& v, index n, T const* w, index ldw, index rows, index dim_v, T* acc,
                              index ldacc, T const* rescale) {
  with_stored<T>(v.data, v.kind,
                 [&](auto const* p) { row_values(p, v.ld, n, w, ldw, rows, dim_v, acc, ldacc, rescale); });
}

/// `row_values` of one row where v holds numbers that are not finite: only keys whose bit is set count. The same sums
/// in the same order.
template <class Stored, real T>
HEED_NOINLINE void guarded_row_values(Stored const* v, index ldv, index n, T const* w, std::uint64_t visible,
                                      index dim_v, T* acc, T rescale) {
  for (index c = 0; c < dim_v; ++c) {
    index j = 0;
    do {
      index const end = std::min(j + impl::value_keys, n);
      T sum = T(0);
      for (; j < end; ++j)
        sum = fma(w[j], (visible >> j & 1U) != 0 ? static_cast<T>(v[j * ldv + c]) : T(0), sum);
      acc[c] = fma(acc[c], j <= impl::value_keys ? rescale : T(1), sum);
    } while (j < n);
  }
}
template <real T>
HEED_NOINLINE void guarded_row_values(stored_rows_at const& v, index n, T const* w, std::uint64_t visible, index dim_v,
                                      T* acc, T rescale) {
  with_stored<T>(v.data, v.kind,
                 [&](auto const* p) { guarded_row_values(p, v.ld, n, w, visible, dim_v, acc, rescale); });
}

HEED_ISA_END
}  // namespace heed
