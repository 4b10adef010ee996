#pragma once

#include <heed/diagnostics/entropy.hpp>

#include <algorithm>
#include <vector>

/// How few of a row's numbers carry it. Rows are contiguous ranges, Eigen vectors or views of rank 1;
/// signs do not matter.
///
///     l_p = (Σ |x|^p)^(1/p)
///
/// | measure | range | sparser is | one-hot | uniform |
/// |---|---|---|---|---|
/// | s0, s1 | (0, 1] | less | | 1 |
/// | star | [n^(1/p − 1/q), 1] | less | 1/√n (q = 1, p = 2) | 1 |
/// | hoyer | [0, 1] | more | 1 | 0 |
/// | gini | [0, 1 − 1/n] | more | 1 − 1/n | 0 |
/// | effective_support | [1, n] | less | 1 | n |
///
/// - A row of zeros, or of nothing, has no sparsity: NaN (but small_share is 1 and 0).
/// - One number alone is uniform: star 1, hoyer 0 (its formula is 0/0 there), gini 0.
/// - Sums are taken of |x| / max |x|, so that nothing overflows.
/// @see Hurley and Rickard 2009, arXiv 0811.4706; Su, kexue.fm/archives/9595; formulas A3

namespace heed {
HEED_ISA_BEGIN
namespace sparsity {

namespace impl {

/// n, and Σ (|x| / max |x|)^p for two exponents.
struct power_sums {
  double n = 0, largest = 0, first = 0, second = 0;
  bool defined() const { return largest > 0; }
};

inline double power(double x, double p) { return p == 1 ? x : p == 2 ? x * x : x == 0 ? 0 : std::pow(x, p); }

template <class Row>
power_sums sums_of(Row const& x, double p, double q) {
  power_sums s;
  heed::impl::for_each_number(x, [&](double each) {
    ++s.n;
    s.largest = !(std::fabs(each) <= s.largest) ? std::fabs(each) : s.largest;  // a NaN stays
  });
  if (s.defined())
    heed::impl::for_each_number(x, [&](double each) {
      double const share = std::fabs(each) / s.largest;
      s.first += power(share, p);
      s.second += power(share, q);
    });
  return s;
}

inline constexpr double undefined = std::numeric_limits<double>::quiet_NaN();

}  // namespace impl

/// S_0 = (l_1 / n) / max |x|.
template <class Row>
double s0(Row const& x) {
  auto const s = impl::sums_of(x, 1, 1);
  return s.defined() ? s.first / s.n : impl::undefined;
}

/// S_{1,p} = (l_1 / n) / l_p, p > 1. Fails cloning invariance: `star` mends that.
/// @throws argument_error for p ≤ 1
template <class Row>
double s1(Row const& x, double p) {
  detail::expect(p > 1 && std::isfinite(p), "sparsity::s1: p must be above 1, got ", p);
  auto const s = impl::sums_of(x, 1, p);
  return s.defined() ? s.first / s.n / std::pow(s.second, 1 / p) : impl::undefined;
}

/// S*_{q,p} = n^(1/p − 1/q) l_q / l_p, p > q > 0. S*_{1,2} = l_1 / (√n l_2) = cos(sign x, x) = 1/√(1 + Var|x| / E|x|²);
/// for a distribution e^((H_2 − ln n)/2).
/// @throws argument_error unless p > q > 0
template <class Row>
double star(Row const& x, double q = 1, double p = 2) {
  detail::expect(p > q && q > 0 && std::isfinite(p), "sparsity::star: p > q > 0 must hold, got q = ", q, ", p = ", p);
  auto const s = impl::sums_of(x, q, p);
  return s.defined() ? std::pow(s.first / s.n, 1 / q) / std::pow(s.second / s.n, 1 / p) : impl::undefined;
}

/// (√n − l_1/l_2) / (√n − 1) = (1 − S*_{1,2}) / (1 − 1/√n).
template <class Row>
double hoyer(Row const& x) {
  auto const s = impl::sums_of(x, 1, 2);
  if (!s.defined())
    return impl::undefined;
  double const root = std::sqrt(s.n);
  return s.n == 1 ? 0 : (root - s.first / std::sqrt(s.second)) / (root - 1);
}

/// 1 − 2 Σ_k (x_(k) / l_1) (n − k + 1/2) / n, |x| ascending, k = 1…n. Sorts: n log n, and a copy of the row.
template <class Row>
double gini(Row const& x) {
  auto const s = impl::sums_of(x, 1, 1);
  if (!s.defined())
    return impl::undefined;
  std::vector<double> ascending;
  ascending.reserve(static_cast<std::size_t>(s.n));
  heed::impl::for_each_number(x, [&](double each) { ascending.push_back(std::fabs(each) / s.largest); });
  std::sort(ascending.begin(), ascending.end());
  double sum = 0, k = 0;
  for (double const each : ascending)
    sum += each * (s.n - ++k + 0.5);
  return 1 - 2 * sum / (s.first * s.n);
}

/// (l_1 / l_2)² = n S*_{1,2}², for a distribution 1 / Σ p²: how many equal shares would be as spread out.
template <class Row>
double effective_support(Row const& x) {
  auto const s = impl::sums_of(x, 1, 2);
  return s.defined() ? s.first * s.first / s.second : impl::undefined;
}

/// The share of numbers with |x| ≤ eps; 0 for an empty row.
/// @throws argument_error for eps < 0
template <class Row>
double small_share(Row const& x, double eps = 0) {
  detail::expect(eps >= 0, "sparsity::small_share: eps must not be negative, got ", eps);
  double n = 0, small = 0;
  heed::impl::for_each_number(x, [&](double each) {
    ++n;
    small += std::fabs(each) <= eps ? 1 : 0;
  });
  return n == 0 ? 0 : small / n;
}

}  // namespace sparsity
HEED_ISA_END
}  // namespace heed
