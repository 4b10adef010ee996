#include "support/catch.hpp"

#include <heed/diagnostics/nbce.hpp>

#include "support/random.hpp"

// D1: the merging of next-token rows.

namespace heed::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

Eigen::MatrixXd contexts() {
  Eigen::MatrixXd rows(3, 4);
  rows << 1, 0, 3, -1, 0.2, 0.1, 0, 2.5, 0.3, 0.3, 0.3, 0.3;
  return rows;
}
std::vector<double> const uncond{0, 1, 2, 0.5};

Eigen::VectorXd log_softmax(Eigen::VectorXd const& x) { return x.array() - std::log(x.array().exp().sum()); }

}  // namespace

TEST_CASE("NBCE's golden values", "[contract]") {
  std::vector<double> out(4);
  CHECK(nbce(contexts(), uncond, out, 0.25, 0.1, -1) == 0);
  double const expected[] = {-2.09497647, -3.59497647, -0.09497647, -4.71997647};
  for (std::size_t t = 0; t < 4; ++t)
    CHECK(out[t] == Approx(expected[t]).margin(0.6e-8).epsilon(0));
  double const entropies[] = {0.595087, 0.754779, 1.386294};
  for (index k = 0; k < 3; ++k) {
    Eigen::VectorXd const logs = log_softmax(contexts().row(k));
    CHECK(shannon_entropy(Eigen::VectorXd(logs.array().exp())) == Approx(entropies[k]).margin(0.6e-6).epsilon(0));
  }
  // Log-probabilities are logits, too.
  Eigen::MatrixXd logs = contexts();
  for (int k = 0; k < 3; ++k)
    logs.row(k) = log_softmax(logs.row(k)).transpose();
  std::vector<double> again(4);
  CHECK(nbce(logs, uncond, again) == 0);
  for (std::size_t t = 0; t < 4; ++t)
    CHECK(again[t] == Approx(out[t]).epsilon(1e-14));
}

TEST_CASE("NBCE sticks to the context it chose", "[contract]") {
  std::vector<double> out(4);
  // H = 0.595, 0.755, 1.386: eta must exceed the difference, 0.15969.
  CHECK(nbce(contexts(), uncond, out, 0.25, 0.1, 1) == 0);
  CHECK(nbce(contexts(), uncond, out, 0.25, 0.1597, 1) == 1);
  CHECK(nbce(contexts(), uncond, out, 0.25, 0.1596, 1) == 0);
  CHECK(nbce(contexts(), uncond, out, 0.25, 0.1597) == 0);
  Eigen::MatrixXd const same = Eigen::MatrixXd::Ones(3, 4);
  CHECK(nbce(same, uncond, out) == 0);  // the first of equals
  CHECK(nbce(same, uncond, out, 0.25, 0.1, 2) == 2);
}

TEST_CASE("Mean pooling with beta = n - 1 is the product of experts over p^(n-1)", "[identities]") {
  Eigen::VectorXd out(4), product = Eigen::VectorXd::Zero(4);
  nbce(contexts(), uncond, out, 2, 0.1, -1, {1, nbce_pooling::mean});
  for (int k = 0; k < 3; ++k)
    product += log_softmax(contexts().row(k));
  product -= 2 * log_softmax(Eigen::Map<Eigen::VectorXd const>(uncond.data(), 4));
  CHECK((log_softmax(out) - log_softmax(product)).norm() < 1e-14);
}

TEST_CASE("One context and beta = 0 is that context, whatever the pooling", "[identities]") {
  for (auto pooling : {nbce_pooling::least_entropy, nbce_pooling::mean, nbce_pooling::largest}) {
    Eigen::VectorXd out(4);
    CHECK(nbce(contexts().topRows(1).eval(), uncond, out, 0, 0.1, -1, {1, pooling}) == 0);
    CHECK((out - log_softmax(contexts().row(0))).norm() < 1e-15);
  }
  Eigen::VectorXd largest(4);
  nbce(contexts(), uncond, largest, 0, 0.1, -1, {1, nbce_pooling::largest});
  for (int t = 0; t < 4; ++t) {
    double top = -infinity;
    for (int k = 0; k < 3; ++k)
      top = std::max(top, log_softmax(contexts().row(k))(t));
    CHECK(largest(t) == top);
  }
}

TEST_CASE("Top-p cuts every row and does not renormalise", "[contract]") {
  // p = 0.5, 0.3, 0.15, 0.05 in two orders.
  Eigen::MatrixXd rows(1, 4);
  rows << std::log(0.15), std::log(0.5), std::log(0.05), std::log(0.3);
  std::vector<double> const base{std::log(0.5), std::log(0.05), std::log(0.3), std::log(0.15)};
  std::vector<double> out(4);
  nbce(rows, base, out, 1, 0, -1, {0.75});
  // Kept: tokens 1 and 3 of the context, 0 and 2 of the base. Where the base has nothing: the context's own.
  CHECK(out[0] == -infinity);
  CHECK(out[1] == Approx(std::log(0.5)));
  CHECK(out[2] == -infinity);
  CHECK(out[3] == Approx(std::log(0.3)));
  nbce(rows, base, out, 1, 0, -1, {0.9});
  CHECK(out[0] == Approx(2 * std::log(0.15) - std::log(0.5)));
  CHECK(out[1] == Approx(std::log(0.5)));
  CHECK(out[2] == -infinity);
  CHECK(out[3] == Approx(2 * std::log(0.3) - std::log(0.15)));
  nbce(rows, base, out, 1, 0, -1, {1e-9});  // at least one token stays
  CHECK(out[1] == Approx(std::log(0.5)));
  CHECK(out[3] == -infinity);
}

TEST_CASE("Tokens that one side rules out", "[edges]") {
  Eigen::MatrixXd rows(1, 4);
  rows << 0, -infinity, 1, -infinity;
  std::vector<double> const base{-infinity, 0, 1, -infinity};
  std::vector<double> out(4);
  nbce(rows, base, out, 0.5);
  double const lse = std::log(1 + std::exp(1.0));
  CHECK(out[0] == Approx(-lse));
  CHECK(out[1] == -infinity);
  CHECK(out[2] == Approx(1.5 * (1 - lse) - 0.5 * (1 - lse)));
  CHECK(out[3] == -infinity);
}

TEST_CASE("NBCE refuses what does not fit", "[errors]") {
  std::vector<double> out(4), small(3);
  auto const rows = contexts();
  CHECK_THROWS_AS(nbce(rows, small, out), argument_error);
  CHECK_THROWS_AS(nbce(rows, uncond, small), argument_error);
  CHECK_THROWS_AS(nbce(rows, uncond, out, -1.1), argument_error);
  CHECK_THROWS_AS(nbce(rows, uncond, out, 0.25, 0.1, 3), argument_error);
  CHECK_THROWS_AS(nbce(rows, uncond, out, 0.25, 0.1, -1, {0}), argument_error);
  CHECK_THROWS_AS(nbce(rows, uncond, out, 0.25, 0.1, -1, {1.5}), argument_error);
  CHECK_THROWS_AS(nbce(Eigen::MatrixXd(0, 4), uncond, out), argument_error);
  CHECK_THROWS_AS(nbce(Eigen::MatrixXd::Constant(1, 4, -infinity).eval(), uncond, out), argument_error);
}

}  // namespace heed::test
