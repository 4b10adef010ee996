#pragma once

#include <heed/attention/modifiers.hpp>

/// The factor of a row of scores: `scale × row scale`, formed in double, applied while the query is packed. Row scales
/// never multiply biases. n_i: the keys visible to row i under causal, window, sink_tokens, lengths, segments and mask.

namespace heed {
HEED_ISA_BEGIN

/// Scores are `scale · q·k`; default `1/√dim`. Finite, any sign.
struct scale {
  static constexpr auto kind = family::scale;
  double value;

  explicit constexpr scale(std::convertible_to<double> auto s) : value(static_cast<double>(s)) {}

  void describe(description& d) const {
    detail::expect(std::isfinite(value), "attention: scale must be finite, got ", value);
    d.scale = value;
  }
};

/// Entropy-invariant attention: row scale `ln n_i / ln base`; exactly 1 at n_i = base.
/// @see Su, kexue.fm/archives/8823; formulas A2 (E-base)
struct log_n {
  static constexpr auto kind = family::row_scale;
  double base;

  explicit constexpr log_n(std::convertible_to<double> auto b) : base(static_cast<double>(b)) {}

  void describe(description& d) const {
    detail::expect(base > 1, "attention: log_n.base must be greater than 1, got ", base);
    d.row_scale = row_scale_rule::log_n;
    d.row_scale_base = base;
  }
};

/// Row scale `ln max(n_i, minimum) / ln base`; the softmax_plus of GAU-α is {512, 16}.
/// @see formulas A2 (plus)
struct log_n_clamped {
  static constexpr auto kind = family::row_scale;
  double base;
  double minimum;

  constexpr log_n_clamped(std::convertible_to<double> auto b, std::convertible_to<double> auto least)
      : base(static_cast<double>(b)), minimum(static_cast<double>(least)) {}

  void describe(description& d) const {
    detail::expect(base > 1, "attention: log_n_clamped.base must be greater than 1, got ", base);
    detail::expect(minimum >= 1, "attention: log_n_clamped.minimum must be at least 1, got ", minimum);
    d.row_scale = row_scale_rule::log_n_clamped;
    d.row_scale_base = base;
    d.row_scale_minimum = minimum;
  }
};

/// Row scale `max(1, ln(position + 1) / ln train_len)`: for models trained without it, active beyond the training
/// length only.
/// @see formulas A2 (dagger)
struct log_n_beyond {
  static constexpr auto kind = family::row_scale;
  double train_len;

  explicit constexpr log_n_beyond(std::convertible_to<double> auto length) : train_len(static_cast<double>(length)) {}

  void describe(description& d) const {
    detail::expect(train_len >= 2, "attention: log_n_beyond.train_len must be at least 2, got ", train_len);
    d.row_scale = row_scale_rule::log_n_beyond;
    d.row_scale_base = train_len;
  }
};

/// Row scale `s_h · ln n_i`, one s per query head.
/// @see Scalable-Softmax, arXiv 2501.19399; formulas A2 (SSMax)
template <class Held = borrowed>
struct scalable {
  static constexpr auto kind = family::row_scale;

  template <class Range>
    requires(!std::same_as<std::remove_cvref_t<Range>, scalable>)
  explicit scalable(Range&& per_head) : heads(per_head) {}

  void describe(description& d) const {
    d.row_scale = row_scale_rule::scalable;
    d.row_scale_heads = heads;
  }

  number_list heads;
};
template <class Range>
scalable(Range&&) -> scalable<impl::lifetime_of<Range>>;

HEED_ISA_END
}  // namespace heed
