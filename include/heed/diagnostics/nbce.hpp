#pragma once

#include <heed/diagnostics/entropy.hpp>

#include <numeric>
#include <vector>

/// Next-token distributions of several contexts, made one.

namespace heed {
HEED_ISA_BEGIN

/// How `nbce` makes one row of those of the contexts.
enum class nbce_pooling {
  least_entropy,  // the row of the surest context
  mean,           // the mean of the log-probabilities: with beta = n − 1 the product of experts
  largest         // the largest log-probability, token by token
};

struct nbce_options {
  double top_p =
      1;  // below 1: every row keeps its likeliest tokens up to this mass; the rest are −inf, not renormalised
  nbce_pooling pooling = nbce_pooling::least_entropy;
};

namespace impl {

/// Log-probabilities of one row of logits, in place; −inf beyond the top-p mass.
inline void log_probabilities(std::span<double> row, double top_p) {
  streaming_entropy<double> sum;
  for (double x : row)
    sum.push(x);
  detail::expect(std::isfinite(sum.lse()), "nbce: every row must have a token with a finite logit, and none above");
  for (double& x : row)
    x -= sum.lse();
  if (top_p >= 1)
    return;
  std::vector<std::size_t> order(row.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return row[a] > row[b]; });
  double mass = 0;
  for (std::size_t const token : order) {
    double const p = std::exp(row[token]);
    if (mass >= top_p)
      row[token] = -std::numeric_limits<double>::infinity();
    mass += p;
  }
}

/// −Σ e^x x of log-probabilities, −inf adding nothing.
inline double entropy_of_logs(std::span<double const> row) {
  double h = 0;
  for (double x : row)
    h -= std::isinf(x) ? 0 : std::exp(x) * x;
  return h;
}

/// One token: (beta + 1) pooled − beta unconditional, where the unconditional model gives the token a chance at all.
inline double merged_token(double pooled, double unconditional, double beta) {
  if (std::isinf(unconditional) || std::isinf(pooled))
    return pooled;
  return (beta + 1) * pooled - beta * unconditional;
}

}  // namespace impl

/// Naive-Bayes context extension: merges the next-token rows of n contexts read apart, and of none.
///
///     H_k = −Σ_t p_k ln p_k,  H_previous −= eta,  k* = argmin_k H_k (the first of equals)
///     out[t] = (beta + 1) ln p_{k*}[t] − beta ln p_0[t],   ln p_{k*}[t] where p_0[t] = 0
///
/// | argument | shape |
/// |---|---|
/// | rows | [n, vocabulary]: logits or log-probabilities of the contexts |
/// | unconditional | [vocabulary]: those of the empty context |
/// | out | [vocabulary]: log-probabilities, not normalised; −inf where the pooled row has it |
///
/// - beta ≥ −1 (0.25 in the source; n − 1 with `mean` is naive Bayes); eta makes it stick to the context chosen
///   `previous`ly, −1 at the first token. Every row is normalised first, in double.
/// - Returns k*, whatever the pooling.
/// - Memory: (n + 1) · vocabulary doubles, allocated in the call. `out` may be one of the inputs.
/// @throws argument_error for no context, extents that differ, beta < −1, previous ≥ n, top_p outside (0, 1]
/// @see Su, kexue.fm/archives/9617, 9632; NAACL 2024 long 431; formulas D1
template <class Rows, class Unconditional, class Out>
index nbce(Rows const& rows, Unconditional const& unconditional, Out&& out, double beta = 0.25, double eta = 0.1,
           index previous = -1, nbce_options const& options = {}) {
  auto const given = as_view(rows);
  static_assert(decltype(given)::rank == 2, "heed: rows is [n, vocabulary]");
  index const n = given.extent(0), size = given.extent(1);
  detail::expect(n >= 1 && size >= 1, "nbce: rows must have at least one context and one token, got ", n, " x ", size);
  detail::expect(beta >= -1 && std::isfinite(beta), "nbce: beta must be at least -1, got ", beta);
  detail::expect(std::isfinite(eta), "nbce: eta must be finite, got ", eta);
  detail::expect(previous >= -1 && previous < n, "nbce: previous must be -1 or one of the ", n, " contexts, got ",
                 previous);
  detail::expect(options.top_p > 0 && options.top_p <= 1, "nbce: top_p must lie in (0, 1], got ", options.top_p);

  auto const result = impl::row_view(std::forward<Out>(out));
  detail::expect(result.extent(0) == size, "nbce: out must have rows' ", size, " tokens, got ", result.extent(0));

  auto const width = static_cast<std::size_t>(size);
  std::vector<double> logs;
  logs.reserve(static_cast<std::size_t>(n + 1) * width);
  for (index k = 0; k < n; ++k)
    for (index t = 0; t < size; ++t)
      logs.push_back(static_cast<double>(given(k, t)));
  impl::for_each_number(unconditional, [&](double x) { logs.push_back(x); });
  detail::expect(logs.size() == static_cast<std::size_t>(n + 1) * width, "nbce: unconditional must have rows' ", size,
                 " tokens, got ", static_cast<index>(logs.size()) - n * size);
  auto const row = [&](index k) { return std::span<double>(logs).subspan(static_cast<std::size_t>(k) * width, width); };
  for (index k = 0; k <= n; ++k)
    impl::log_probabilities(row(k), options.top_p);

  index chosen = 0;
  double least = std::numeric_limits<double>::infinity();
  for (index k = 0; k < n; ++k) {
    double const h = impl::entropy_of_logs(row(k)) - (k == previous ? eta : 0);
    if (h < least)
      chosen = k, least = h;
  }
  auto const pooled = [&](std::size_t t) {
    if (options.pooling == nbce_pooling::least_entropy)
      return row(chosen)[t];
    bool const mean = options.pooling == nbce_pooling::mean;
    double sum = 0, top = -std::numeric_limits<double>::infinity();
    for (index k = 0; k < n; ++k) {
      sum += row(k)[t];
      top = std::max(top, row(k)[t]);
    }
    return mean ? sum / static_cast<double>(n) : top;
  };
  for (index t = 0; t < size; ++t) {
    auto const token = static_cast<std::size_t>(t);
    using stored = std::remove_pointer_t<decltype(result.data())>;
    result(t) = static_cast<stored>(impl::merged_token(pooled(token), row(n)[token], beta));
  }
  return chosen;
}

HEED_ISA_END
}  // namespace heed
