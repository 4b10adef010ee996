#pragma once

#include <heed/core/operand.hpp>

#include <array>
#include <optional>

namespace heed {

/// A few things of one kind, in the order they were named; a call is refused beyond the capacity.
template <class T, std::size_t Capacity>
struct short_list {
  std::array<T, Capacity> items{};
  std::size_t count = 0;

  void push(T const& item, char const* what) {
    detail::expect(count < Capacity, "attention: at most ", Capacity, " ", what, " in one call");
    items[count++] = item;
  }
  T const* begin() const { return items.data(); }
  T const* end() const { return items.data() + count; }
  bool empty() const { return count == 0; }
};

/// The factor a row's scores are multiplied with, besides `scale` (formulas A2). n_i: the row's visible keys.
enum class row_scale_rule {
  none,           // 1
  log_n,          // ln n_i / ln base
  log_n_clamped,  // ln max(n_i, minimum) / ln base
  log_n_beyond,   // max(1, ln(position + 1) / ln base)
  scalable        // s_h · ln n_i
};

/// `none`: the scores themselves are wanted.
enum class normalizer_rule { softmax, squared_relu, l2_softmax, none };
enum class divisor_rule { fixed, visible, row_sum };

/// How distance turns into an angle (formulas B1, B4).
enum class position_rule { none, rotary, rerope, leaky_rerope, self_extend };

struct position_description {
  position_rule rule = position_rule::none;
  double const* theta = nullptr;  // one angle per pair of channels
  index pairs = 0;
  double attention_factor = 1;  // multiplies cos and sin of q and of k
  bool interleaved = false;     // pairs (2t, 2t + 1), or else (t, t + pairs)
  double window = 0;            // rerope, leaky_rerope, self_extend: distances from here on are "far"
  double slope_inverse = 1;     // leaky_rerope: k
  index group = 1;              // self_extend

  // What a cache has turned already: k holds keys turned for their last product (rotary: near, else far), and
  // `near_keys` the keys from `near_begin` on, turned for the near one, key j at row j mod `near_rows`.
  bool keys_turned = false;
  operand near_keys{};
  index near_begin = 0;
  index near_rows = 0;
};

/// What the modifiers of one call say, as plain data: every modifier writes its part (`describe`), and its readers are
/// the fold in front of the kernels and, quite apart from it, the reference. What a score map computes (`score`, a
/// user's own modifier) is not data and stays in the modifier's type.
struct description {
  // where the queries stand, and what they may see
  std::optional<index> offset;  // position of query 0; default kv_len − q_len, or lengths[b] − q_len
  number_list offsets;          // the same, per batch
  bool causal = false;
  bool windowed = false;
  index left = unbounded;
  index right = unbounded;
  index sink_tokens = 0;
  number_list lengths;
  std::optional<view<std::int32_t const, 2>> query_segments;
  std::optional<view<std::int32_t const, 2>> key_segments;
  short_list<operand, 8> masks;

  // what happens to a score
  std::optional<double> scale;  // default 1 / √dim
  row_scale_rule row_scale = row_scale_rule::none;
  double row_scale_base = 0;
  double row_scale_minimum = 1;
  number_list row_scale_heads;
  // A call whose keys stand for many (vq): row scales count by this band instead of the call's own. Per batch.
  number_list counted_offsets;  // position of query 0
  number_list counted_keys;     // keys that exist
  std::optional<double> softcap;
  short_list<operand, 8> biases;
  bool alibi = false;
  number_list alibi_slopes;  // empty with `alibi` set: the standard slopes for alibi_heads
  index alibi_heads = 0;
  std::optional<operand> relative_bias;  // [1, 1, heads or 1, n]
  index relative_bias_first = 0;
  position_description position;

  // from scores to outputs
  normalizer_rule normalizer = normalizer_rule::softmax;
  divisor_rule divisor = divisor_rule::row_sum;
  double divisor_value = 1;
  number_list sink_logits;
  operand gate;
  row_output lse;
  row_output entropy;

  // where it may run
  bool amx = false;          // with_amx was named
  bool amx_granted = false;  // with a permit that holds
};

}  // namespace heed
