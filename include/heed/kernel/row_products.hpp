#pragma once

#include <heed/core/pairs.hpp>
#include <heed/kernel/load.hpp>
#include <heed/kernel/prefetch.hpp>
#include <heed/kernel/products.hpp>

/// The two products for a few query rows: lanes run along the channels, and every key or value row that is loaded
/// serves all query rows at hand. Rows are read in their storage and widened in registers; the kernels are instantiated
/// by arithmetic and storage type alone, once a program, whatever the modifiers.

namespace heed {
HEED_ISA_BEGIN

/// How many numbers `row_scores` may write from the last key on.
inline constexpr index score_room = 4;

namespace impl {

/// Keys of a tile of dot products, whose sums leave the registers together. Beside four rows that are 16 accumulators;
/// beside one, tiles are so short that the core works on several at a time, and 8 keys gain nothing.
inline constexpr int keys_beside = score_room;

/// How many of them are read at once, column by column. Four load the rows of q half as often as two, which is worth a
/// tenth to bytes and 2 % to halves, if 16 sums fit beside them as in AVX-512; elsewhere only bytes gain.
template <class Stored>
inline constexpr int keys_at_once = lanes<float> == 16 || sizeof(Stored) == 1 ? keys_beside : 2;

/// Vectors of a value row that are summed at a time: beside one row alone eight, since four sums would wait for each
/// other's multiply-adds.
constexpr int vectors_beside(index rows) { return rows == 1 ? 8 : 4; }

/// Keys that a product takes in turn, where their rows are read more than once: as many as stay in the first-level cache
/// beside what is fetched. With 32 KiB of them 32 heads on eight take up to 7 % longer, with 8 KiB up to 4 %; below 16
/// keys the accumulators' way in and out shows (`heed_bench_attention --benchmark_filter=decode/32on8`, old and new in
/// turns).
constexpr index keys_in_turn(index row_bytes) {
  return std::max<index>(16, 16384 / row_bytes / keys_beside * keys_beside);
}

/// Whether value rows are then read once, not channels by channels.
template <real T>
constexpr bool in_one_pass(index rows, index dim_v) {
  return dim_v <= vectors_beside(rows) * lanes<T>;
}

/// How far ahead rows are fetched into the first-level cache: evenly, in the order of addresses, line by line. Rows that
/// are read once, front to back, need what passes while memory answers: 2, 4 and 8 KiB are equal at 32768 keys, 16 KiB
/// take 1 to 3 % longer, at 512 keys 5 to 7 %. Of values that are read in passes over their channels the first pass
/// overtakes the addresses: 8, 12 and 20 KiB are equal. Without it, 32768 keys take 1.1 to 1.3 times as long; fetched
/// into the second level only, up to 1.05 times; lines asked for in pairs 1.02 to 1.05 times
/// (`heed_bench_attention --benchmark_filter=decode`, old and new in turns on the same rows).
inline constexpr index fetched_bytes = 6144, fetched_bytes_in_passes = 12288;

/// How much further rows in memory are fetched into the second-level cache: the first level waits for fewer lines at a
/// time than memory, where it answers late, can be asked for. On Emerald Rapids 32768 keys of 8 heads then take 5 to 14 %
/// less time (bytes with 32 heads on them as much), 2 to 24 KiB alike; 512 or 4096 keys, which lie in the third level
/// there, 2 to 15 % more (`heed_bench_attention --benchmark_filter=decode`, old and new in turns on the same rows).
inline constexpr index fetched_beyond = 10240;

/// Asks for the cache lines of rows ahead of who reads them: not for those of floats in a cache that have more room
/// between them than they take, as a head's where heads lie side by side. With them asked for, 1024 keys of 8, 16 or 32
/// such heads take 1.2 to 1.5 times as long, of 4 or 12 heads as long; but halves, and floats in memory, up to 1.5 times
/// as long without (`heed_bench_attention --benchmark_filter=side_by_side/.*1of1024`, old and new in turns; other heads and keys
/// in a program like it).
template <class Stored>
class row_fetcher {
 public:
  static constexpr index size = sizeof(Stored), line = line_walk::line / size;

  row_fetcher(Stored const* rows, index ld, index n, bool one_pass = true, bool in_memory = false)
      : walk_(rows + rows_in(one_pass ? fetched_bytes : fetched_bytes_in_passes, n) * ld, ld * size, n * size),
        beyond_(in_memory ? rows_in(fetched_beyond, n) * ld * size : 0),
        apart_(sizeof(Stored) >= sizeof(float) && !in_memory && ld >= 2 * n) {}

  /// For who reads `Count` elements from channel c on in `steps` equal steps of work, at most a vector each: asks for
  /// the line that falls to this step, if one does.
  template <index Count>
  HEED_ALWAYS_INLINE void follow(index c, int step = 0, int steps = 1) {
    constexpr index lines = Count / line;
    if (lines > 0 ? (step + 1) * lines / steps > step * lines / steps : step == 0 && c % line == 0)
      next();
  }

  // Straight on where rows are in memory: the other way round those take up to 2 % longer, others 3 % more or less.
  HEED_ALWAYS_INLINE void next() {
    if (apart_) [[unlikely]]
      return;
    if (beyond_ != 0) [[likely]]
      line_walk::ask<2>(beyond());
    walk_.template next<1>();
  }

  /// The address that is asked for next, and where rows are in memory the one further ahead.
  std::uintptr_t at() const { return walk_.at(); }
  std::uintptr_t beyond() const { return walk_.at() + static_cast<std::uintptr_t>(beyond_); }

 private:
  static index rows_in(index bytes, index n) { return std::max<index>(1, bytes / (n * size)); }

  line_walk walk_;
  index beyond_;  // bytes further, or 0
  bool apart_;
};

/// How many vectors of a key are widened at a time.
template <class Stored>
inline constexpr int vectors_at_once = in_pairs<Stored, 2> ? 2 : 1;

/// R rows of q with their channels in the order in which keys are widened, where that is not their own. `most` channels,
/// 4 KiB of the stack for four rows, are more than most heads have; those behind meet keys that are widened in order.
template <int R, class Stored, real T>
struct paired_queries {
  static constexpr index most = vectors_at_once<Stored> > 1 ? 256 : 0, ld = std::max<index>(most, 1);

  paired_queries(T const* q, index ldq, index dim) {
    if constexpr (most > 0) {
      constexpr index w = 2 * lanes<T>;
      channels = std::min(dim, most) / w * w;
      for (int r = 0; r < R; ++r)
        for (index c = 0; c < channels; c += w)
          split_pair(q + r * ldq + c, rows + r * ld + c);
    }
  }

  alignas(64) T rows[R * ld];
  index channels = 0;
};

/// s[r][j] = q_r · k_j for R rows and a tile of keys; q is padded with zeros to whole vectors.
template <int R, class Stored, real T>
HEED_ALWAYS_INLINE inline void dot_tile(Stored const* k, index ldk, paired_queries<R, Stored, T> const& paired,
                                        T const* q, index ldq, index dim, T* s, index lds, row_fetcher<Stored>& ahead) {
  constexpr index w = lanes<T>;
  constexpr int keys = keys_beside, at_once = keys_at_once<Stored>;
  batch<T> sum[R * keys];
  unroll<R * keys>([&](int i) HEED_LAMBDA_INLINE { sum[i] = batch<T>(T(0)); });
  unroll<keys / at_once>([&](int group) HEED_LAMBDA_INLINE {
    // V vectors from channel c on: of row r at from + r · ld + c, of a key what `read` makes of it.
    auto const add = [&](T const* from, index ld, index c, auto vectors, auto read) HEED_LAMBDA_INLINE {
      constexpr int V = vectors;
      batch<T> row[R * V];
      unroll<R * V>([&](int i) HEED_LAMBDA_INLINE { row[i] = load(from + i % R * ld + c + i / R * w); });
      unroll<at_once>([&](int i) HEED_LAMBDA_INLINE {
        int const j = group * at_once + i;
        batch<T> key[V];
        read(k + j * ldk + c, key);
        unroll<R * V>([&](int step) HEED_LAMBDA_INLINE {
          ahead.template follow<at_once * V * w>(at_once * c, i * R * V + step, at_once * R * V);
          batch<T>& to = sum[step % R * keys + j];
          to = fma(row[step], key[step / R], to);
        });
      });
    };
    using one = std::integral_constant<int, 1>;
    constexpr int several = vectors_at_once<Stored>;
    index c = 0;
    if constexpr (several > 1)
      for (; c < paired.channels; c += several * w)
        add(paired.rows, paired.ld, c, std::integral_constant<int, several>{}, load_vectors<several, Stored, T>);
    for (; c + w <= dim; c += w)
      add(q, ldq, c, one{}, [](Stored const* p, batch<T>* to) HEED_LAMBDA_INLINE { *to = load_widened(p); });
    if (c < dim)
      add(q, ldq, c, one{},
          [n = dim - c](Stored const* p, batch<T>* to) HEED_LAMBDA_INLINE { *to = load_widened_first(p, n); });
  });
  if constexpr (R == 4)
    return reduce_add4x4(sum, s, lds);
  unroll<R>([&](int r) HEED_LAMBDA_INLINE {
    int const at = r * keys;
    reduce_add4(sum[at], sum[at + 1], sum[at + 2], sum[at + 3], s + r * lds);
  });
}

template <int R, class Stored, real T>
HEED_NOINLINE void dot_rows(Stored const* k, index ldk, index n, T const* q, index ldq, index dim, T* s, index lds,
                            bool in_memory) {
  row_fetcher<Stored> ahead(k, ldk, dim, true, in_memory);
  paired_queries<R, Stored, T> const paired(q, ldq, dim);
  index j = 0;
  // The last keys one by one, each several times: s has the room.
  for (bool whole; j < n; j += whole ? keys_beside : 1) {
    whole = j + keys_beside <= n;
    dot_tile<R>(k + j * ldk, whole ? ldk : 0, paired, q, ldq, dim, s + j, lds, ahead);
  }
}

/// acc[r][c] = acc[r][c] · rescale[r] + Σ_j w[r][j] · v[j][c] for R rows and V vectors from channel `first` on; one
/// vector may have fewer channels, up to dim_v. Without `rescale` it is 1.
template <int R, int V, class Stored, real T>
HEED_ALWAYS_INLINE inline void sum_tile(Stored const* v, index ldv, index n, T const* w, index ldw, index first,
                                        index dim_v, T* acc, index ldacc, T const* rescale,
                                        row_fetcher<Stored>& ahead) {
  batch<T> sum[R * V];
  unroll<R * V>([&](int i) HEED_LAMBDA_INLINE { sum[i] = batch<T>(T(0)); });
  for (index j = 0; j < n; ++j) {
    batch<T> value[V];
    Stored const* const p = v + j * ldv + first;
    if constexpr (V > 1)
      load_vectors<V>(p, value);
    else
      value[0] = load_widened_of(p, dim_v - first);
    unroll<R>([&](int r) HEED_LAMBDA_INLINE {
      batch<T> const weight(w[r * ldw + j]);
      unroll<V>([&](int u) HEED_LAMBDA_INLINE {
        ahead.template follow<V * lanes<T>>(first, r * V + u, R * V);
        sum[r * V + u] = fma(weight, value[u], sum[r * V + u]);
      });
    });
  }
  if constexpr (in_pairs<Stored, V>)
    unroll<R * V / 2>([&](int i) HEED_LAMBDA_INLINE { join_pair(sum[2 * i], sum[2 * i + 1]); });
  unroll<R * V>([&](int i) HEED_LAMBDA_INLINE {
    T* const place = acc + (i / V) * ldacc + first + (i % V) * lanes<T>;
    store(place, fma(load(place), batch<T>(rescale != nullptr ? rescale[i / V] : T(1)), sum[i]));
  });
}

template <int R, class Stored, real T>
HEED_NOINLINE void sum_rows(Stored const* v, index ldv, index n, T const* w, index ldw, index dim_v, T* acc,
                            index ldacc, T const* rescale, bool in_memory) {
  constexpr int most = vectors_beside(R);
  row_fetcher<Stored> ahead(v, ldv, dim_v, in_one_pass<T>(R, dim_v), in_memory);
  index c = 0;
  auto const part = [&](auto vectors) HEED_LAMBDA_INLINE {
    sum_tile<R, vectors>(v, ldv, n, w, ldw, c, dim_v, acc, ldacc, rescale, ahead);
    c += vectors * lanes<T>;
  };
  while (c + most * lanes<T> <= dim_v)
    part(std::integral_constant<int, most>{});
  if constexpr (most > 4)
    if (c + 4 * lanes<T> <= dim_v)
      part(std::integral_constant<int, 4>{});
  while (c < dim_v)
    part(std::integral_constant<int, 1>{});
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

/// Whether so many rows are a single group of `row_groups`: keys are read once, then.
template <bool Twos>
constexpr bool one_group(index rows) {
  return rows == 1 || rows == 4 || (Twos && rows == 2);
}

}  // namespace impl

/// s[r][j] = q_r · k_j for n keys. `s` has room for score_room − 1 more keys than n.
template <class Stored, real T>
void row_scores(Stored const* k, index ldk, index n, T const* q, index ldq, index rows, index dim, T* s, index lds,
                bool in_memory = false) {
  constexpr bool twos = std::same_as<Stored, T>;
  index const step = impl::one_group<twos>(rows) ? n : impl::keys_in_turn(dim * index{sizeof(Stored)});
  for (index j = 0; j < n; j += step)
    impl::row_groups<twos>(rows, [&](auto count, index r) {
      impl::dot_rows<decltype(count)::value>(k + j * ldk, ldk, std::min(step, n - j), q + r * ldq, ldq, dim,
                                             s + r * lds + j, lds, in_memory);
    });
}

/// The same for keys of a storage that is known at run time.
template <real T>
HEED_NOINLINE void row_scores(stored_rows_at const& k, index n, T const* q, index ldq, index rows, index dim, T* s,
                              index lds) {
  with_stored<T>(k.data, k.kind,
                 [&](auto const* p) { row_scores(p, k.ld, n, q, ldq, rows, dim, s, lds, k.in_memory); });
}

/// Whether bit j is set; without bits, all are.
inline bool is_visible(std::uint64_t const* bits, index j) {
  return bits == nullptr || (bits[j / 64] >> j % 64 & 1U) != 0;
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
    s[j] = is_visible(visible, j) ? s[j] * static_cast<T>(scale[j * stride]) : T(0);
}

/// acc[r] = acc[r] · rescale[r] + Σ_j w[r][j] · v_j over n keys; acc is padded to whole vectors. Sums begin anew with
/// every turn of keys, whatever the number of rows.
template <class Stored, real T>
void row_values(Stored const* v, index ldv, index n, T const* w, index ldw, index rows, index dim_v, T* acc,
                index ldacc, T const* rescale, bool in_memory = false) {
  index const step = impl::keys_in_turn(dim_v * index{sizeof(Stored)});
  for (index j = 0; j < std::max<index>(n, 1); j += step)
    impl::row_groups<std::same_as<Stored, T>>(rows, [&](auto count, index r) {
      impl::sum_rows<decltype(count)::value>(v + j * ldv, ldv, std::min(step, n - j), w + r * ldw + j, ldw, dim_v,
                                             acc + r * ldacc, ldacc, j == 0 ? rescale + r : nullptr, in_memory);
    });
}
template <real T>
HEED_NOINLINE void row_values(stored_rows_at const& v, index n, T const* w, index ldw, index rows, index dim_v, T* acc,
                              index ldacc, T const* rescale) {
  with_stored<T>(v.data, v.kind,
                 [&](auto const* p) { row_values(p, v.ld, n, w, ldw, rows, dim_v, acc, ldacc, rescale, v.in_memory); });
}

/// `row_values` of one row where v holds numbers that are not finite: only keys whose bit is set count. The same sums
/// in the same order.
template <class Stored, real T>
HEED_NOINLINE void guarded_row_values(Stored const* v, index ldv, index n, T const* w, std::uint64_t const* visible,
                                      index dim_v, T* acc, T rescale) {
  index const step = impl::keys_in_turn(dim_v * index{sizeof(Stored)});
  for (index first = 0; first < std::max<index>(n, 1); first += step)
    for (index c = 0; c < dim_v; ++c) {
      T sum = T(0);
      for (index j = first; j < std::min(first + step, n); ++j)
        sum = fma(w[j], is_visible(visible, j) ? static_cast<T>(v[j * ldv + c]) : T(0), sum);
      acc[c] = fma(acc[c], first == 0 ? rescale : T(1), sum);
    }
}
template <real T>
HEED_NOINLINE void guarded_row_values(stored_rows_at const& v, index n, T const* w, std::uint64_t const* visible,
                                      index dim_v, T* acc, T rescale) {
  with_stored<T>(v.data, v.kind,
                 [&](auto const* p) { guarded_row_values(p, v.ld, n, w, visible, dim_v, acc, rescale); });
}

HEED_ISA_END
}  // namespace heed
