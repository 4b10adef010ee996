#pragma once

#include <heed/attention/attention.hpp>
#include <heed/cache/kept_rows.hpp>
#include <heed/position/rerope.hpp>

#include <memory>
#include <optional>

namespace heed {
HEED_ISA_BEGIN

/// Keys and values of one sequence, as decoding needs them: appended row by row, keys turned once when they come in.
///
///     kv_cache<float> cache(heads_kv, dim, dim_v, capacity, rerope{rotary{freqs, layout::half}, 1024});
///     cache.append(k, v);                          // [heads_kv, n, dim], [heads_kv, n, dim_v]
///     attention(q, cache, out, causal{});          // q, out: [heads_q, q_len, …], the last rows of the sequence
///
/// | position code | what is kept of a key |
/// |---|---|
/// | none | the key as it came; a call may name a code, which then turns the raw keys on their way in |
/// | rotary | the turned key |
/// | rerope, leaky_rerope, self_extend | the key turned for far queries (ReRoPE: raw); also the last `window` near ones |
///
/// - Memory: capacity · heads_kv · (dim + dim_v) scalars, plus 2 · window · heads_kv · dim for the ring; all of it
///   taken by the constructor. No step turns the cache again.
/// - T is float, double, Eigen::half or Eigen::bfloat16; or int8, with a float scale for each key and each value (see
///   `quantize`): a quarter of float's memory. The ring of near keys is float then.
/// - Nothing is locked: appending and reading at once is the caller's to order.
template <cache_scalar T>
class kv_cache {
 public:
  /// Raw keys.
  kv_cache(index heads_kv, index dim, index dim_v, index capacity)
      : keys_(checked("heads_kv, dim and capacity", heads_kv, capacity, dim)),
        values_(checked("heads_kv, dim_v and capacity", heads_kv, capacity, dim_v)), ring_(heads_kv, 0, dim),
        row_({std::max(dim, dim_v)}) {}

  /// Keys turned as `code` wants them: rotary, rerope, leaky_rerope or self_extend.
  /// @throws argument_error if the code does not fit dim
  template <class Code>
    requires(std::remove_cvref_t<Code>::kind == family::position)
  kv_cache(index heads_kv, index dim, index dim_v, index capacity, Code const& code)
      : kv_cache(heads_kv, dim, dim_v, capacity) {
    code_ = std::make_unique<kept_code<Code>>(code);
    description said;
    code.describe(said);
    impl::check_position_code(said.position, dim);
    position_code const what = position();
    turning_ = tensor<double, 1>({static_cast<index>(rotator<number>::scratch_bytes(what.turn.pairs) / 8 + 1)});
    if (what.has_far()) {
      ring_rows_ = std::min(static_cast<index>(std::ceil(what.window)), std::max<index>(capacity, 1));
      ring_ = kept_rows<near_key>(heads_kv, 2 * ring_rows_, dim);
    }
  }

  /// Whether keys are kept as a position code wants them; else they are raw, and a call may name its own code.
  bool has_position_code() const { return code_ != nullptr; }

  index heads_kv() const { return keys_.heads(); }
  index size() const { return size_; }
  index capacity() const { return keys_.capacity(); }

  /// [heads_kv, size, dim], as they are kept: a view, or a quantized_view of int8.
  auto keys() const { return keys_.first(size_); }
  /// [heads_kv, size, dim_v]
  auto values() const { return values_.first(size_); }

  /// Takes in the next n keys and values, `[heads_kv, n, dim]` and `[heads_kv, n, dim_v]`; rank 2 for a single head.
  /// @throws argument_error for other extents, beyond the capacity, or, where int8 is kept, for numbers that are not
  ///   finite; nothing is taken in then
  template <class K, class V>
  void append(K const& k, V const& v) {
    operand const key_rows = impl::tensor_operand(as_view(k)), value_rows = impl::tensor_operand(as_view(v));
    index const n = key_rows.extents[2];
    check_rows("k", key_rows, keys_, n);
    check_rows("v", value_rows, values_, n);
    detail::expect(size_ + n <= capacity(), "kv_cache: capacity must be at least ", size_ + n, " for this append, got ",
                   capacity());
    position_code const code = position();
    auto const kept = code.has_far() ? position_code::far : position_code::near;
    std::optional<rotator<number>> turning = turning_for(code, kept);
    for (index i = 0; i < n; ++i) {  // into rows that nobody reads until the size grows
      each_key(turning, code.key_turn(kept, size_ + i), key_rows, i, [&](index h) { keep("k", h, i, keys_); });
      for (index h = 0; h < heads_kv(); ++h) {
        read(value_rows, h, i);
        keep("v", h, i, values_);
      }
    }
    if (ring_rows_ > 0)
      keep_near(code, key_rows);
    size_ += n;
  }

  /// Forgets all but the first n keys.
  /// @throws argument_error unless 0 ≤ n ≤ size()
  void truncate(index n) {
    detail::expect(n >= 0 && n <= size_, "kv_cache: truncate must keep 0 to ", size_, " keys, got ", n);
    size_ = n;
    if (n == 0)
      ring_begin_ = 0;
  }

  /// Adds what a call on this cache must know of its position code.
  void describe(description& d) const {
    if (!code_)
      return;
    code_->describe(d);
    d.position.keys_turned = true;
    if (ring_rows_ > 0) {
      d.position.near_keys = make_operand(ring_.first(2 * ring_rows_));
      d.position.near_begin = ring_begin_;
      d.position.near_rows = ring_rows_;
    }
  }

 private:
  struct any_code {
    virtual ~any_code() = default;
    virtual void describe(description& d) const = 0;
  };
  template <class Code>
  struct kept_code final : any_code {
    Code code;
    explicit kept_code(Code const& c) : code(c) {}
    void describe(description& d) const override { code.describe(d); }
  };

  using number = typename kept_rows<T>::number;
  using near_key = typename kept_rows<T>::near_key;

  static kept_rows<T> checked(char const* what, index heads, index rows, index channels) {
    detail::expect(heads >= 1 && rows >= 0 && channels >= 1, "kv_cache: ", what,
                   " must be at least 1 (capacity 0), got ", heads, ", ", channels, ", ", rows);
    return {heads, rows, channels};
  }

  static void check_rows(char const* what, operand const& rows, kept_rows<T> const& to, index n) {
    index_array<4> const expected{1, to.heads(), n, to.channels()};
    for (std::size_t r = 0; r < 4; ++r)
      detail::expect(rows.extents[r] == expected[r], "kv_cache: append's ", what, " must be [", expected[1], ", ", n,
                     ", ", expected[3], "], got extent ", rows.extents[r], " in place of ", expected[r]);
  }

  position_code position() const {
    description d;
    if (code_)
      code_->describe(d);
    position_description const& p = d.position;
    return {p.rule, {p.theta, p.pairs, p.attention_factor, p.interleaved}, p.window, p.slope_inverse, p.group};
  }

  void read(operand const& from, index head, index i) {
    index const n = from.extents[3];
    load_rows(from.at(0, head, i, 0), from.kind, 0, from.strides[3], 1, n, row_.data(), n);
  }

  /// Keeps what has been read, row i of append's `what`, as row size() + i.
  void keep(char const* what, index head, index i, kept_rows<T>& to) {
    index const bad = to.put(head, size_ + i, row_.data());
    detail::expect(bad < 0, "kv_cache: append's ", what, " must be finite, turned, too, to be kept as int8, got ",
                   row_(std::max<index>(bad, 0)), " in head ", head, ", row ", i, ", channel ", bad);
  }

  /// What turns keys for a product, if they are: one at a time, since all work in `turning_`.
  std::optional<rotator<number>> turning_for(position_code const& code, position_code::product which) {
    if (!code.turns_keys(which))
      return std::nullopt;
    return rotator<number>(code.key_rotation(which), turning_.data());
  }

  /// Reads row i of k, turned as far as `turn`, and calls f(head) for each head.
  template <class F>
  void each_key(std::optional<rotator<number>>& turning, double turn, operand const& k, index i, F&& f) {
    if (turning)
      turning->seek(turn);
    for (index h = 0; h < heads_kv(); ++h) {
      read(k, h, i);
      if (turning)
        turning->rotate(row_.data());
      f(h);
    }
  }

  /// Rows of k, turned for near queries, go into the ring, twice each.
  void keep_near(position_code const& code, operand const& k) {
    std::optional<rotator<number>> turning = turning_for(code, position_code::near);
    for (index i = std::max<index>(0, k.extents[2] - ring_rows_); i < k.extents[2]; ++i) {
      index const j = size_ + i, row = j % ring_rows_;
      each_key(turning, code.key_turn(position_code::near, j), k, i, [&](index h) {
        for (index copy : {row, row + ring_rows_})
          ring_.put(h, copy, row_.data());
      });
    }
    ring_begin_ = std::max(ring_begin_, size_ + k.extents[2] - ring_rows_);
  }

  kept_rows<T> keys_, values_;
  kept_rows<near_key> ring_;
  tensor<double, 1> turning_;
  tensor<number, 1> row_;  // of a head, read and turned
  std::unique_ptr<any_code> code_;
  index size_ = 0;
  index ring_rows_ = 0;
  index ring_begin_ = 0;
};

namespace impl {

/// A cache's position code, as the modifier that its calls carry.
template <class T>
struct position_of_cache {
  static constexpr auto kind = family::position;
  kv_cache<T> const* cache;
  void describe(description& d) const { cache->describe(d); }
};

template <class T>
view<T, 3> one_head(view<T, 2> const& x) {
  return {x.data(), {1, x.extent(0), x.extent(1)}, {0, x.stride(0), x.stride(1)}};
}

}  // namespace impl

/// Attention of the last q_len rows of a sequence over its cache: `attention(q, keys, values, out, …)` with the cache's
/// own position code, without turning a key again; where it has none, with the one among the modifiers, if any. q, out:
/// rank 3 `[heads_q, q_len, …]`, rank 2 for a single head.
/// @throws argument_error as `attention`, and for a second position code
template <class Q, class T, class Out, class... Ms>
  requires tensor_like<Out>
void attention(Q const& q, kv_cache<T> const& cache, Out&& out, Ms const&... ms) {
  using flat_type = typename impl::read_modifiers<Ms...>::flat_type;
  constexpr bool names_code = impl::count_family(family::position, static_cast<flat_type const*>(nullptr)) > 0;
  auto const call = [&](auto const& rows, auto&& results) {
    if constexpr (names_code) {
      detail::expect(!cache.has_position_code(), "attention: the cache keeps keys turned by its own position code: a ",
                     "second one among the modifiers must not be given");
      attention(rows, cache.keys(), cache.values(), results, ms...);
    } else {
      attention(rows, cache.keys(), cache.values(), results, impl::position_of_cache<T>{&cache}, ms...);
    }
  };
  if constexpr (impl::view_of<Q const&>::rank == 2) {
    detail::expect(cache.heads_kv() == 1, "attention: a cache of ", cache.heads_kv(),
                   " heads must be read with q of rank 3, got rank 2");
    call(impl::one_head(as_view(q)), impl::one_head(as_view(std::forward<Out>(out))));
  } else {
    call(q, std::forward<Out>(out));
  }
}

HEED_ISA_END
}  // namespace heed
