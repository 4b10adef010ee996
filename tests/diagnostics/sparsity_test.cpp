#include "support/catch.hpp"

#include <heed/diagnostics/sparsity.hpp>

#include "support/random.hpp"

#include <functional>

// The measures of A3: their known values, the axioms they keep, the edges.

namespace heed::test {
namespace {

using row = std::vector<double>;

struct measure {
  std::string name;
  std::function<double(row const&)> of;
  bool larger_is_sparser;

  /// Whether a is sparser than b by a margin.
  bool sparser(row const& a, row const& b) const {
    return larger_is_sparser ? of(a) > of(b) + 1e-9 : of(a) < of(b) - 1e-9;
  }
};

/// Those that satisfy all six axioms.
std::vector<measure> good_measures() {
  return {{"star 1,2", [](row const& x) { return sparsity::star(x); }, false},
          {"star 1,3", [](row const& x) { return sparsity::star(x, 1, 3); }, false},
          {"gini", [](row const& x) { return sparsity::gini(x); }, true}};
}

row random_row(std::uint64_t seed, index n = 40) {
  generator random(seed);
  row x;
  for (index i = 0; i < n; ++i)
    x.push_back(std::exp(random.normal()));
  return x;
}

row with_appended(row x, row const& more) {
  x.insert(x.end(), more.begin(), more.end());
  return x;
}

}  // namespace

TEST_CASE("Known values: one-hot and uniform rows", "[contract]") {
  for (std::size_t n : {2, 5, 100}) {
    auto const size = static_cast<double>(n);
    row one_hot(n), even(n, 0.3);
    one_hot[n / 2] = -7;
    CHECK(sparsity::star(one_hot) == Approx(1 / std::sqrt(size)).epsilon(1e-14));
    CHECK(sparsity::hoyer(one_hot) == Approx(1).epsilon(1e-14));
    CHECK(sparsity::gini(one_hot) == Approx(1 - 1 / size).epsilon(1e-14));
    CHECK(sparsity::effective_support(one_hot) == 1);
    CHECK(sparsity::s0(one_hot) == Approx(1 / size).epsilon(1e-14));
    CHECK(sparsity::star(even) == Approx(1).epsilon(1e-14));
    CHECK(sparsity::hoyer(even) == Approx(0).margin(1e-14));
    CHECK(sparsity::gini(even) == Approx(0).margin(1e-14));
    CHECK(sparsity::effective_support(even) == Approx(size).epsilon(1e-14));
    CHECK(sparsity::s0(even) == Approx(1).epsilon(1e-14));
    CHECK(sparsity::small_share(one_hot) == Approx((size - 1) / size));
    CHECK(sparsity::small_share(even, 0.3) == 1);
    CHECK(sparsity::small_share(even, 0.29) == 0);
  }
  // By hand: |x| = 1, 2, 3, 4.
  row const x{-3, 1, 4, 2};
  CHECK(sparsity::s1(x, 2) == Approx(2.5 / std::sqrt(30)).epsilon(1e-14));
  CHECK(sparsity::star(x) == Approx(10 / (2 * std::sqrt(30))).epsilon(1e-14));
  CHECK(sparsity::hoyer(x) == Approx(2 - 10 / std::sqrt(30)).epsilon(1e-14));
  CHECK(sparsity::gini(x) == Approx(1 - 2 * (1 * 3.5 + 2 * 2.5 + 3 * 1.5 + 4 * 0.5) / 40).epsilon(1e-14));
  CHECK(sparsity::effective_support(x) == Approx(100.0 / 30).epsilon(1e-14));
}

TEST_CASE("Relations between the measures", "[identities]") {
  for (std::uint64_t seed : {1, 2, 3}) {
    row p = random_row(seed);
    double sum = 0, squares = 0;
    for (double x : p)
      sum += x;
    for (double& x : p)
      x /= sum;
    for (double x : p)
      squares += x * x;
    auto const n = static_cast<double>(p.size());
    double const star = sparsity::star(p);
    double const variance = squares / n - 1 / (n * n);
    CHECK(star == Approx(1 / std::sqrt(1 + variance * n * n)).epsilon(1e-12));
    CHECK(star == Approx(std::exp((renyi_entropy(p, 2) - std::log(n)) / 2)).epsilon(1e-12));
    CHECK(sparsity::hoyer(p) == Approx((1 - star) / (1 - 1 / std::sqrt(n))).epsilon(1e-12));
    CHECK(sparsity::effective_support(p) == Approx(n * star * star).epsilon(1e-12));
    CHECK(sparsity::effective_support(p) == Approx(1 / squares).epsilon(1e-12));
    CHECK(sparsity::s1(p, 3) == Approx(sparsity::star(p, 1, 3) / std::pow(n, 1.0 / 3)).epsilon(1e-12));
  }
}

TEST_CASE("Axioms D1 to D4, P1 and P2", "[identities][contract]") {
  for (measure const& m : good_measures())
    for (std::uint64_t seed : {4, 5, 6}) {
      INFO(m.name << ", seed " << seed);
      row const x = random_row(seed);
      auto const large = static_cast<std::size_t>(std::max_element(x.begin(), x.end()) - x.begin());
      auto const small = static_cast<std::size_t>(std::min_element(x.begin(), x.end()) - x.begin());
      row robbed = x, scaled = x, raised = x, huge = x, huger = x;
      double const taken = (x[large] - x[small]) / 3;
      robbed[large] -= taken;
      robbed[small] += taken;
      CHECK(m.sparser(x, robbed));  // D1
      for (double& each : scaled)
        each *= -1e-3;
      CHECK(m.of(scaled) == Approx(m.of(x)).epsilon(1e-13));  // D2
      for (double& each : raised)
        each += 0.5;
      CHECK(m.sparser(x, raised));                                         // D3
      CHECK(m.of(with_appended(x, x)) == Approx(m.of(x)).epsilon(1e-13));  // D4
      huge[large] = 1e3;
      huger[large] = 1e4;
      CHECK(m.sparser(huge, x));  // P1
      CHECK(m.sparser(huger, huge));
      CHECK(m.sparser(with_appended(x, {0}), x));  // P2
    }
}

TEST_CASE("The axioms that the simpler measures break, as the source says", "[identities]") {
  row const x = random_row(7);
  // S_{1,p} is not invariant under cloning.
  CHECK(sparsity::s1(with_appended(x, x), 2) < sparsity::s1(x, 2) - 1e-3);
  // S_0 does not see mass move among the numbers below the largest.
  row even{1, 0.5, 0.3}, uneven{1, 0.6, 0.2};
  CHECK(sparsity::s0(even) == Approx(sparsity::s0(uneven)).epsilon(1e-14));
  CHECK(sparsity::star(uneven) < sparsity::star(even));
}

TEST_CASE("Population values: exponential attention and exponential decay", "[contract]") {
  // a_j = λ^(n − j): S* = √((1 − λ^n)(1 + λ) / (n (1 − λ)(1 + λ^n))).
  for (double lambda : {0.5, 0.9, 0.99}) {
    row x;
    for (int j = 0; j < 60; ++j)
      x.push_back(std::pow(lambda, j));
    double const end = std::pow(lambda, 60);
    CHECK(sparsity::star(x) ==
          Approx(std::sqrt((1 - end) * (1 + lambda) / (60 * (1 - lambda) * (1 + end)))).epsilon(1e-12));
  }
  // Scores N(β, γ²): S* → e^(−γ²/2). The estimate's own deviation, over 20 rows of 10000, is 0.004 for γ = 0.7.
  generator random(8);
  double sum = 0;
  for (int r = 0; r < 20; ++r) {
    row x;
    for (int i = 0; i < 10000; ++i)
      x.push_back(std::exp(random.normal(0.4, 0.7)));
    sum += sparsity::star(x);
  }
  CHECK(sum / 20 == Approx(std::exp(-0.245)).margin(0.004));
}

TEST_CASE("Zeros, nothing, one number, and numbers that overflow", "[edges][contract]") {
  row const zeros(5), nothing, alone{-3}, huge{1e300, 1e300, 1e-300},
      broken{1, std::numeric_limits<double>::quiet_NaN(), 2};
  for (auto const& x : {zeros, nothing, broken}) {
    CHECK(std::isnan(sparsity::star(x)));
    CHECK(std::isnan(sparsity::hoyer(x)));
    CHECK(std::isnan(sparsity::gini(x)));
    CHECK(std::isnan(sparsity::effective_support(x)));
    CHECK(std::isnan(sparsity::s0(x)));
    CHECK(std::isnan(sparsity::s1(x, 2)));
  }
  CHECK(sparsity::small_share(zeros) == 1);
  CHECK(sparsity::small_share(nothing) == 0);
  CHECK(sparsity::star(alone) == 1);
  CHECK(sparsity::hoyer(alone) == 0);
  CHECK(sparsity::gini(alone) == 0);
  CHECK(sparsity::effective_support(alone) == 1);
  CHECK(sparsity::star(huge) == Approx(std::sqrt(2.0 / 3)).epsilon(1e-14));
  CHECK(sparsity::effective_support(huge) == Approx(2).epsilon(1e-14));
  CHECK_THROWS_AS(sparsity::star(alone, 2, 2), argument_error);
  CHECK_THROWS_AS(sparsity::star(alone, 0, 2), argument_error);
  CHECK_THROWS_AS(sparsity::s1(alone, 1), argument_error);
  CHECK_THROWS_AS(sparsity::small_share(alone, -1), argument_error);
}

}  // namespace heed::test
