#pragma once

#include <heed/attention/modifiers.hpp>
#include <heed/kernel/exp.hpp>

/// What may follow the tensors of `linear_attention`, besides causal, offset, lengths, scale, rotary, gate,
/// on and with.

namespace heed {

/// Numbers for every token, `[batch, heads, len]` or one dimension less or more:
/// what they are and in which rank they came.
struct token_numbers {
  operand values;  // right-aligned
  int rank = 0;

  token_numbers() = default;
  template <class T, int Rank>
  explicit token_numbers(view<T, Rank> const& given) : values(make_operand(given)), rank(Rank) {
    static_assert(storage_scalar<std::remove_const_t<T>>,
                  "heed: log_decay and delta hold float, double, Eigen::half or Eigen::bfloat16");
  }
};

/// What the modifiers of linear attention alone say, as plain data.
struct linear_description {
  bool normalized = true;
  number_list decay;  // per key head
  token_numbers log_decay, delta;
  operand state_in, sums_in;
  operand state_out, sums_out;
  index keys_before = 0;
};

HEED_ISA_BEGIN

/// A modifier of linear attention, and of nothing else: `attention` refuses it.
template <class M>
concept linear_modifier = requires(M const& m, linear_description& d) { m.describe(d); } && requires { M::part; };

enum class linear_part { map, normalization, decay, delta, state_in, state_out };

// --- feature maps: called with a SIMD batch of channels ------------------------------------------------------------

/// φ(x) = elu(x) + 1, the default.
/// @see Katharopoulos et al. 2020, arXiv 2006.16236; formulas C4
struct elu_plus_one {
  static constexpr auto part = linear_part::map;
  void describe(linear_description&) const {}

  template <class S>
  S operator()(S const& x) const {
    S const zero(impl::as_scalar<S>(0));
    return heed::select(x > zero, x + S(impl::as_scalar<S>(1)), heed::exp(heed::min(zero, x)));
  }
};

/// φ(x) = e^x.
/// @see kexue.fm/archives/8338
struct exponential {
  static constexpr auto part = linear_part::map;
  void describe(linear_description&) const {}

  template <class S>
  S operator()(S const& x) const {
    return heed::exp(x);
  }
};

/// φ(x) = x: retention, ONNX's LinearAttention. Give `unnormalized{}` with it: signed features may sum to 0.
struct identity {
  static constexpr auto part = linear_part::map;
  void describe(linear_description&) const {}

  template <class S>
  S operator()(S const& x) const {
    return x;
  }
};

/// A feature map of your own: per channel, `f(x)` with x a SIMD batch; or, with a number of features, per row:
/// `f(row, dim, features)` with pointers to dim numbers and to where the features go. const, noexcept.
///
///     feature_map{[](auto x) { return x * x; }}
///     feature_map{256, [&](auto const* x, index dim, auto* phi) { random_features(x, dim, phi); }}
template <class F>
struct feature_map {
  static constexpr auto part = linear_part::map;

  explicit feature_map(F f) : function(std::move(f)) {}
  feature_map(index features, F f) : count(features), function(std::move(f)) {
    detail::expect(features >= 1, "linear_attention: feature_map must make at least 1 feature, got ", features);
  }

  void describe(linear_description&) const {}

  index count = 0;  // 0: one feature per channel
  F function;
};
template <class F>
feature_map(F) -> feature_map<F>;
template <class F>
feature_map(index, F) -> feature_map<F>;

// --- what is summed ------------------------------------------------------------------------------------------------

/// Rows are divided by the sum of their weights, the default; a row whose weights sum to 0 is 0.
struct normalized {
  static constexpr auto part = linear_part::normalization;
  void describe(linear_description& d) const { d.normalized = true; }
};
/// Rows stay sums: `out = scale · φ(q) S`.
struct unnormalized {
  static constexpr auto part = linear_part::normalization;
  void describe(linear_description& d) const { d.normalized = false; }
};

/// Retention: the weight of key j in row i is multiplied by `γ_g^(position − j)`, one γ in [0, 1] per key head; causal
/// calls only.
/// @see Sun et al. 2023, arXiv 2307.08621; formulas C4
struct decay {
  static constexpr auto part = linear_part::decay;

  template <class Range>
    requires(!std::same_as<std::remove_cvref_t<Range>, decay>)
  explicit decay(Range const& per_key_head) : heads(per_key_head) {}

  void describe(linear_description& d) const { d.decay = heads; }

  number_list heads;
};

/// Decay that depends on the token: before key t enters, the state is multiplied by `exp(log_decay_t)`. One number per
/// token, `[batch, heads_kv, kv_len]` (the rank of k less one), or one per feature, `[batch, heads_kv, kv_len,
/// features]`; extents of 1 broadcast. Causal calls only.
/// @see Yang et al. 2023, arXiv 2312.06635; ONNX LinearAttention, update_rule "gated"
struct log_decay {
  static constexpr auto part = linear_part::decay;

  template <class Tensor>
    requires(!std::same_as<std::remove_cvref_t<Tensor>, log_decay>)
  explicit log_decay(Tensor const& gates) : tokens(as_view(gates)) {}

  void describe(linear_description& d) const { d.log_decay = tokens; }

  token_numbers tokens;
};

/// The delta rule: key t writes `β_t (v_t − Sᵀ φ(k_t))` instead of v_t. One β per token, `[batch, heads_kv, kv_len]`,
/// extents of 1 broadcast. Causal and unnormalised calls only; rows are taken one by one.
/// @see Yang et al. 2024, arXiv 2406.06484; ONNX LinearAttention, update_rules "delta" and "gated_delta"
struct delta {
  static constexpr auto part = linear_part::delta;

  template <class Tensor>
    requires(!std::same_as<std::remove_cvref_t<Tensor>, delta>)
  explicit delta(Tensor const& rates) : tokens(as_view(rates)) {}

  void describe(linear_description& d) const { d.delta = tokens; }

  token_numbers tokens;
};

/// What earlier calls have summed: S `[batch, heads_kv, features, dim_v]` and, for normalised rows, z
/// `[batch, heads_kv, features]`. `keys`: how many keys are in it; only `rotary` asks, to go on counting.
struct state_in {
  static constexpr auto part = linear_part::state_in;

  template <class S>
  explicit state_in(S const& state, index keys = 0) : values(make_operand(as_view(state))), before(keys) {}
  template <class S, class Z>
    requires(!std::integral<Z>)
  state_in(S const& state, Z const& sums, index keys = 0)
      : values(make_operand(as_view(state))), row(impl_row(as_view(sums))), before(keys) {}

  void describe(linear_description& d) const {
    d.state_in = values;
    d.sums_in = row;
    d.keys_before = before;
  }

  operand values, row;
  index before;

 private:
  friend struct state_out;
  template <class T, int Rank>
  static operand impl_row(view<T, Rank> const& sums) {
    static_assert(Rank <= 3, "heed: z is [batch, heads_kv, features]");
    return make_operand(sums);
  }
};

/// Where the sums after the last key go; shapes as for `state_in`, whose memory it may be.
struct state_out {
  static constexpr auto part = linear_part::state_out;

  template <class S>
    requires(!std::same_as<std::remove_cvref_t<S>, state_out>)
  explicit state_out(S&& state) : values(writable(as_view(state))) {}
  template <class S, class Z>
  state_out(S&& state, Z&& sums) : values(writable(as_view(state))), row(state_in::impl_row(as_view(sums))) {
    writable(as_view(sums));
  }

  void describe(linear_description& d) const {
    d.state_out = values;
    d.sums_out = row;
  }

  operand values, row;

 private:
  template <class T, int Rank>
  static operand writable(view<T, Rank> const& v) {
    static_assert(!std::is_const_v<T>, "heed: state_out writes to its tensors, and this one is const");
    return make_operand(v);
  }
};

namespace impl {

/// φ of one row: dim numbers into `features` numbers.
template <class Map, real T>
HEED_NOINLINE void map_row(Map const& map, T const* x, index dim, T* phi) {
  index c = 0;
  for (; c + lanes<T> <= dim; c += lanes<T>)
    store(phi + c, map(load(x + c)));
  if (c < dim)
    store_first(phi + c, batch<T>(map(load_first(x + c, dim - c))), dim - c);
}
template <class F, real T>
void map_row(feature_map<F> const& map, T const* x, index dim, T* phi) {
  if constexpr (requires { map.function(x, dim, phi); })
    map.function(x, dim, phi);
  else
    map_row(map.function, x, dim, phi);
}
template <real T>
void map_row(identity const&, T const* x, index dim, T* phi) {
  std::copy_n(x, dim, phi);
}

template <class Map>
index features_of(Map const&, index dim) {
  return dim;
}
template <class F>
index features_of(feature_map<F> const& map, index dim) {
  return map.count == 0 ? dim : map.count;
}

}  // namespace impl

HEED_ISA_END
}  // namespace heed
