#include "support/catch.hpp"

#include <heed/diagnostics/noise.hpp>

#include "support/random.hpp"

// A4: what noise on the scores does to the output, against draws.

namespace heed::test {
namespace {

/// The next term of the delta method: with a = Σ p (w − 1), b = Σ p (w − 1)(v − o) and w = e^ε / E[e^ε], the error is
/// b / (1 + a), its square b² (1 − 2a + 3a²) to that order.
double second_order(std::vector<double> const& p, tensor<double, 2> const& v, index c, double o, double t) {
  double const e = std::exp(t * t), m2 = e - 1, m3 = std::pow(e, 3) - 3 * e + 2,
               m4 = std::pow(e, 6) - 4 * std::pow(e, 3) + 6 * e - 3;
  double p2 = 0, p2d = 0, p2d2 = 0, p3d2 = 0, p4d2 = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    double const d = v(static_cast<index>(i), c) - o, q = p[i] * p[i];
    p2 += q;
    p2d += q * d;
    p2d2 += q * d * d;
    p3d2 += q * p[i] * d * d;
    p4d2 += q * q * d * d;
  }
  return -2 * m3 * p3d2 + 3 * (m2 * m2 * (p2d2 * p2 + 2 * p2d * p2d) + (m4 - 3 * m2 * m2) * p4d2);
}

}  // namespace

TEST_CASE("The noise model foretells what drawing shows", "[contract]") {
  index const n = 2000, draws = 3000;
  generator random(31);
  std::vector<double> s, p;
  tensor<double, 2> v({n, 2});
  double sum = 0;
  for (index i = 0; i < n; ++i) {
    s.push_back(random.normal());
    v(i, 0) = random.normal();
    v(i, 1) = random.normal(2, 0.5);
    sum += std::exp(s.back());
  }
  double o[2] = {0, 0};
  for (index i = 0; i < n; ++i) {
    p.push_back(std::exp(s[static_cast<std::size_t>(i)]) / sum);
    for (int c = 0; c < 2; ++c)
      o[c] += p.back() * v(i, c);
  }
  for (double t : {0.1, 0.5, 1.0}) {
    double squares[2] = {0, 0}, fourths[2] = {0, 0};
    for (index draw = 0; draw < draws; ++draw) {
      double l = 0, y[2] = {0, 0};
      for (index i = 0; i < n; ++i) {
        double const w = p[static_cast<std::size_t>(i)] * std::exp(random.normal(0, t));
        l += w;
        for (int c = 0; c < 2; ++c)
          y[c] += w * v(i, c);
      }
      for (int c = 0; c < 2; ++c) {
        double const square = (y[c] / l - o[c]) * (y[c] / l - o[c]);
        squares[c] += square / static_cast<double>(draws);
        fourths[c] += square * square / static_cast<double>(draws);
      }
    }
    double model[2];
    noise_variance(p, v, gaussian_noise_factor(t), model);
    for (int c = 0; c < 2; ++c) {
      double const corrected = model[c] + second_order(p, v, c, o[c], t);
      double const deviation = std::sqrt((fourths[c] - squares[c] * squares[c]) / static_cast<double>(draws));
      INFO("t " << t << ", channel " << c << ": drawn " << squares[c] << " ± " << deviation << ", model " << model[c]
                << ", corrected " << corrected << ", " << random);
      CHECK(std::fabs(squares[c] - corrected) <= 3 * deviation);
      // What the delta method leaves out: of order Σ p³ / Σ p², with the third moment of the noise before it.
      CHECK(model[c] == Approx(corrected).epsilon(t < 1 ? 0.01 : 0.1));
    }
  }
}

TEST_CASE("The noise model by hand, and at the edges", "[contract][edges]") {
  CHECK(gaussian_noise_factor(0) == 0);
  CHECK(gaussian_noise_factor(1) == Approx(std::exp(1) - 1).epsilon(1e-15));
  CHECK(gaussian_noise_factor(1e-6) == Approx(1e-12).epsilon(1e-10));
  Eigen::MatrixXd v(2, 1);
  v << 1, 5;
  std::vector<double> const p{0.75, 0.25};  // o = 2: 2 · (0.75² · 1 + 0.25² · 9)
  double out[1];
  noise_variance(p, v, 2, out);
  CHECK(out[0] == Approx(2 * (0.5625 + 0.5625)).epsilon(1e-15));
  noise_variance(std::vector<double>{1, 0}, v, 2, out);
  CHECK(out[0] == 0);  // one key holds it all: noise cancels
  CHECK_THROWS_AS(noise_variance(std::vector<double>{1}, v, 2, out), argument_error);
  CHECK_THROWS_AS(noise_variance(p, v, 2, std::span<double>()), argument_error);
}

}  // namespace heed::test
