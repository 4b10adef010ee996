#pragma once

#include "support/catch.hpp"

#include <Eigen/Core>
#include <cmath>

namespace heed::test {

/// The six queries, keys and values whose attention the formulas tell by rule and digits: the last row of what comes
/// out, to eight of them, and the sum of all rows, to ten.
struct golden_rows {
  Eigen::MatrixXd q{6, 4}, k{6, 4}, v{6, 3}, out{6, 3};

  golden_rows() {
    for (int i = 0; i < 6; ++i)
      for (int t = 0; t < 4; ++t) {
        q(i, t) = std::sin(0.7 * i + 1.3 * t + 0.1);
        k(i, t) = std::cos(0.9 * i - 0.5 * t + 0.2);
        if (t < 3)
          v(i, t) = std::sin(0.3 * i * i + 0.8 * t);
      }
  }

  void check_out(double a, double b, double c, double sum) const {
    CHECK((out.row(5) - Eigen::RowVector3d(a, b, c)).cwiseAbs().maxCoeff() <= 0.6e-8);
    CHECK(out.sum() == Approx(sum).margin(0.6e-10).epsilon(1e-11));
  }
};

}  // namespace heed::test
