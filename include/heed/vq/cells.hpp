#pragma once

#include <heed/kernel/tile.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

/// What a code stands for: a number of keys, and the mean of their values.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// Keys that only come: counts and running means. A mean neither grows with the length nor loses small values to a
/// large sum; it is kept in double, for a million steps in float would cost it half its digits.
/// @see formulas C6
struct code_means {
  index dim_v = 0;
  index* count = nullptr;  // [codes]
  double* mean = nullptr;  // [codes, dim_v]

  code_means() = default;
  code_means(arena& memory, index codes, index columns)
      : dim_v(columns), count(memory.take<index>(codes)), mean(memory.take<double>(codes * columns)) {}

  /// Takes in a key of this code, and writes the new mean to `row`.
  template <real T>
  void add(index code, T const* value, T* row) const {
    double const share = 1 / static_cast<double>(++count[code]);
    double* const m = mean + code * dim_v;
    for (index c = 0; c < dim_v; ++c) {
      m[c] += (static_cast<double>(value[c]) - m[c]) * share;
      row[c] = static_cast<T>(m[c]);
    }
  }
};

/// Keys that come, and go again: sums in two doubles each, so that what is left is right to the last digit however much
/// has gone.
struct code_sums {
  index dim_v = 0;
  index* count = nullptr;  // [codes]
  double* high = nullptr;  // [codes, dim_v]
  double* low = nullptr;   // [codes, dim_v]

  code_sums() = default;
  code_sums(arena& memory, index codes, index columns)
      : dim_v(columns), count(memory.take<index>(codes)), high(memory.take<double>(codes * columns)),
        low(memory.take<double>(codes * columns)) {}

  /// Takes in a key of this code (sign 1) or gives it back (sign −1).
  template <real T>
  void add(index code, T const* value, int sign) const {
    count[code] += sign;
    double* const h = high + code * dim_v;
    double* const l = low + code * dim_v;
    for (index c = 0; c < dim_v; ++c) {
      double const x = sign * static_cast<double>(value[c]), sum = h[c] + x, moved = sum - h[c];
      l[c] += (h[c] - (sum - moved)) + (x - moved);
      h[c] = sum;
    }
  }

  template <real T>
  void write(index code, T* row) const {
    if (count[code] == 0)
      return;
    auto const n = static_cast<double>(count[code]);
    for (index c = 0; c < dim_v; ++c)
      row[c] = static_cast<T>((high[code * dim_v + c] + low[code * dim_v + c]) / n);
  }
};

/// What a code's score is raised by: ln of its count, −inf for a code without keys.
template <real T>
void write_log_counts(index const* count, index codes, T* to) {
  for (index c = 0; c < codes; ++c)
    to[c] =
        count[c] == 0 ? -std::numeric_limits<T>::infinity() : static_cast<T>(std::log(static_cast<double>(count[c])));
}

}  // namespace impl
HEED_ISA_END
}  // namespace heed
