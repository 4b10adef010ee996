#pragma once

#include <heed/reference/score.hpp>

/// From a row of scores to a row of weights.

namespace heed {
HEED_ISA_BEGIN
namespace reference {

/// The weights of a row's keys, and what is known of the row besides.
template <class Scalar>
struct weight_row {
  std::vector<Scalar> weights;  // one for each of score_row::keys; none where the output is zero by definition
  Scalar lse = -std::numeric_limits<Scalar>::infinity();
  Scalar entropy = 0;
};

/// Softmax with an optional extra logit in the denominator (formulas A1, A3); without one: `sink` = −inf.
///
///     m = max(sink, max_j s_j),  l = e^(sink − m) + Σ_j e^(s_j − m),  p_j = e^(s_j − m) / l
///     lse = m + ln l,  entropy = −Σ p ln p  over the keys and the sink
template <class Scalar>
weight_row<Scalar> softmax_row(score_row<Scalar> const& row, Scalar sink) {
  constexpr Scalar nothing = -std::numeric_limits<Scalar>::infinity();
  if (row.empty())
    return {{}, sink, 0};

  Scalar m = sink;
  for (Scalar s : row.scores)
    m = std::max(m, s);  // a NaN score does not become the maximum, but makes l NaN
  Scalar l = std::exp(sink - m);
  for (Scalar s : row.scores)
    l += std::exp(s - m);

  weight_row<Scalar> result;
  result.lse = m + std::log(l);
  Scalar entropy = 0;
  auto const weigh = [&](Scalar s) {
    Scalar const p = std::exp(s - m) / l;
    if (p != 0)
      entropy -= p * (s - m - std::log(l));
    return p;
  };
  for (Scalar s : row.scores)
    result.weights.push_back(weigh(s));
  if (sink != nothing)
    weigh(sink);
  result.entropy = entropy < 0 ? Scalar(0) : entropy;
  return result;
}

/// `max(s, 0)² / divisor` (formulas C1); a divisor of 0 leaves no weights.
template <class Scalar>
weight_row<Scalar> squared_relu_row(score_row<Scalar> const& row, description const& said) {
  if (row.empty())
    return {};
  weight_row<Scalar> result;
  Scalar sum = 0;
  for (Scalar s : row.scores) {
    result.weights.push_back(s < 0 ? Scalar(0) : s * s);
    sum += result.weights.back();
  }
  Scalar divisor = sum;
  if (said.divisor == divisor_rule::fixed)
    divisor = static_cast<Scalar>(said.divisor_value);
  if (said.divisor == divisor_rule::visible)
    divisor = static_cast<Scalar>(row.visible_count);
  if (divisor == 0)
    return {};
  for (Scalar& w : result.weights)
    w /= divisor;
  return result;
}

/// `e^s / √(Σ e^2s)` (formulas C1).
template <class Scalar>
weight_row<Scalar> l2_softmax_row(score_row<Scalar> const& row) {
  if (row.empty())
    return {};
  Scalar m = row.scores.front();
  for (Scalar s : row.scores)
    m = std::max(m, s);
  Scalar squares = 0;
  for (Scalar s : row.scores)
    squares += std::exp(2 * (s - m));
  weight_row<Scalar> result;
  for (Scalar s : row.scores)
    result.weights.push_back(std::exp(s - m) / std::sqrt(squares));
  return result;
}

template <class Scalar>
weight_row<Scalar> normalized(score_row<Scalar> const& row, description const& said, index head) {
  switch (said.normalizer) {
  case normalizer_rule::squared_relu:
    return reference::squared_relu_row(row, said);
  case normalizer_rule::l2_softmax:
    return reference::l2_softmax_row(row);
  case normalizer_rule::none:
  case normalizer_rule::softmax:
    break;
  }
  Scalar const sink =
      said.sink_logits ? static_cast<Scalar>(said.sink_logits.real(head)) : -std::numeric_limits<Scalar>::infinity();
  return reference::softmax_row(row, sink);
}

}  // namespace reference
HEED_ISA_END
}  // namespace heed
