#pragma once

#include <heed/attention/modifiers.hpp>

/// What is added to a score after the scale and the softcap.

namespace heed {
HEED_ISA_BEGIN

/// An additive tensor of rank 2 to 4, `[batch, heads_q, q_len, kv_len]` aligned to the right, extents of 1 broadcast.
/// Several in one call are summed. −inf hides the key, even if its score is NaN, but does not lower n_i.
template <class Held = borrowed>
struct bias {
  static constexpr auto kind = family::bias;

  template <class Tensor>
    requires(!std::same_as<std::remove_cvref_t<Tensor>, bias>)
  explicit bias(Tensor&& added) : values(make_operand(as_view(added))) {
    static_assert(storage_scalar<typename decltype(as_view(added))::value_type>,
                  "heed: a bias holds float, double, Eigen::half or Eigen::bfloat16; a boolean mask is a mask");
  }

  void describe(description& d) const { d.biases.push(values, "biases"); }

  operand values;
};
template <class Tensor>
bias(Tensor&&) -> bias<impl::lifetime_of<Tensor>>;

/// Adds `−slope_h · |position − j|`, one slope per query head. Views its slopes; `alibi::standard(heads)` needs none.
/// @see Press et al. 2022, arXiv 2108.12409; formulas B5
struct alibi {
  static constexpr auto kind = family::alibi;
  static constexpr auto stage = score_stage::bias;

  template <class Range>
    requires(!std::same_as<std::remove_cvref_t<Range>, alibi>)
  explicit alibi(Range const& slopes) : slopes_(slopes) {}
  template <class Range>
    requires(!std::is_lvalue_reference_v<Range> && impl::owns_memory<std::remove_cvref_t<Range>>)
  explicit alibi(Range&& slopes) = delete;

  /// slope_h = 2^(−8 (h + 1) / heads) for a power of two; else those of the power of two below, then every second of
  /// the power above.
  static alibi standard(index heads) {
    detail::expect(heads >= 1, "alibi::standard: heads must be at least 1, got ", heads);
    alibi a;
    a.heads_ = heads;
    return a;
  }

  index size() const { return slopes_ ? slopes_.size() : heads_; }

  double operator[](index h) const {
    if (slopes_)
      return slopes_.real(h);
    auto const power = static_cast<index>(std::bit_floor(static_cast<std::size_t>(heads_)));
    if (h < power)
      return std::exp2(-8.0 * static_cast<double>(h + 1) / static_cast<double>(power));
    return std::exp2(-4.0 * static_cast<double>(2 * (h - power) + 1) / static_cast<double>(power));
  }

  void describe(description& d) const {
    d.alibi = true;
    d.alibi_slopes = slopes_;
    d.alibi_heads = heads_;
  }

  /// The same for one head, its slope looked up.
  struct of_head {
    static constexpr auto stage = score_stage::bias;
    double slope;

    template <class S, class Site>
    HEED_ALWAYS_INLINE S apply(S s, Site const& at) const {
      return heed::fma(S(impl::as_scalar<S>(-slope)), heed::abs(at.distance()), s);
    }
  };
  of_head for_head(index h) const { return {(*this)[h]}; }

  template <class S, class Site>
  HEED_ALWAYS_INLINE S apply(S s, Site const& at) const {
    return for_head(at.head()).apply(s, at);
  }

 private:
  alibi() = default;

  number_list slopes_;
  index heads_ = 0;
};

/// Adds `table[h or 0][clamp(position − j − first, 0, n − 1)]`: T5's bias, or the window bias of Transformer-VQ,
/// without a [q_len, kv_len] buffer. Table `[n]`, `[1, n]` or `[heads_q, n]`.
template <class Held = borrowed>
struct relative_bias {
  static constexpr auto kind = family::relative_bias;

  template <class Tensor>
    requires(!std::same_as<std::remove_cvref_t<Tensor>, relative_bias>)
  explicit relative_bias(Tensor&& per_distance, index first_distance = 0)
      : table(make_operand(as_view(per_distance))), first(first_distance) {
    static_assert(storage_scalar<typename decltype(as_view(per_distance))::value_type>,
                  "heed: a relative_bias table holds float, double, Eigen::half or Eigen::bfloat16");
  }

  void describe(description& d) const {
    d.relative_bias = table;
    d.relative_bias_first = first;
  }

  operand table;
  index first;
};
template <class Tensor>
relative_bias(Tensor&&) -> relative_bias<impl::lifetime_of<Tensor>>;
template <class Tensor>
relative_bias(Tensor&&, index) -> relative_bias<impl::lifetime_of<Tensor>>;

HEED_ISA_END
}  // namespace heed
