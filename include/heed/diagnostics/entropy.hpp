#pragma once

#include <heed/core/eigen.hpp>
#include <heed/core/mdspan.hpp>
#include <heed/core/tensor.hpp>
#include <heed/kernel/online.hpp>

#include <cmath>
#include <ranges>

/// How spread out a row of attention is: entropies of weights, or of scores as they come.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// A row as a view of rank 1: a contiguous range, or what `as_view` knows with one row or one column.
template <class Row>
auto row_view(Row&& row) {
  if constexpr (requires { as_view(row); }) {
    auto const v = as_view(std::forward<Row>(row));
    constexpr int rank = decltype(v)::rank;
    static_assert(rank <= 2, "heed: a row is one-dimensional");
    if constexpr (rank == 2)
      detail::expect(v.extent(0) == 1 || v.extent(1) == 1 || v.size() == 0,
                     "diagnostics: a row must have one row or one column, got ", v.extent(0), " x ", v.extent(1));
    index const stride = v.extent(rank - 1) == 1 ? v.stride(0) : v.stride(rank - 1);
    return view<std::remove_pointer_t<decltype(v.data())>, 1>(v.data(), {v.size()}, {stride});
  } else {
    static_assert(std::ranges::contiguous_range<Row>, "heed: a row is a contiguous range of numbers or a vector");
    return view<std::remove_pointer_t<decltype(std::ranges::data(row))>, 1>(
        std::ranges::data(row), {static_cast<index>(std::ranges::size(row))});
  }
}

/// Calls f(x) for each number of a row, as a double.
template <class Row, class F>
void for_each_number(Row const& row, F&& f) {
  auto const v = row_view(row);
  for (index i = 0; i < v.extent(0); ++i)
    f(static_cast<double>(v(i)));
}

}  // namespace impl

/// H = −Σ p ln p in nats, 0 ln 0 = 0; between 0 and ln n for a distribution. 0 for an empty row.
/// @see formulas A3
template <class Row>
double shannon_entropy(Row const& p) {
  double h = 0;
  impl::for_each_number(p, [&](double x) { h -= x == 0 ? 0 : x * std::log(x); });
  return h;
}

/// H_a = ln(Σ p^a) / (1 − a) in nats: a = 1 is Shannon's, a = 0 the logarithm of the support, a = ∞ is −ln max p.
/// H_2 needs one logarithm for the whole row.
/// @throws argument_error for a < 0 or NaN
/// @see formulas A3
template <class Row>
double renyi_entropy(Row const& p, double order) {
  detail::expect(order >= 0, "renyi_entropy: order must not be negative, got ", order);
  if (order == 1)
    return shannon_entropy(p);
  double sum = 0, largest = 0;
  impl::for_each_number(p, [&](double x) {
    largest = std::max(largest, x);
    sum += x == 0 ? 0 : order == 2 ? x * x : std::pow(x, order);
  });
  if (sum == 0 && largest == 0)
    return 0;
  return std::isinf(order) ? -std::log(largest) : std::log(sum) / (1 - order);
}

/// Entropies of a softmax row from its scores as they come, in five numbers:
///
///     m = max s,  l = Σ e^(s − m),  u = Σ e^(s − m) (s − m),  c = Σ e^2(s − m)
///     H = ln l − u/l,   Σ p² = c/l²,   lse = m + ln l
///
/// - `merge` joins disjoint parts of a row; the empty state is its identity, with entropy 0.
///   A score of −inf adds nothing.
/// @see formulas A1, A3
template <real T = double>
class streaming_entropy {
 public:
  void push(T score) {
    T const top = heed::max(score, m_);
    move_to(top);
    T const w = rescale_factor<T>(score, top, log2_e<T>);
    l_ += w;
    c_ += w * w;
    if (w != T(0))
      u_ += w * (score - top);
    ++keys_;
  }

  void merge(streaming_entropy const& other) {
    streaming_entropy part = other;
    T const top = heed::max(m_, part.m_);
    move_to(top);
    part.move_to(top);
    l_ += part.l_;
    u_ += part.u_;
    c_ += part.c_;
    keys_ += part.keys_;
  }

  index keys() const { return keys_; }
  T lse() const { return m_ + std::log(l_); }
  /// −Σ p ln p, in nats.
  T shannon() const { return finished_entropy<T>(l_, u_, T(1)); }
  /// −ln Σ p², in nats.
  T renyi_2() const { return l_ == T(0) ? T(0) : std::log(l_ * l_ / c_); }
  /// 1 / Σ p²: how many keys would give this much if they shared evenly; 0 for an empty row.
  T effective_support() const { return l_ == T(0) ? T(0) : l_ * l_ / c_; }

 private:
  void move_to(T top) {
    T const r = rescale_factor<T>(m_, top, log2_e<T>);
    u_ = rescaled_entropy_sum<T>(u_, l_, m_, top, r);
    l_ *= r;
    c_ *= r * r;
    m_ = top;
  }

  T m_ = -std::numeric_limits<T>::infinity();
  T l_ = T(0), u_ = T(0), c_ = T(0);
  index keys_ = 0;
};

HEED_ISA_END
}  // namespace heed
