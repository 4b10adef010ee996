#pragma once

#include <heed/recurrent/step.hpp>

#include <functional>

/// A stack of causal layers evaluated with no cache at all: space that does not depend on the length, paid in time.

namespace heed {
HEED_ISA_BEGIN

/// One layer of a `constant_space_stack`: three functions of rows, contiguous, all pure.
template <real T>
struct constant_space_layer {
  index dim = 0, dim_v = 0, heads_q = 1, heads_kv = 1;
  std::function<void(T const* x, T* q)> query;                       // q [heads_q, dim]
  std::function<void(T const* x, T* k, T* v)> key_value;             // k [heads_kv, dim], v [heads_kv, dim_v]
  std::function<void(T const* x, T const* attended, T* y)> combine;  // attended [heads_q, dim_v]; y may not be x
};

/// N causal layers without a cache (formulas C7): what layer n needs of token j it computes again,
/// down to the embedding.
///
///     x⁰_j = embed(j)
///     xⁿ_i = combine(xⁿ⁻¹_i, attention(query(xⁿ⁻¹_i), key_value(xⁿ⁻¹_j) for j = 0 … i))
///
///     constant_space_stack<double> stack(width, {layer, layer});
///     stack.evaluate(i, [&](index j) { return &embedding(token[j], 0); }, out, rotary{…});
///
/// - Memory: per layer two rows of `width`, q, k, v, the attended row and the softmax state; nothing grows with i.
/// - Price: inner steps, keys read by any layer: T_N(i) = i + T_{N−1}(i) + Σ_{j ≤ i} T_{N−1}(j), T_0 = 0, i counting
///   from 1; 10, 75, 415 for the tenth token of 1, 2, 3 layers; i^N/N! in the long run. A window makes it less.
/// - `embed(j)` returns a row of `width` numbers: a pointer, a contiguous range or a vector, by value or not.
/// - Modifiers are those of `recurrent_attention`, the same in every layer; no outputs (lse, entropy), no gate.
/// - Not for two threads at a time.
/// @see Su, kexue.fm/archives/10017
template <real T>
class constant_space_stack {
 public:
  /// @throws argument_error for a width below 1, wrong extents of a layer, or one of its functions missing
  constant_space_stack(index width, std::vector<constant_space_layer<T>> layers) : width_(width) {
    detail::expect(width >= 1, "constant_space_stack: width must be at least 1, got ", width);
    last_.resize(static_cast<std::size_t>(width));
    for (auto& layer : layers) {
      detail::expect(layer.query && layer.key_value && layer.combine,
                     "constant_space_stack: a layer must have query, key_value and combine");
      levels_.emplace_back(width, std::move(layer));
    }
  }

  /// out = row i of the last layer; `width` numbers.
  template <class Embed, class Out, class... Ms>
  void evaluate(index i, Embed&& embed, Out&& out, Ms const&... ms) {
    detail::expect(i >= 0, "constant_space_stack: i must not be negative, got ", i);
    auto const result = impl::token_row("out", std::forward<Out>(out), 1, width_);
    static_assert(std::same_as<std::remove_pointer_t<decltype(result.data())>, T>,
                  "heed: constant_space_stack writes the scalar that it computes in");
    check_modifiers(static_cast<typename impl::read_modifiers<Ms...>::flat_type const*>(nullptr));
    row_of(levels_.size(), i, embed, last_.data(), ms...);
    for (index c = 0; c < width_; ++c)
      result(0, 0, 0, c) = last_[static_cast<std::size_t>(c)];
  }

  /// Inner steps so far: keys read, by all layers.
  index steps() const {
    index sum = 0;
    for (level const& l : levels_)
      sum += l.walk.visited();
    return sum;
  }

  /// All memory that the stack holds between and during calls, but for what the functions keep.
  std::size_t memory_bytes() const {
    std::size_t sum = last_.capacity() * sizeof(T);
    for (level const& l : levels_)
      sum += l.walk.memory_bytes() + l.rows.capacity() * sizeof(T);
    return sum;
  }

 private:
  struct level {
    constant_space_layer<T> layer;
    recurrent_attention<T> walk;
    std::vector<T> rows;  // x of the query, x of a key, q, k, v, the attended row

    level(index width, constant_space_layer<T> given)
        : layer(std::move(given)), walk(layer.dim, layer.dim_v, layer.heads_q, layer.heads_kv),
          rows(static_cast<std::size_t>(2 * width + (layer.heads_q + layer.heads_kv) * (layer.dim + layer.dim_v))) {}
  };

  template <class... Ms>
  static constexpr void check_modifiers(std::tuple<Ms const&...> const*) {
    static_assert(((impl::family_of<Ms>() != family::lse && impl::family_of<Ms>() != family::entropy &&
                    impl::family_of<Ms>() != family::gate) &&
                   ...),
                  "heed: constant_space_stack takes no lse, entropy or gate: every layer would write over them");
  }

  /// y = row i after `depth` layers.
  template <class Embed, class... Ms>
  void row_of(std::size_t depth, index i, Embed& embed, T* y, Ms const&... ms) {
    if (depth == 0) {
      auto&& row = embed(i);
      auto const x = impl::token_row("embed's row", row, 1, width_);
      for (index c = 0; c < width_; ++c)
        y[c] = static_cast<T>(x(0, 0, 0, c));
      return;
    }
    level& here = levels_[depth - 1];
    constant_space_layer<T> const& layer = here.layer;
    T *const x = here.rows.data(), *const x_of_key = x + width_, *const q = x_of_key + width_;
    T *const k = q + layer.heads_q * layer.dim, *const v = k + layer.heads_kv * layer.dim;
    T* const attended = v + layer.heads_kv * layer.dim_v;
    row_of(depth - 1, i, embed, x, ms...);
    here.layer.query(x, q);
    auto const source = [&](index j) {
      row_of(depth - 1, j, embed, x_of_key, ms...);
      here.layer.key_value(x_of_key, k, v);
      return std::pair<T const*, T const*>(k, v);
    };
    here.walk.reread(q, i, source, attended, ms...);
    here.layer.combine(x, attended, y);
  }

  index width_;
  std::vector<level> levels_;
  std::vector<T> last_;
};

HEED_ISA_END
}  // namespace heed
