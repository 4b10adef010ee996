#pragma once

#include "support/random.hpp"

#include <cmath>
#include <limits>
#include <vector>

/// What the kernels of products are given, and what must come out.

namespace heed::test {

template <class T>
std::vector<T> random_vector(index n, generator& random) {
  std::vector<T> result(static_cast<std::size_t>(n));
  for (T& x : result)
    x = static_cast<T>(random.normal());
  return result;
}

/// n rows of `count` numbers, `ld` apart, with NaN in the gaps: reading one would show.
template <class T>
std::vector<T> rows_with_gaps(index n, index count, index ld, generator& random) {
  std::vector<T> result(static_cast<std::size_t>(n * ld), std::numeric_limits<T>::quiet_NaN());
  for (index r = 0; r < n; ++r)
    for (index c = 0; c < count; ++c)
      result[static_cast<std::size_t>(r * ld + c)] = static_cast<T>(random.normal());
  return result;
}

/// Σ terms in double, and how far a sum in T may be from it.
struct exact_sum {
  double value = 0, size = 0;
  index terms = 0;

  template <class T>
  void add(T a, T b) {
    double const product = static_cast<double>(a) * static_cast<double>(b);
    value += product;
    size += std::fabs(product);
    ++terms;
  }
  exact_sum times(double factor) const { return {value * factor, size * std::fabs(factor), terms}; }

  template <class T>
  bool matches(T got) const {
    double const epsilon = static_cast<double>(std::numeric_limits<T>::epsilon());
    return std::fabs(static_cast<double>(got) - value) <= epsilon * (static_cast<double>(terms) + 2) * size;
  }
};

}  // namespace heed::test
