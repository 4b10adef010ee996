#pragma once

#include <heed/attention/state.hpp>
#include <heed/cache/kv_cache.hpp>
#include <heed/kernel/row_products.hpp>

#include <vector>

/// Attention as a recurrent network: one query reads all that went before, key by key, and remembers dim_v + 2 numbers.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// One token's row as `[1, heads, 1, channels]`: a pointer, a contiguous range of heads · channels numbers, or anything
/// `as_view` knows, of rank 1 `[heads · channels]`, 2 `[heads, channels]`, 3 `[heads, 1, channels]` or 4.
template <class Row>
auto token_row(char const* what, Row&& row, index heads, index channels) {
  using row_type = std::remove_cvref_t<Row>;
  auto const flat = [&](auto* data, index stride) {
    using element = std::remove_pointer_t<decltype(data)>;
    return view<element, 4>(data, {1, heads, 1, channels}, {0, channels * stride, 0, stride});
  };
  auto const expect_size = [&](index got) {
    detail::expect(got == heads * channels, "recurrent_attention: ", what, " must have ", heads, " * ", channels,
                   " numbers, got ", got);
  };
  if constexpr (std::is_pointer_v<row_type>) {
    return flat(row, 1);
  } else if constexpr (tensor_like<Row>) {
    auto const v = as_view(std::forward<Row>(row));
    constexpr int rank = decltype(v)::rank;
    expect_size(v.size());
    index const last = v.extent(rank - 1);
    if constexpr (rank == 1) {
      return flat(v.data(), v.stride(0));
    } else if (rank == 2 && (last == 1 || v.extent(0) == 1)) {  // a column or a row
      return flat(v.data(), last == 1 ? v.stride(0) : v.stride(1));
    } else {
      constexpr int of_heads = rank == 2 ? 0 : rank - 3;
      detail::expect(v.extent(of_heads) == heads && last == channels, "recurrent_attention: ", what, " must have ",
                     heads, " heads of ", channels, " numbers, got ", v.extent(of_heads), " of ", last);
      return view<std::remove_pointer_t<decltype(v.data())>, 4>(v.data(), {1, heads, 1, channels},
                                                                {0, v.stride(of_heads), 0, v.stride(rank - 1)});
    }
  } else {
    static_assert(std::ranges::contiguous_range<row_type>,
                  "heed: a token's row is a pointer, a contiguous range of numbers or a tensor");
    expect_size(static_cast<index>(std::ranges::size(row)));
    return flat(std::ranges::data(row), 1);
  }
}

template <class... Ms>
constexpr void check_recurrent_modifiers(std::tuple<Ms const&...> const*) {
  static_assert(
      ((family_of<Ms>() != family::offset && family_of<Ms>() != family::lengths) && ...),
      "heed: recurrent_attention takes no offset or lengths: query i stands at position i and reads keys 0 to i");
  static_assert(
      ((family_of<Ms>() != family::executor && family_of<Ms>() != family::workspace) && ...),
      "heed: recurrent_attention takes no on{…} or with{…}: it walks on the calling thread in its own memory");
  static_assert(((family_of<Ms>() != family::amx) && ...),
                "heed: recurrent_attention takes no with_amx: it reads row by row");
}

template <class... Ms>
inline constexpr bool names_position = ((family_of<Ms>() == family::position) || ...);
template <class... Ms>
inline constexpr bool names_position<std::tuple<Ms const&...>> = names_position<Ms...>;

}  // namespace impl

/// Causal softmax attention as a recurrent network of quadratic cost (formulas C7): for every token it reads the whole
/// history again,
///
///     (y, z) ← (y, z) + e^(q_i·k_j) (v_j, 1),  j = 0 … i,      o_i = y / z
///
/// carrying the running maximum besides: dim_v + 2 numbers a query head, whatever the length.
///
///     recurrent_attention<float> rnn(dim, dim_v);
///     rnn.reread(q_i, i, [&](index j) { return std::pair(key_of(token[j]), value_of(token[j])); }, o_i, rotary{…});
///     rnn.step(q_i, k_i, v_i, cache, o_i, rotary{…});      // appends to the caller's kv_cache, then rereads it
///
/// - The result is that of `attention(q_i, keys 0…i, values 0…i, out, the same modifiers…)`, the query as the last row:
///   tensors of modifiers have one row (mask `[…, 1, i + 1]`, lse and gate likewise). Bits may differ.
/// - `source(j)` returns a pair, tuple or struct of two rows, key and value: pointers, contiguous ranges or tensors, by
///   value or not, `[heads_kv, dim]` and `[heads_kv, dim_v]`, in any storage, of one layout throughout. It is called in
///   the order of j, once for each key that causal, window and sink_tokens leave visible.
/// - Refused at compile time: offset, lengths, on, with.
/// - Memory: the object's own, taken by its constructor and its first call, independent of the length.
/// - Not for two threads at a time.
/// @see Su, kexue.fm/archives/10017; Rabe and Staats 2021, arXiv 2112.05682
template <real T>
class recurrent_attention {
 public:
  /// @throws argument_error for extents below 1, or heads_q not a multiple of heads_kv
  explicit recurrent_attention(index dim, index dim_v, index heads_q = 1, index heads_kv = 1)
      : dim_(dim), dim_v_(dim_v), heads_q_(heads_q), heads_kv_(heads_kv) {
    detail::expect(dim >= 1 && dim_v >= 1 && heads_q >= 1 && heads_kv >= 1 && heads_q % heads_kv == 0,
                   "recurrent_attention: dim, dim_v and heads must be at least 1 and heads_kv divide heads_q, got ",
                   dim, ", ", dim_v, ", ", heads_q, ", ", heads_kv);
    state_.resize(static_cast<std::size_t>(heads_q * softmax_state<T>::numbers(dim_v, true)));
    queries_.resize(static_cast<std::size_t>(2 * heads_q * padded_dim()));
    scores_.resize(static_cast<std::size_t>(score_room * heads_q / heads_kv));
  }

  /// out = the attention of query i over keys 0…i, each asked of `source` when its turn comes.
  /// @throws argument_error for extents that do not fit, before the first call of `source`
  template <class Q, class Source, class Out, class... Ms>
  void reread(Q const& q, index i, Source&& source, Out&& out, Ms const&... ms) {
    detail::expect(i >= 0, "recurrent_attention: i must not be negative, got ", i);
    folded(
        q, i, std::forward<Out>(out),
        [&](problem<T>& p, auto const& maps, auto rule, auto entropy) { walk<rule(), entropy()>(p, maps, source); },
        ms...);
  }

  /// Appends key and value to the cache and reads it all: out = the attention of its last row. The cache may keep raw
  /// keys (then a position code may be among the modifiers) or keys turned for a code of its own.
  /// @throws argument_error before anything is appended
  template <class Q, class K, class V, class Stored, class Out, class... Ms>
  void step(Q const& q, K const& k, V const& v, kv_cache<Stored>& cache, Out&& out, Ms const&... ms) {
    static_assert(storage_scalar<Stored>, "heed: recurrent_attention rereads rows of float, double, half or bfloat16");
    static_assert(std::same_as<arithmetic_t<Stored>, T>,
                  "heed: double goes with double only: the cache's scalar differs");
    if constexpr (impl::names_position<typename impl::read_modifiers<Ms...>::flat_type>) {
      description kept;
      cache.describe(kept);
      detail::expect(kept.position.rule == position_rule::none,
                     "recurrent_attention: step takes a position code, or a cache that has one, not both");
      step_with(q, k, v, cache, out, ms...);
    } else {
      step_with(q, k, v, cache, out, impl::position_of_cache<Stored>{&cache}, ms...);
    }
  }

  /// Keys read so far, over all calls.
  index visited() const { return visited_; }

  /// What is carried from key to key, in scalars: heads_q · (dim_v + 2), or + 3 where the entropy is wanted.
  index state_numbers(bool entropy = false) const { return heads_q_ * softmax_state<T>::numbers(dim_v_, entropy); }

  /// All memory that the object holds.
  std::size_t memory_bytes() const {
    return (state_.capacity() + queries_.capacity() + scores_.capacity()) * sizeof(T) + scratch_.size();
  }

 private:
  index padded_dim() const { return round_up<index>(dim_, lanes<T>); }

  template <class Q, class K, class V, class Stored, class Out, class... Ms>
  void step_with(Q const& q, K const& k, V const& v, kv_cache<Stored>& cache, Out& out, Ms const&... ms) {
    index const i = cache.size();
    folded(q, i, out, [](auto&, auto const&, auto, auto) {}, ms...);  // refuse before the cache changes
    auto const key = impl::token_row("k", k, heads_kv_, dim_);
    auto const value = impl::token_row("v", v, heads_kv_, dim_v_);
    auto const rows = [](auto const& x) {
      return view<std::remove_pointer_t<decltype(x.data())> const, 3>(x.data(), {x.extent(1), 1, x.extent(3)},
                                                                      {x.stride(1), 0, x.stride(3)});
    };
    cache.append(rows(key), rows(value));
    auto const row_of = [](view<Stored const, 3> const& all, index j) {
      return view<Stored const, 2>(&all(0, j, 0), {all.extent(0), all.extent(2)}, {all.stride(0), all.stride(2)});
    };
    reread(q, i, [&](index j) { return std::pair(row_of(cache.keys(), j), row_of(cache.values(), j)); }, out, ms...);
  }

  /// Reads the modifiers as `attention` does and calls f(problem, maps, constant rule, constant entropy).
  template <class Q, class Out, class F, class... Ms>
  void folded(Q const& q, index i, Out&& out, F&& f, Ms const&... ms) {
    using read_type = impl::read_modifiers<Ms...>;
    impl::check_recurrent_modifiers(static_cast<typename read_type::flat_type const*>(nullptr));
    read_type const read(ms...);
    auto const query = impl::token_row("q", q, heads_q_, dim_);
    auto const result = impl::token_row("out", std::forward<Out>(out), heads_q_, dim_v_);
    using stored = std::remove_pointer_t<decltype(result.data())>;
    static_assert(!std::is_const_v<stored>, "heed: out must not be const");
    static_assert(std::same_as<arithmetic_t<typename decltype(query)::value_type>, T> &&
                      std::same_as<arithmetic_t<stored>, T>,
                  "heed: double goes with double only: q and out must be double exactly if recurrent_attention is");
    // Keys and values come later, one by one; until then any memory of ours has their extents.
    view<T const, 4> const keys(state_.data(), {1, heads_kv_, i + 1, dim_}, {0, 0, 0, 0});
    view<T const, 4> const values(state_.data(), {1, heads_kv_, i + 1, dim_v_}, {0, 0, 0, 0});
    impl::with_problem(view<typename decltype(query)::value_type const, 4>(query), keys, values, read,
                       [&](problem<T>& p, auto const& maps, auto rule, auto entropy) {
                         impl::fold_results(p, impl::tensor_operand(result), "dim_v", dim_v_, "v's");
                         f(p, maps, rule, entropy);
                       });
  }

  template <normalizer_rule Rule, bool Entropy, class Maps, class Source>
  void walk(problem<T>& p, Maps const& maps, Source& source) {
    p.natural = true;
    p.k.kind = p.v.kind = scalar_kind::float16;  // until the first key is here: converted, the most scratch
    band const sees = p.band_of(0);
    index const i = p.kv_len - 1;
    arena counting;
    lay_out(counting, p, true);
    scratch_.reserve(counting.used());
    arena memory(scratch_.data());
    auto const [turning, writer] = lay_out(memory, p, false);
    pack(p, sees, turning);
    for (index h = 0; h < heads_q_; ++h)
      softmax_state<T>(state_of(h), dim_v_, true).clear();

    std::optional<key_tiles<T>> tiles;
    for (index j = 0; j <= i; ++j) {
      if (!sees.sees(0, j))
        continue;
      auto&& [key, value] = source(j);
      ++visited_;
      index const key_stride = p.k.strides[3], value_stride = p.v.strides[3];
      place(p.k, impl::token_row("source's key", key, heads_kv_, dim_));
      place(p.v, impl::token_row("source's value", value, heads_kv_, dim_v_));
      if (!tiles)
        tiles.emplace(memory, p, turning, 1);
      else
        detail::expect(p.k.strides[3] == key_stride && p.v.strides[3] == value_stride,
                       "recurrent_attention: source's rows must all have one stride between channels");
      for (index g = 0; g < heads_kv_; ++g)
        read_key<Rule, Entropy>(p, maps, sees, *tiles, g, j);
    }
    for (index h = 0; h < heads_q_; ++h)
      finish<Rule, Entropy>(p, sees, writer, h);
  }

  struct layout_of_scratch {
    turners<T>* turning;
    row_writer<T> writer;
  };

  /// The scratch of a walk: with `all`, the key and value rows too, which `walk` takes later.
  layout_of_scratch lay_out(arena& memory, problem<T> const& p, bool all) const {
    if (memory)
      turners<T>::begin(memory, p);
    turners<T>* const turning = turners<T>::in(memory, p);
    layout_of_scratch const r{turning, row_writer<T>(memory, p)};
    if (all)
      key_tiles<T>(memory, p, turning, 1);
    return r;
  }

  /// A row of the source in place of all keys: stride 0 along them.
  template <class Stored>
  static void place(operand& all, view<Stored, 4> const& row) {
    static_assert(std::same_as<arithmetic_t<std::remove_const_t<Stored>>, T>,
                  "heed: double goes with double only: the source's rows differ");
    all.data = reinterpret_cast<std::byte const*>(row.data());
    all.kind = kind_of<std::remove_const_t<Stored>>();
    all.strides = row.strides();
  }

  /// Queries as the products want them: turned, scaled, padded. A causal walk has no keys ahead.
  void pack(problem<T> const& p, band const& sees, turners<T>* turning) {
    auto const which = [](int product) { return static_cast<position_code::product>(product); };
    int const products = std::min(2, p.position.products());
    index const position = sees.position(0);
    for (int product = 0; product < products; ++product)
      for (index h = 0; h < heads_q_; ++h)
        load_query(p, turning, which(product), 0, h, 0, position, query(which(product), h), padded_dim());
    for (index h = 0; h < heads_q_; ++h) {
      index const n = p.counts_rows ? p.visible_keys(sees, 0, h, 0) : 0;
      auto const factor = static_cast<T>(p.row_factor(h, position, n));
      for (int product = 0; product < products; ++product)
        for (index c = 0; c < dim_; ++c)
          query(which(product), h)[c] *= factor;
    }
  }

  T* query(position_code::product which, index head) {
    return queries_.data() + ((which == position_code::near ? 0 : heads_q_) + head) * padded_dim();
  }
  std::span<T> state_of(index head) {
    auto const n = static_cast<std::size_t>(softmax_state<T>::numbers(dim_v_, true));
    return {state_.data() + static_cast<std::size_t>(head) * n, n};
  }

  /// One key, for all query heads that share it.
  template <normalizer_rule Rule, bool Entropy, class Maps>
  void read_key(problem<T> const& p, Maps const& maps, band const& sees, key_tiles<T>& tiles, index g, index j) {
    index const group = p.group(), position = sees.position(0);
    auto const which = p.position.at(position - j);
    tiles.open(0, g, {j, j + 1});
    row_scores(tiles.keys(which, j).data, index{0}, index{1}, query(which, g * group), padded_dim(), group, dim_,
               scores_.data(), score_room);
    T const* const value = tiles.values().data;
    for (index r = 0; r < group; ++r) {
      T s = scores_[static_cast<std::size_t>(score_room * r)];
      if (modified(p, maps, g * group + r, position, j, s))
        take<Rule, Entropy>(g * group + r, s, value);
    }
  }

  /// Softcap, planes, maps and masks on one score; whether the key is visible.
  template <class Maps>
  bool modified(problem<T> const& p, Maps const& maps, index head, index position, index j, T& s) const {
    site<T> const at(static_cast<T>(position), static_cast<T>(j), static_cast<T>(position - j), 0, head);
    s = maps.template apply<score_stage::softcap>(s, at);
    bool seen = true;
    if (p.additive()) {
      T plane, spare;
      fill_planes(p.extra, 0, head, 0, position, j, 1, &plane, &spare);
      s += plane;
      seen = plane != -std::numeric_limits<T>::infinity();
    }
    s = maps.template apply<score_stage::bias>(s, at);
    s = maps.template apply<score_stage::function>(s, at);
    return static_cast<bool>(maps.visible(seen, at));
  }

  /// A visible key's score and value into the head's state.
  template <normalizer_rule Rule, bool Entropy>
  void take(index head, T s, T const* value) {
    std::span<T> const state = state_of(head);
    if constexpr (Rule == normalizer_rule::softmax) {
      softmax_state<T>(state, dim_v_, Entropy).push(s, value);
    } else {
      T r = T(1), w = heed::max(s, T(0));
      if constexpr (Rule == normalizer_rule::l2_softmax) {
        T const top = heed::max(s, state[0]);
        r = rescale_factor<T>(state[0], top, log2_e<T>);
        w = rescale_factor<T>(s, top, log2_e<T>);
        state[0] = top;
        state[1] = state[1] * r * r + w * w;
      } else {
        w *= w;
        state[0] = heed::max(s, state[0]);
        state[1] += w;
      }
      for (index c = 0; c < dim_v_; ++c) {
        T& sum = state[static_cast<std::size_t>(2 + c)];
        sum = heed::fma(value[c], w, sum * r);
      }
    }
  }

  template <normalizer_rule Rule, bool Entropy>
  void finish(problem<T> const& p, band const& sees, row_writer<T> const& writer, index head) {
    std::span<T> const state = state_of(head);
    T* const row = state.data() + 2;
    index const n = p.counts_rows ? p.visible_keys(sees, 0, head, 0) : 0;
    T const spread = Entropy ? row[dim_v_] : T(0);
    row_result const result = finish_row<Rule>(p, head, state[0], state[1], spread, n);
    for (index c = 0; c < dim_v_; ++c)
      row[c] *= static_cast<T>(result.factor);
    writer.finish(0, head, 0, result, row);
  }

  index dim_, dim_v_, heads_q_, heads_kv_;
  index visited_ = 0;
  std::vector<T> state_;    // [heads_q][dim_v + 3]: m, l, acc, and u where the entropy is wanted
  std::vector<T> queries_;  // [near, far][heads_q][padded dim]
  std::vector<T> scores_;   // [group][score_room]
  workspace scratch_;
};

HEED_ISA_END
}  // namespace heed
