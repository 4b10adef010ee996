#pragma once

#include <heed/core/amx.hpp>
#include <heed/core/description.hpp>
#include <heed/core/site.hpp>
#include <heed/kernel/band.hpp>
#include <heed/kernel/online.hpp>
#include <heed/kernel/plane.hpp>
#include <heed/kernel/rotate.hpp>

#include <cmath>

/// What the fold hands to the kernels: pointers, extents, strides, and the modifiers' words as numbers.

namespace heed {
HEED_ISA_BEGIN

/// Where results go: rows of any storage.
struct row_sink {
  std::byte* data = nullptr;
  scalar_kind kind = scalar_kind::float32;
  index_array<4> strides{};  // in elements

  std::byte* row(index batch, index head, index i) const {
    return data + (batch * strides[0] + head * strides[1] + i * strides[2]) * size_of(kind);
  }
};

/// How a position becomes a rotation. Plain calls have none, rotary has one product; the rectified codes choose by
/// distance among up to three: near (rel < window), far (rel ≥ window) and far ahead (rel ≤ −window).
/// @see formulas B1, B4
struct position_code {
  enum product { near = 0, far = 1, far_ahead = 2 };

  position_rule rule = position_rule::none;
  rotation turn{nullptr, 0, 1, false};
  double window = 0;
  double slope_inverse = 1;
  index group = 1;
  bool keys_turned = false;  // k holds keys turned for their last product: a cache has done it
  operand near_keys{};       // keys near_begin… turned for the near product, key j at row j mod near_rows
  index near_begin = 0;
  index near_rows = 0;
  bool sees_ahead = true;  // whether rows see keys that are far ahead

  bool rotates() const { return rule != position_rule::none; }
  bool has_far() const { return rotates() && rule != position_rule::rotary; }
  /// Rows of q that a query is turned into: one a product.
  int products() const { return !has_far() ? 1 : sees_ahead ? 3 : 2; }

  /// The product that the distance of a visible key calls for: rel = window is far already.
  product at(index distance) const {
    if (!has_far())
      return near;
    auto const rel = static_cast<double>(distance);
    return rel >= window ? far : sees_ahead && rel <= -window ? far_ahead : near;
  }

  /// Queries are turned for a product by `query_rotation`, as if they stood at `query_turn`.
  rotation query_rotation(product which) const { return slowed(slowness(which)); }
  double query_turn(product which, index position) const {
    auto const p = static_cast<double>(position);
    if (which == near)
      return p;
    double const sign = which == far ? 1 : -1;
    switch (rule) {
    case position_rule::rerope:
      return sign * window;
    case position_rule::leaky_rerope:  // p / k + w − w / k, in units of 1 / k
      return p + sign * window * (slope_inverse - 1);
    case position_rule::self_extend:
      return grouped(p) + sign * (window - grouped(window));
    default:
      return p;
    }
  }

  /// Whether keys must be turned for a product after they are read: far keys of ReRoPE are not turned at all, those of
  /// a cache have been.
  bool turns_keys(product which) const {
    if (!rotates() || (keys_turned && (which != near || !has_far())))
      return false;
    return which == near || rule != position_rule::rerope || turn.attention_factor != 1;
  }
  /// Keys are turned for a product by `key_rotation`, as if they stood at `key_turn`. What is stored may stand at its far
  /// position already, and have the attention factor: near keys then need the rest, of Leaky ReRoPE p − p / k.
  rotation key_rotation(product which) const {
    if (!keys_turned)
      return slowed(slowness(which));
    rotation r = slowed(rule == position_rule::leaky_rerope ? slope_inverse / (slope_inverse - 1) : 1);
    r.attention_factor = 1;
    return r;
  }
  double key_turn(product which, index key) const {
    auto const p = static_cast<double>(key);
    if (rule == position_rule::self_extend)
      return which != near ? grouped(p) : keys_turned ? p - grouped(p) : p;
    return which != near && rule == position_rule::rerope ? 0 : p;
  }

 private:
  double grouped(double position) const { return std::floor(position / static_cast<double>(group)); }
  double slowness(product which) const {
    return which != near && rule == position_rule::leaky_rerope ? slope_inverse : 1;
  }
  rotation slowed(double factor) const {
    rotation r = turn;
    r.slowness = factor;
    return r;
  }
};

/// One call, folded.
template <real T>
struct problem {
  index batch = 0, heads_q = 0, heads_kv = 0, q_len = 0, kv_len = 0, dim = 0, dim_v = 0;
  operand q, k, v;  // [batch, heads, len, channels]
  row_sink out;
  description said;
  planes extra;
  position_code position;
  bool natural = false;         // scores carry natural units, else they are already multiplied by log2 e
  bool counts_rows = false;     // n_i is asked for
  bool on_tiles = false;        // both products run on AMX tiles
  bool distinct_heads = false;  // score maps ask for the head: lanes of different heads must not share a vector

  bool (*user_mask)(void const* maps, site<double> const& at) = nullptr;  // a user's own mask, for one pair
  void const* maps = nullptr;

  index group() const { return heads_q / heads_kv; }
  /// Whether one tile of weights holds all keys, and positions hide none before one that a row sees: value_rows.hpp.
  bool in_one_tile() const {
    return !on_tiles && said.normalizer != normalizer_rule::none && kv_len <= keys_in_one_tile && dim_v >= lanes<T> &&
           said.left == unbounded && !(said.windowed && said.sink_tokens > 0);
  }
  index keys_at_once() const {
    return on_tiles                        ? key_block_on_tiles
           : in_one_tile()                 ? keys_in_one_tile
           : kv_len <= 2 * short_key_block ? short_key_block
                                           : key_block;
  }
  /// All keys and values, as they are stored.
  index bytes_read() const { return batch * heads_kv * kv_len * (dim * size_of(k.kind) + dim_v * size_of(v.kind)); }
  T unit() const { return natural ? log2_e<T> : T(1); }
  double to_nats() const { return natural ? 1.0 : 0.69314718055994530942; }
  bool additive() const { return static_cast<bool>(extra); }

  band band_of(index b) const {
    band r;
    r.kv_len = said.lengths ? said.lengths.whole(b) : kv_len;
    r.offset = said.offset ? *said.offset : said.offsets ? said.offsets.whole(b) : r.kv_len - q_len;
    r.left = said.left;
    r.right = said.causal ? 0 : said.right;
    r.causal = said.causal;
    r.prefix_keys = said.windowed ? said.sink_tokens : 0;
    return r;
  }

  /// What row scales go by: the call's own band, unless its keys stand for many.
  band counted(band b, index at_batch) const {
    if (!said.counted_keys)
      return b;
    b.offset = said.counted_offsets.whole(at_batch);
    b.kv_len = said.counted_keys.whole(at_batch);
    b.left = unbounded;
    b.prefix_keys = 0;
    return b;
  }

  /// n_i, where somebody asks for it.
  index visible_keys(band const& b, index at_batch, index head, index row) const {
    if (!extra.lower_counts && user_mask == nullptr)
      return b.count(row);
    auto const p = static_cast<double>(b.position(row));
    return count_visible(extra, b, at_batch, head, row, [&](index key) {
      auto const j = static_cast<double>(key);
      return user_mask == nullptr || user_mask(maps, site<double>(p, j, p - j, at_batch, head));
    });
  }

  /// scale × row scale, one quotient formed in double: exactly the plain scale where n_i = base.
  double row_factor(index head, index position_of_row, index n) const {
    double const scale = said.scale ? *said.scale : 1 / std::sqrt(static_cast<double>(dim));
    auto const keys = static_cast<double>(n);
    switch (said.row_scale) {
    case row_scale_rule::none:
      return scale;
    case row_scale_rule::log_n:
      return n < 1 ? 0 : scale * (std::log(keys) / std::log(said.row_scale_base));
    case row_scale_rule::log_n_clamped:
      return scale * (std::log(std::max(keys, said.row_scale_minimum)) / std::log(said.row_scale_base));
    case row_scale_rule::log_n_beyond: {
      auto const seen = static_cast<double>(position_of_row + 1);
      return seen <= said.row_scale_base ? scale : scale * (std::log(seen) / std::log(said.row_scale_base));
    }
    case row_scale_rule::scalable:
      return n < 1 ? 0 : scale * (said.row_scale_heads.real(head) * std::log(keys));
    }
    return scale;
  }
};

/// Why nothing of a call can run on tiles, or null.
template <real T>
char const* why_no_tiles(problem<T> const& p) {
  if (!p.said.amx)
    return "not asked for by with_amx";
  if (!has_tiles<T>)
    return std::same_as<T, double> ? "arithmetic is double" : "this build has no AMX";
  return p.said.amx_granted ? nullptr : "the permit was not granted";
}

/// A finished row: what its sums are multiplied with, and its extra outputs.
struct row_result {
  double factor = 0;
  double lse = 0;
  double entropy = 0;
  bool empty = true;
};

/// Ends a row from its state (m, l, u), taking in the sink logit. `n` is the row's visible keys, where asked for.
/// Without a running maximum m only tells whether a score above −inf was seen.
template <normalizer_rule Rule, real T>
row_result finish_row(problem<T> const& p, index head, T m, T l, T u, index n) {
  row_result r;
  if constexpr (Rule == normalizer_rule::squared_relu) {
    double const divisor = p.said.divisor == divisor_rule::fixed     ? p.said.divisor_value
                           : p.said.divisor == divisor_rule::visible ? static_cast<double>(n)
                                                                     : static_cast<double>(l);
    bool const unseen = p.said.divisor == divisor_rule::row_sum || m == -std::numeric_limits<T>::infinity();
    r.empty = l == T(0) && unseen;
    r.factor = divisor == 0 ? 0 : 1 / divisor;
    return r;
  }
  r.empty = l == T(0);  // of keys: a sink does not fill a row
  T share = T(1);
  if (p.said.sink_logits) {
    T const sink = static_cast<T>(p.said.sink_logits.real(head) / p.to_nats());
    T const top = heed::max(m, sink);
    share = rescale_factor<T>(m, top, p.unit());
    T const weight = rescale_factor<T>(sink, top, p.unit());
    u = rescaled_entropy_sum<T>(u, l, m, top, share) + (weight == T(0) ? T(0) : weight * (sink - top));
    l = l * share + weight;
    m = top;
  }
  r.factor = r.empty                               ? 0
             : Rule == normalizer_rule::l2_softmax ? 1 / std::sqrt(static_cast<double>(l))
                                                   : static_cast<double>(share) / static_cast<double>(l);
  if (p.said.lse)
    r.lse = static_cast<double>(m) * p.to_nats() + std::log(static_cast<double>(l));
  if (p.said.entropy)
    r.entropy = static_cast<double>(finished_entropy<T>(l, u, static_cast<T>(p.to_nats())));
  return r;
}

HEED_ISA_END
}  // namespace heed
