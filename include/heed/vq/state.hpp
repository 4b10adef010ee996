#pragma once

#include <heed/vq/attention.hpp>

/// Attention over vector-quantised keys, one token at a time.

namespace heed {
HEED_ISA_BEGIN

/// What decoding keeps of a sequence with vector-quantised keys: a count and a mean value for each code, and the last
/// `recent` keys by themselves.
///
///     vq_state<float> state(book, dim_v, window);
///     // A row of vq_attention(…, causal{}, …):
///     state.step(q, k, v, out, rerope{rotary{freqs, layout::half}, window});
///
/// - Equal to the rows of causal `vq_attention` to rounding, whatever `recent` is.
/// - recent = 0 will do where distance does not matter;
///   rerope wants its window, relative_bias the distances of its table.
/// - Memory: heads_kv · ((codes + 2 recent) · (dim + dim_v) numbers + codes · dim_v doubles), a copy of the codebook,
///   and heads_q · (codes + 2 recent) numbers from the first step on. It does not grow with the length.
/// - One sequence. Copies are deep, and go on independently.
template <real T>
class vq_state {
 public:
  /// @throws argument_error for dim_v < 1 or recent < 0
  vq_state(codebook<T> const& book, index dim_v, index recent = 0) : book_(book), recent_(recent) {
    detail::expect(dim_v >= 1 && recent >= 0, "vq_state: dim_v must be at least 1 and recent at least 0, got ", dim_v,
                   ", ", recent);
    // Twice the places that are in use: the recent keys slide along them, and move back once every `recent` tokens.
    index const rows = codes() + 2 * recent;
    keys_ = tensor<T, 3>({heads(), rows, book_.dim()});
    values_ = tensor<T, 3>({heads(), rows, dim_v});
    single_codes_ = tensor<std::int32_t, 2>({heads(), 2 * recent});
    products_ = tensor<T, 1>({book_.scratch_size()});
    key_ = tensor<T, 1>({book_.dim()});
    value_ = tensor<T, 1>({dim_v});
    counts_ = tensor<index, 2>({heads(), codes()});
    means_ = tensor<double, 3>({heads(), codes(), dim_v});
    for (index h = 0; h < heads(); ++h)
      std::copy_n(&book_.vectors()(h, 0, 0), codes() * book_.dim(), &keys_(h, 0, 0));
  }

  /// Tokens so far.
  index size() const { return size_; }
  index recent() const { return recent_; }

  /// How many keys each code stands for, those of the last `recent` tokens not among them, `[heads_kv, codes]`.
  view<index const, 2> counts() const { return counts_.view(); }
  /// The mean of their values, `[heads_kv, codes, dim_v]`; 0 for a code without keys.
  view<T const, 3> means() const { return {values_.data(), {heads(), codes(), values_.extent(2)}, values_.strides()}; }

  /// All the memory that the state holds.
  std::size_t bytes() const {
    auto const of = [](auto const& x) { return static_cast<std::size_t>(x.size()) * sizeof(*x.data()); };
    return of(counts_) + of(means_) + of(keys_) + of(values_) + of(single_codes_) + of(bias_) + of(products_) +
           of(key_) + of(value_) + book_.bytes();
  }

  /// Takes in the next n tokens: keys `[heads_kv, n, dim]`, or their int32 codes `[heads_kv, n]`, and values
  /// `[heads_kv, n, dim_v]`; rank 2 (codes: rank 1) for a single head.
  /// @throws argument_error for other extents, a key that is not finite or a code out of range;
  /// nothing is taken in then
  template <class K, class V>
  void append(K const& k, V const& v) {
    static_assert(impl::rank_of<V const&> <= 3, "heed: vq_state holds one sequence: v is [heads_kv, n, dim_v]");
    static_assert(std::same_as<arithmetic_t<impl::stored_in<V const&>>, T>,
                  "heed: double goes with double only: v must be double exactly if the codebook is");
    impl::vq_keys<V, K, T> const keys(v, k, book_);
    operand const values = impl::tensor_operand(as_view(v));
    index_array<4> const expected{1, heads(), keys.len(), values_.extent(2)};
    for (std::size_t r = 1; r < 4; ++r)
      detail::expect(values.extents[r] == expected[r], "vq_state: v must be [", expected[1], ", ", expected[2], ", ",
                     expected[3], "], got extent ", values.extents[r], " in place of ", expected[r]);
    for (index h = 0; h < heads(); ++h)
      for (index j = 0; j < keys.len(); ++j)
        check_key(keys, h, j);
    for (index j = 0; j < keys.len(); ++j) {
      make_room();
      for (index h = 0; h < heads(); ++h)
        take(keys, values, h, j);
      ++size_;
      if (recent_ > 0)
        ++end_;
    }
  }

  /// Takes in one token, and lets its queries attend to all tokens so far, itself included: q and out `[heads_q, 1,
  /// …]`, k (or codes) and v `[heads_kv, 1, …]`; rank 2 for a single head. Modifiers are those of `vq_attention`
  /// without offset and lengths; causal says nothing new.
  /// A workspace is that of the attention call over codes and recent keys.
  /// @throws argument_error as `append` and `attention`, or where `recent` is too short for rerope or relative_bias;
  /// the token is not taken in then
  template <class Q, class K, class V, class Out, class... Ms>
    requires tensor_like<Out>
  void step(Q const& q, K const& k, V const& v, Out&& out, Ms const&... ms) {
    impl::check_vq_types<Q, V, T, Ms...>();
    impl::read_modifiers<Ms...> read(ms...);
    impl::check_vq_state_modifiers(&read.flat);
    auto const results = as_view(std::forward<Out>(out));
    impl::vq_reach const reach = impl::reach_of(read.said);
    detail::expect(!reach.any || recent_ > reach.behind, "vq_state: recent must be at least ", reach.behind + 1,
                   " for this rerope or relative_bias, got ", recent_);
    auto const fold = [&](auto const& said, auto const& then) {
      impl::with_problem(impl::as_rank_4(as_view(q)), seen(keys_), seen(values_), said,
                         [&](problem<T>& p, auto const& maps, auto rule, auto entropy) {
                           detail::expect(p.q_len == 1, "vq_state: q must be of one token, got ", p.q_len);
                           impl::fold_results(p, impl::tensor_operand(results), "dim", p.dim_v, "v's");
                           then(p, maps, rule, entropy);
                         });
    };
    fold(read, [](auto const&...) {});
    append(k, v);
    index const position = size_ - 1;
    describe(read.said, as_view(q).extent(impl::rank_of<Q const&> == 2 ? 0 : impl::rank_of<Q const&> - 3), position);
    fold(read, [&](problem<T>& p, auto const& maps, auto rule, auto entropy) {
      inline_executor here;
      impl::run_call<rule(), entropy()>(p, maps, impl::executor_of(read, here), impl::workspace_of(read));
    });
  }

 private:
  index heads() const { return book_.heads(); }
  index codes() const { return book_.codes(); }

  impl::code_means means_of(index head) {
    impl::code_means m;
    m.dim_v = values_.extent(2);
    m.count = &counts_(head, 0);
    m.mean = &means_(head, 0, 0);
    return m;
  }

  /// Codes, and all places up to the last key: `[1, heads_kv, codes + end, columns]`.
  view<T const, 4> seen(tensor<T, 3> const& x) const {
    return {x.data(), {1, heads(), codes() + end_, x.extent(2)}, {0, x.stride(0), x.stride(1), x.stride(2)}};
  }

  template <class Keys>
  void check_key(Keys const& keys, index h, index j) {
    if constexpr (Keys::coded) {
      book_.expect_code("vq_state", keys.codes(0, h, j));
    } else {
      load_key(keys.rows, h, j);
      detail::expect(all_finite(key_.data(), book_.dim(), 1, book_.dim()),
                     "vq_state: k must be finite, got a key of head ", h, " that is not");
    }
  }
  void load_key(operand const& rows, index h, index j) {
    load_rows(rows.at(0, h, j, 0), rows.kind, 0, rows.strides[3], 1, book_.dim(), key_.data(), book_.dim());
  }

  /// Counts the oldest key if `recent` are there, and moves the rest back to the front where the places end.
  void make_room() {
    if (recent_ == 0)
      return;
    if (end_ - begin_ == recent_) {
      for (index h = 0; h < heads(); ++h) {
        index const code = single_codes_(h, begin_);
        means_of(h).add(code, &values_(h, codes() + begin_, 0), &values_(h, code, 0));
      }
      ++begin_;
    }
    if (end_ < 2 * recent_)
      return;
    index const n = end_ - begin_, dim = keys_.extent(2), dim_v = values_.extent(2);
    for (index h = 0; h < heads(); ++h) {
      std::copy_n(&single_codes_(h, begin_), n, &single_codes_(h, 0));
      std::copy_n(&keys_(h, codes() + begin_, 0), n * dim, &keys_(h, codes(), 0));
      std::copy_n(&values_(h, codes() + begin_, 0), n * dim_v, &values_(h, codes(), 0));
    }
    begin_ = 0;
    end_ = n;
  }

  /// One head's key j: into the place at the end, or straight into the counts.
  template <class Keys>
  void take(Keys const& keys, operand const& values, index h, index j) {
    std::int32_t code = 0;
    if constexpr (Keys::coded) {
      code = keys.codes(0, h, j);
    } else {
      load_key(keys.rows, h, j);
      book_.nearest(h, key_.data(), 1, products_.data(), &code);
    }
    index const dim_v = values_.extent(2);
    auto const load_value = [&](T* to) {
      load_rows(values.at(0, h, j, 0), values.kind, 0, values.strides[3], 1, dim_v, to, dim_v);
    };
    if (recent_ == 0) {
      load_value(value_.data());
      means_of(h).add(code, value_.data(), &values_(h, code, 0));
      return;
    }
    single_codes_(h, end_) = code;
    std::copy_n(&book_.vectors()(h, code, 0), book_.dim(), &keys_(h, codes() + end_, 0));
    load_value(&values_(h, codes() + end_, 0));
  }

  /// The call of the token at `position`: its query stands on the last place; codes are the sinks of a window that
  /// leaves out the places before the first recent key.
  void describe(description& d, index heads_q, index position) {
    index const rows = keys_.extent(1), group = heads_q / heads();
    if (bias_.size() != heads_q * rows)
      bias_ = tensor<T, 2>({heads_q, rows});
    for (index h = 0; h < heads_q; ++h)
      impl::write_log_counts(&counts_(h / group, 0), codes(), &bias_(h, 0));
    d.biases.push(make_operand(view<T const, 4>(bias_.data(), {1, heads_q, 1, codes() + end_}, {0, rows, 0, 1})),
                  "biases");
    d.causal = true;
    d.windowed = true;
    d.left = end_ > begin_ ? end_ - begin_ - 1 : 0;
    d.sink_tokens = codes();
    counted_[0] = position;
    counted_[1] = size_;
    d.counted_offsets = number_list(std::span<index const>(counted_.data(), 1));
    d.counted_keys = number_list(std::span<index const>(counted_.data() + 1, 1));
  }

  codebook<T> book_;
  index recent_ = 0;
  index size_ = 0;
  index begin_ = 0, end_ = 0;  // places of the recent keys, from the first after the codes
  tensor<T, 3> keys_;          // [heads_kv, codes + 2 recent, dim]: the codebook, then the places
  tensor<T, 3> values_;        // [heads_kv, codes + 2 recent, dim_v]: means, then the places
  tensor<std::int32_t, 2> single_codes_;
  tensor<index, 2> counts_;  // code_means of every head
  tensor<double, 3> means_;
  tensor<T, 2> bias_;  // [heads_q, codes + 2 recent]
  tensor<T, 1> products_, key_, value_;
  std::array<index, 2> counted_{};
};

HEED_ISA_END
}  // namespace heed
