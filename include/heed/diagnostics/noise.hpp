#pragma once

#include <heed/diagnostics/entropy.hpp>

#include <span>
#include <vector>

/// What noise on the scores does to attention: the error model of low precision, and why attention shrugs at it.

namespace heed {
HEED_ISA_BEGIN

/// E[e^2ε] / E[e^ε]² − 1 for Gaussian noise ε of standard deviation t: e^(t²) − 1.
/// @see formulas A4
inline double gaussian_noise_factor(double t) { return std::expm1(t * t); }

/// The variance of each output channel of one row when every score carries independent noise ε of one law, by the delta
/// method:
///
///     out[c] = factor · Σ_i p_i² (v_ic − o_c)²,   o = Σ_i p_i v_i,   factor = E[e^2ε] / E[e^ε]² − 1
///
/// - p: the n weights of the row without noise; v: `[n, dim_v]`; out: dim_v doubles.
/// - Good while no few keys hold the row: it fails when Σ p² nears 1. The bias is of order Σ p².
/// @throws argument_error where v does not have one row for each weight, or out not one number for each channel
/// @see Su, kexue.fm/archives/9593; formulas A4
template <class Row, class V>
void noise_variance(Row const& p, V const& v, double factor, std::span<double> out) {
  auto const values = as_view(v);
  static_assert(decltype(values)::rank == 2, "heed: v is [n, dim_v]");
  std::vector<double> weights;
  impl::for_each_number(p, [&](double x) { weights.push_back(x); });
  auto const n = static_cast<index>(weights.size());
  detail::expect(values.extent(0) == n, "noise_variance: v must have ", n, " rows, one a weight, got ",
                 values.extent(0));
  detail::expect(static_cast<index>(out.size()) == values.extent(1), "noise_variance: out must have ", values.extent(1),
                 " numbers, got ", out.size());
  for (index c = 0; c < values.extent(1); ++c) {
    double mean = 0, sum = 0;
    for (index i = 0; i < n; ++i)
      mean += weights[static_cast<std::size_t>(i)] * static_cast<double>(values(i, c));
    for (index i = 0; i < n; ++i) {
      double const share = weights[static_cast<std::size_t>(i)] * (static_cast<double>(values(i, c)) - mean);
      sum += share * share;
    }
    out[static_cast<std::size_t>(c)] = factor * sum;
  }
}

HEED_ISA_END
}  // namespace heed
