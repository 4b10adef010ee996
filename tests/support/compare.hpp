#pragma once

#include <heed/core/eigen.hpp>
#include <heed/core/operand.hpp>
#include <heed/core/tensor.hpp>

#include <Eigen/Dense>
#include <cmath>
#include <limits>
#include <sstream>
#include <string>

/// How far a result is from what it should be, and how far the contract (§10) lets it be.

namespace heed::test {

/// The errors of one tensor against another: the largest, and where it is.
struct difference {
  double absolute = 0;  // max |got − expected|
  double relative = 0;  // the same over max |v|; over max |expected| where there is no v
  double got = 0, expected = 0;
  index_array<4> where{};

  std::string message() const {
    std::ostringstream text;
    text.precision(9);
    text << "max abs error " << absolute << ", relative " << relative << ", worst at [" << where[0] << ", " << where[1]
         << ", " << where[2] << ", " << where[3] << "]: got " << got << ", expected " << expected;
    return text.str();
  }
};

/// Both the same infinity or both NaN count as equal; one of them alone is an infinite error.
inline double absolute_error(double got, double expected) {
  if (got == expected || (std::isnan(got) && std::isnan(expected)))
    return 0;
  double const error = std::fabs(got - expected);
  return std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
}

template <class F>
void for_each_place(index_array<4> const& extents, F const& f) {
  for (index a = 0; a < extents[0]; ++a)
    for (index b = 0; b < extents[1]; ++b)
      for (index c = 0; c < extents[2]; ++c)
        for (index d = 0; d < extents[3]; ++d)
          f(a, b, c, d);
}

/// max |x| over the finite elements: what poisons a hidden place does not count.
template <class Tensor>
double largest(Tensor const& x) {
  operand const elements = make_operand(as_view(x));
  double result = 0;
  for_each_place(elements.extents, [&](index a, index b, index c, index d) {
    double const e = std::fabs(elements(a, b, c, d));
    if (std::isfinite(e))
      result = std::max(result, e);
  });
  return result;
}

template <class Got, class Expected>
difference difference_of(Got const& got, Expected const& expected, double relative_to) {
  operand const g = make_operand(as_view(got)), e = make_operand(as_view(expected));
  detail::expect(g.extents == e.extents, "difference_of: the tensors differ in shape");
  difference result;
  result.absolute = -1;
  for_each_place(e.extents, [&](index a, index b, index c, index d) {
    double const x = g(a, b, c, d), y = e(a, b, c, d), error = absolute_error(x, y);
    if (error > result.absolute)
      result = {error, 0, x, y, {a, b, c, d}};
  });
  result.absolute = std::max(result.absolute, 0.0);
  result.relative = result.absolute == 0 ? 0 : result.absolute / relative_to;
  return result;
}

template <class Got, class Expected>
difference difference_of(Got const& got, Expected const& expected) {
  return test::difference_of(got, expected, test::largest(expected));
}

/// Every bit the same; NaN equals NaN of the same bits only, and −0 is not 0.
template <class T, int Rank>
bool same_bits(tensor<T, Rank> const& a, tensor<T, Rank> const& b) {
  return a.extents() == b.extents() &&
         (a.size() == 0 || std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(T)) == 0);
}

/// ε of the arithmetic that goes with a storage type.
template <class Stored>
inline constexpr double unit_roundoff = std::is_same_v<arithmetic_t<Stored>, double> ? 0x1p-53 : 0x1p-24;

/// The composition a careful beginner writes, with plain Eigen products: S = scale · Q Kᵀ, softmax row by row, S·V, in
/// the arithmetic of the storage type; half and bfloat16 round the weights and the output, and nothing else.
///
/// @param scores the reference's: where they are −inf, the key is hidden (rank 4, [batch, heads_q, q_len, kv_len])
template <class Stored>
tensor<Stored, 4> naive_composition(view<Stored const, 4> const& q, view<Stored const, 4> const& k,
                                    view<Stored const, 4> const& v, tensor<double, 4> const& scores, double scale = 0) {
  using T = arithmetic_t<Stored>;
  using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  constexpr T hidden = -std::numeric_limits<T>::infinity();
  index const group = k.extent(1) == 0 ? 1 : q.extent(1) / k.extent(1);
  T const factor = static_cast<T>(scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(q.extent(3))));
  tensor<Stored, 4> out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)});
  for (index b = 0; b < q.extent(0); ++b)
    for (index h = 0; h < q.extent(1); ++h) {
      matrix values = v.matrix(b, h / group).template cast<T>();
      matrix s = q.matrix(b, h).template cast<T>() * k.matrix(b, h / group).template cast<T>().transpose() * factor;
      for (index i = 0; i < s.rows(); ++i) {
        for (index j = 0; j < s.cols(); ++j)
          if (scores(b, h, i, j) == -std::numeric_limits<double>::infinity())
            s(i, j) = hidden;
        T const m = s.cols() == 0 ? hidden : s.row(i).maxCoeff();
        if (m == hidden) {
          s.row(i).setZero();
          continue;
        }
        s.row(i) = (s.row(i).array() - m).exp().matrix().eval();
        s.row(i) = (s.row(i) / s.row(i).sum()).eval();
        if constexpr (sizeof(Stored) == 2)
          for (index j = 0; j < s.cols(); ++j)
            s(i, j) = static_cast<T>(round_to<Stored>(s(i, j)));
      }
      // 0 · NaN: a value that every row hides must not count.
      for (index j = 0; j < s.cols(); ++j)
        if ((s.col(j).array() == 0).all())
          values.row(j).setZero();
      matrix const o = s * values;
      for (index i = 0; i < o.rows(); ++i)
        for (index c = 0; c < o.cols(); ++c)
          out(b, h, i, c) = round_to<Stored>(o(i, c));
    }
  return out;
}

/// A result against the reference, and what the contract allows it, all relative to max |v|:
///
///     of_bound  error over 4 ε (1 + max |score|): float and double storage
///     of_naive  error over twice the error of the naive composition, where it is given
///
/// Below one last digit of the storage type an error is no error: the naive composition may be lucky.
struct accuracy {
  difference error;
  double bound = 0;
  double naive = -1;
  double last_digit = 0;

  bool within_bound() const { return error.relative <= bound; }
  bool within_naive() const { return naive < 0 || error.relative <= std::max(2 * naive, last_digit); }

  std::string message() const {
    std::ostringstream text;
    text.precision(4);
    text << error.message() << "; bound " << bound << " (used " << 100 * error.relative / bound << " %)";
    if (naive >= 0)
      text << "; naive composition " << naive;
    return text.str();
  }
};

/// @param expected the reference's output in the next wider type
/// @param scores the reference's: finite ones enter the bound
template <class Out, class Expected, class V, class Scores>
accuracy accuracy_of(Out const& out, Expected const& expected, V const& v, Scores const& scores) {
  using stored = typename decltype(as_view(out))::value_type;
  double const scale_of_v = test::largest(v);
  accuracy result;
  result.error = test::difference_of(out, expected, scale_of_v);
  result.last_digit = unit_roundoff<stored>;
  if constexpr (sizeof(stored) == 2)
    result.last_digit = std::is_same_v<stored, Eigen::half> ? 0x1p-11 : 0x1p-8;
  result.bound = 4 * unit_roundoff<stored> * (1 + test::largest(scores));
  if constexpr (sizeof(stored) == 2)
    result.bound += result.last_digit;  // the one rounding of the store
  return result;
}

/// The same, with what the naive composition makes of it.
template <class Out, class Expected, class V, class Scores, class Naive>
accuracy accuracy_of(Out const& out, Expected const& expected, V const& v, Scores const& scores, Naive const& naive) {
  accuracy result = test::accuracy_of(out, expected, v, scores);
  result.naive = test::difference_of(naive, expected, test::largest(v)).relative;
  return result;
}

}  // namespace heed::test
