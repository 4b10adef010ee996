#pragma once

#include "support/compare.hpp"
#include "support/random.hpp"

#include <functional>
#include <vector>

/// Linear attention written as its recurrence, in double, a number at a time: what the tests compare with.

namespace heed::test {

struct naive_linear {
  std::function<double(double)> map = [](double x) { return x; };
  bool causal = false, normalized = true;
  double scale = 1;
  std::vector<index> offsets, lengths;  // per batch, where given
  std::vector<double> decay;            // per key head
  tensor<double, 4> log_decay;          // [batch, heads_kv, len, 1 or dim]
  tensor<double, 3> delta;              // [batch, heads_kv, len]
  std::vector<double> theta;            // rotary, halves, in the numerator

  double at(view<double const, 4> const& x, index b, index h, index i, index d, index position) const {
    double const here = map(x(b, h, i, d));
    auto const pairs = static_cast<index>(theta.size());
    if (d >= 2 * pairs)
      return here;
    double const angle = static_cast<double>(position) * theta[static_cast<std::size_t>(d % pairs)];
    double const other = map(x(b, h, i, d < pairs ? d + pairs : d - pairs));
    return here * std::cos(angle) + (d < pairs ? -other : other) * std::sin(angle);
  }

  template <class T>
  static tensor<double, 4> widened(tensor<T, 4> const& x) {
    tensor<double, 4> wide(x.extents());
    for (index i = 0; i < x.size(); ++i)
      wide.data()[i] = static_cast<double>(x.data()[i]);
    return wide;
  }

  template <class T>
  tensor<double, 4> operator()(tensor<T, 4> const& q, tensor<T, 4> const& k, tensor<T, 4> const& v) const {
    tensor<double, 4> const wide_q = widened(q), wide_k = widened(k), wide_v = widened(v);
    tensor<double, 4> out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)});
    for (index b = 0; b < q.extent(0); ++b)
      for (index h = 0; h < q.extent(1); ++h)
        row_of_heads(wide_q.view(), wide_k.view(), wide_v.view(), b, h, out);
    return out;
  }

 private:
  void row_of_heads(view<double const, 4> q, view<double const, 4> k, view<double const, 4> v, index b, index h,
                    tensor<double, 4>& out) const {
    index const g = h / (q.extent(1) / k.extent(1)), dim = q.extent(3), dim_v = v.extent(3);
    auto const place = static_cast<std::size_t>(b);
    index const keys = lengths.empty() ? k.extent(2) : lengths[place];
    index const offset = offsets.empty() ? keys - q.extent(2) : offsets[place];
    Eigen::MatrixXd s = Eigen::MatrixXd::Zero(dim, dim_v);
    Eigen::VectorXd z = Eigen::VectorXd::Zero(dim);
    index taken = 0;
    auto const take = [&](index t) {
      if (!decay.empty()) {
        s *= decay[static_cast<std::size_t>(g)];
        z *= decay[static_cast<std::size_t>(g)];
      }
      if (t >= keys)
        return;
      for (index d = 0; d < dim && log_decay.size() > 0; ++d) {
        double const factor = std::exp(log_decay(b, g, t, log_decay.extent(3) == 1 ? 0 : d));
        s.row(d) *= factor;
        z(d) *= factor;
      }
      Eigen::VectorXd key(dim), value(dim_v);
      for (index d = 0; d < dim; ++d) {
        key(d) = at(k, b, g, t, d, t);
        z(d) += map(k(b, g, t, d));
      }
      for (index c = 0; c < dim_v; ++c)
        value(c) = v(b, g, t, c);
      if (delta.size() > 0)
        value = delta(b, g, t) * (value - s.transpose() * key).eval();
      s += key * value.transpose();
    };
    for (index i = 0; i < q.extent(2); ++i) {
      index const position = i + offset, end = causal ? position + 1 : keys;
      for (; taken < end; ++taken)
        take(taken);
      if (end <= 0 || keys == 0)
        continue;
      Eigen::VectorXd query(dim);
      double sum = 0;
      for (index d = 0; d < dim; ++d) {
        query(d) = at(q, b, h, i, d, position);
        sum += map(q(b, h, i, d)) * z(d);
      }
      Eigen::VectorXd const row = s.transpose() * query;
      for (index c = 0; c < dim_v; ++c)
        out(b, h, i, c) = normalized ? (sum == 0 ? 0 : row(c) / sum) : scale * row(c);
    }
  }
};

inline double elu1(double x) { return x > 0 ? x + 1 : std::exp(x); }

}  // namespace heed::test
