#pragma once

#include <heed/attention/attention.hpp>
#include <heed/position/rerope.hpp>

#include <memory>

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
/// - Nothing is locked: appending and reading at once is the caller's to order.
template <storage_scalar T>
class kv_cache {
 public:
  /// Raw keys.
  kv_cache(index heads_kv, index dim, index dim_v, index capacity)
      : keys_(shape("heads_kv, dim and capacity", heads_kv, capacity, dim)),
        values_(shape("heads_kv, dim_v and capacity", heads_kv, capacity, dim_v)) {}

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
    turning_ =
        tensor<double, 1>({static_cast<index>(rotator<arithmetic_t<T>>::scratch_bytes(what.turn.pairs) / 8 + 1)});
    row_ = tensor<arithmetic_t<T>, 1>({dim});
    if (what.has_far()) {
      ring_rows_ = std::min(static_cast<index>(std::ceil(what.window)), std::max<index>(capacity, 1));
      ring_ = tensor<T, 3>({heads_kv, 2 * ring_rows_, dim});
    }
  }

  /// Whether keys are kept as a position code wants them; else they are raw, and a call may name its own code.
  bool has_position_code() const { return code_ != nullptr; }

  index heads_kv() const { return keys_.extent(0); }
  index size() const { return size_; }
  index capacity() const { return keys_.extent(1); }

  /// [heads_kv, size, dim], as they are kept.
  view<T const, 3> keys() const { return first(keys_, size_); }
  /// [heads_kv, size, dim_v]
  view<T const, 3> values() const { return first(values_, size_); }

  /// Takes in the next n keys and values, `[heads_kv, n, dim]` and `[heads_kv, n, dim_v]`; rank 2 for a single head.
  /// @throws argument_error for other extents, or beyond the capacity; nothing is taken in then
  template <class K, class V>
  void append(K const& k, V const& v) {
    operand const key_rows = impl::tensor_operand(as_view(k)), value_rows = impl::tensor_operand(as_view(v));
    index const n = key_rows.extents[2];
    check_rows("k", key_rows, keys_, n);
    check_rows("v", value_rows, values_, n);
    detail::expect(size_ + n <= capacity(), "kv_cache: capacity must be at least ", size_ + n, " for this append, got ",
                   capacity());
    position_code const code = position();
    for (index i = 0; i < n; ++i)
      append_row(code, key_rows, value_rows, i);
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
      d.position.near_keys = make_operand(ring_.view());
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

  static index_array<3> shape(char const* what, index heads, index rows, index channels) {
    detail::expect(heads >= 1 && rows >= 0 && channels >= 1, "kv_cache: ", what,
                   " must be at least 1 (capacity 0), got ", heads, ", ", channels, ", ", rows);
    return {heads, rows, channels};
  }

  static view<T const, 3> first(tensor<T, 3> const& all, index rows) {
    return {all.data(), {all.extent(0), rows, all.extent(2)}, all.strides()};
  }

  static void check_rows(char const* what, operand const& rows, tensor<T, 3> const& to, index n) {
    index_array<4> const expected{1, to.extent(0), n, to.extent(2)};
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

  /// Row i of k and v, as key size() + i of every head.
  void append_row(position_code const& code, operand const& k, operand const& v, index i) {
    index const j = size_ + i;
    for (index h = 0; h < heads_kv(); ++h)
      copy_row(v, h, i, &values_(h, j, 0), values_.extent(2));
    if (!code_) {
      for (index h = 0; h < heads_kv(); ++h)
        copy_row(k, h, i, &keys_(h, j, 0), keys_.extent(2));
      return;
    }
    put_turned(code, code.has_far() ? position_code::far : position_code::near, k, i, keys_, j);
    if (ring_rows_ == 0)
      return;
    index const row = j % ring_rows_;
    put_turned(code, position_code::near, k, i, ring_, row);
    for (index h = 0; h < heads_kv(); ++h)
      std::copy_n(&ring_(h, row, 0), ring_.extent(2), &ring_(h, row + ring_rows_, 0));
    ring_begin_ = std::max(ring_begin_, j - ring_rows_ + 1);
  }

  static void copy_row(operand const& from, index head, index i, T* to, index n) {
    if constexpr (std::same_as<T, arithmetic_t<T>>) {
      load_rows(from.at(0, head, i, 0), from.kind, 0, from.strides[3], 1, n, to, n);
    } else {
      for (index c = 0; c < n; ++c)
        to[c] = round_to<T>(static_cast<float>(from(0, head, i, c)));
    }
  }

  void put_turned(position_code const& code, position_code::product which, operand const& k, index i, tensor<T, 3>& to,
                  index row) {
    index const n = keys_.extent(2);
    bool const turns = code.turns_keys(which);
    rotator<arithmetic_t<T>> turning(code.turn, turning_.data());
    if (turns)
      turning.seek(code.key_position(which, size_ + i));
    for (index h = 0; h < heads_kv(); ++h) {
      load_rows(k.at(0, h, i, 0), k.kind, 0, k.strides[3], 1, n, row_.data(), n);
      if (turns)
        turning.rotate(row_.data());
      for (index c = 0; c < n; ++c)
        to(h, row, c) = round_to<T>(row_(c));
    }
  }

  tensor<T, 3> keys_, values_, ring_;
  tensor<double, 1> turning_;
  tensor<arithmetic_t<T>, 1> row_;
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
  auto const call = [&](auto const& keys, auto const& values) {
    if constexpr (names_code) {
      detail::expect(!cache.has_position_code(), "attention: the cache keeps keys turned by its own position code: a ",
                     "second one among the modifiers must not be given");
      attention(q, keys, values, std::forward<Out>(out), ms...);
    } else {
      attention(q, keys, values, std::forward<Out>(out), impl::position_of_cache<T>{&cache}, ms...);
    }
  };
  if constexpr (impl::view_of<Q const&>::rank == 2) {
    auto const one = [&](view<T const, 3> const& x) {
      detail::expect(x.extent(0) == 1, "attention: a cache of ", x.extent(0),
                     " heads must be read with q of rank 3, got rank 2");
      return view<T const, 2>(x.data(), {x.extent(1), x.extent(2)}, {x.stride(1), x.stride(2)});
    };
    call(one(cache.keys()), one(cache.values()));
  } else {
    call(cache.keys(), cache.values());
  }
}

HEED_ISA_END
}  // namespace heed
