#pragma once

#include <heed/reference/modifiers.hpp>
#include <heed/reference/position.hpp>
#include <heed/reference/rows.hpp>
#include <heed/reference/visibility.hpp>

/// From a query and a key to a score: everything before the normaliser.

namespace heed {
HEED_ISA_BEGIN
namespace reference {

/// One row of scores: the keys that are not hidden, and their scores.
template <class Scalar>
struct score_row {
  index visible_count = 0;  // n_i: keys hidden by a bias are counted, too
  std::vector<index> keys;
  std::vector<Scalar> scores;

  /// No visible key, or every visible score −inf: the row's output is zero by definition.
  bool empty() const {
    return std::all_of(scores.begin(), scores.end(),
                       [](Scalar s) { return s == -std::numeric_limits<Scalar>::infinity(); });
  }
};

/// The factor of a row besides `scale` (formulas A2), one quotient formed in double: exactly 1 at n_i = base.
inline double row_scale(description const& said, index visible_count, index position, index head) {
  auto const n = static_cast<double>(visible_count);
  switch (said.row_scale) {
  case row_scale_rule::none:
    return 1;
  case row_scale_rule::log_n:
    return std::log(n) / std::log(said.row_scale_base);
  case row_scale_rule::log_n_clamped:
    return std::log(std::max(n, said.row_scale_minimum)) / std::log(said.row_scale_base);
  case row_scale_rule::log_n_beyond: {
    double const length = static_cast<double>(position) + 1;
    return length <= said.row_scale_base ? 1 : std::log(length) / std::log(said.row_scale_base);
  }
  case row_scale_rule::scalable:
    return said.row_scale_heads.real(head) * std::log(n);
  }
  return 1;
}

/// ALiBi's standard slopes (formulas B5): 2^(−8 (h + 1)/H) for H a power of two; else those of the power of two below,
/// continued with every second slope of the power above.
inline double standard_slope(index head, index heads) {
  index power = 1;
  while (2 * power <= heads)
    power *= 2;
  if (head >= power)
    return reference::standard_slope(2 * (head - power), 2 * power);
  return std::pow(2.0, -8.0 * static_cast<double>(head + 1) / static_cast<double>(power));
}

/// The scores of a call, row by row:
///
///     s = q·k  (under the position encoding)
///     s = s · scale · row scale
///     s = c · tanh(s / c)                                       softcap
///     s = s + Σ bias − slope_h |p − j| + table[p − j − first]   biases, ALiBi, relative bias
///     s = f(s, site)                                            score functor, the user's own maps
template <class Scalar, class... Ms>
class scorer {
 public:
  scorer(operand const& q, operand const& k, instructions<Ms...> const& told, shape const& of)
      : q_(q), k_(k), told_(told), said_(told.data), of_(of), visible_(said_, of), product_(said_.position, of.dim) {
    for (operand const& b : said_.biases)
      biases_.push(broadcast(b, {of.batch, of.heads_q, of.q_len, of.kv_len}, "reference", "bias"), "biases");
    if (said_.relative_bias) {
      auto const n = said_.relative_bias->extents[3];
      detail::expect(n >= 1, "reference: relative_bias must hold at least one number, got none");
      table_ = broadcast(*said_.relative_bias, {1, 1, of.heads_q, n}, "reference", "relative_bias");
    }
    expect_per_head(said_.alibi_slopes, "alibi");
    expect_per_head(said_.row_scale_heads, "scalable");
    if (said_.alibi && !said_.alibi_slopes)
      detail::expect(said_.alibi_heads == of.heads_q, "reference: alibi::standard must be for ", of.heads_q,
                     " heads, got ", said_.alibi_heads);
  }

  score_row<Scalar> row(index batch, index head, index query) {
    score_row<Scalar> result;
    index const p = visible_.position(batch, query);
    for (index key = 0; key < of_.kv_len; ++key) {
      if (!visible_(batch, head, query, key) || !told_.shows(place(batch, head, p, key)))
        continue;
      ++result.visible_count;
      if (!hidden_by_bias(batch, head, query, key, p))
        result.keys.push_back(key);
    }
    double const factor = reference::row_scale(said_, result.visible_count, p, head);
    for (index key : result.keys)
      result.scores.push_back(score(batch, head, query, key, p, factor));
    return result;
  }

 private:
  Scalar score(index batch, index head, index query, index key, index p, double factor) {
    auto const at = place(batch, head, p, key);
    Scalar s = product_(q_(batch, head, query), k_(batch, of_.key_head(head), key), p, key) * scale() *
               static_cast<Scalar>(factor);
    if (said_.softcap) {
      auto const cap = static_cast<Scalar>(*said_.softcap);
      s = cap * std::tanh(s / cap);
    }
    s = told_.mapped(score_stage::softcap, s, at);
    for (operand const& b : biases_)
      s += static_cast<Scalar>(b(batch, head, query, key));
    if (said_.alibi)
      s -= static_cast<Scalar>(slope(head)) * std::fabs(static_cast<Scalar>(p - key));
    if (said_.relative_bias)
      s += static_cast<Scalar>(relative_bias(head, p, key));
    for (auto when : {score_stage::bias, score_stage::function, score_stage::mask})
      s = told_.mapped(when, s, at);
    return s;
  }

  Scalar scale() const {
    return said_.scale ? static_cast<Scalar>(*said_.scale) : 1 / std::sqrt(static_cast<Scalar>(of_.dim));
  }

  double slope(index head) const {
    return said_.alibi_slopes ? said_.alibi_slopes.real(head) : reference::standard_slope(head, said_.alibi_heads);
  }

  double relative_bias(index head, index p, index key) const {
    index const last = table_.extents[3] - 1;
    return table_(0, 0, head, std::clamp<index>(p - key - said_.relative_bias_first, 0, last));
  }

  /// −inf in a bias hides the key whatever its score is, NaN included.
  bool hidden_by_bias(index batch, index head, index query, index key, index p) const {
    constexpr double hidden = -std::numeric_limits<double>::infinity();
    return std::any_of(biases_.begin(), biases_.end(),
                       [&](operand const& b) { return b(batch, head, query, key) == hidden; }) ||
           (said_.relative_bias && relative_bias(head, p, key) == hidden);
  }

  static site<double> place(index batch, index head, index p, index key) {
    return {static_cast<double>(p), static_cast<double>(key), static_cast<double>(p - key), batch, head};
  }

  void expect_per_head(number_list const& list, char const* what) const {
    if (list)
      detail::expect(list.size() == of_.heads_q, "reference: ", what, " must have ", of_.heads_q, " entries, got ",
                     list.size());
  }

  head_rows<Scalar> q_, k_;
  instructions<Ms...> const& told_;
  description const& said_;
  shape of_;
  visibility visible_;
  rotated_product<Scalar> product_;
  short_list<operand, 8> biases_;
  operand table_;
};

}  // namespace reference
HEED_ISA_END
}  // namespace heed
