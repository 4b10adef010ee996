#include "support/catch.hpp"

#include <heed/diagnostics/entropy.hpp>
#include <heed/diagnostics/sparsity.hpp>

#include "support/random.hpp"

#include <numeric>

// Entropies of rows, at once and as scores come.

namespace heed::test {
namespace {

std::vector<double> softmax_of(std::vector<double> const& s) {
  double const top = *std::max_element(s.begin(), s.end());
  std::vector<double> p;
  for (double x : s)
    p.push_back(std::exp(x - top));
  double const sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p)
    x /= sum;
  return p;
}

std::vector<double> random_scores(index n, std::uint64_t seed, double deviation) {
  generator random(seed);
  std::vector<double> s;
  for (index i = 0; i < n; ++i)
    s.push_back(random.normal(0, deviation));
  return s;
}

}  // namespace

TEST_CASE("Entropies of known rows", "[contract]") {
  std::vector<double> const one_hot{0, 0, 1, 0}, even(8, 0.125), halves{0.5, 0.25, 0.25};
  for (double order : {0.0, 0.5, 1.0, 2.0, 3.0, std::numeric_limits<double>::infinity()}) {
    CHECK(renyi_entropy(one_hot, order) == 0);
    CHECK(renyi_entropy(even, order) == Approx(std::log(8)).epsilon(1e-15));
  }
  CHECK(shannon_entropy(one_hot) == 0);
  CHECK(shannon_entropy(halves) == Approx(1.5 * std::log(2)).epsilon(1e-15));
  CHECK(renyi_entropy(halves, 2) == Approx(-std::log(0.375)).epsilon(1e-15));
  CHECK(renyi_entropy(halves, 0) == Approx(std::log(3)).epsilon(1e-15));
  CHECK(renyi_entropy(halves, std::numeric_limits<double>::infinity()) == Approx(std::log(2)).epsilon(1e-15));
  CHECK(shannon_entropy(std::vector<double>{}) == 0);
  CHECK(shannon_entropy(std::vector<double>{1}) == 0);
  CHECK(renyi_entropy(std::vector<double>{0, 0}, 2) == 0);
  CHECK_THROWS_AS(renyi_entropy(even, -1), argument_error);
}

TEST_CASE("Renyi's entropies fall with the order and meet Shannon's at 1", "[identities]") {
  auto const p = softmax_of(random_scores(100, 1, 1.5));
  double before = std::log(100) + 1e-12;
  for (double order : {0.0, 0.3, 0.9, 1.0, 1.1, 2.0, 5.0, 50.0}) {
    double const h = renyi_entropy(p, order);
    CHECK(h <= before);
    before = h;
  }
  CHECK(renyi_entropy(p, 1 + 1e-7) == Approx(shannon_entropy(p)).epsilon(1e-6));
}

TEST_CASE("A streamed row has the entropies of its weights", "[identities][contract]") {
  for (double deviation : {0.1, 1.0, 30.0}) {
    auto const s = random_scores(500, 2, deviation);
    auto const p = softmax_of(s);
    streaming_entropy<double> whole, parts[3];
    for (std::size_t i = 0; i < s.size(); ++i) {
      whole.push(s[i]);
      parts[i % 3].push(s[i]);
    }
    CHECK(whole.shannon() == Approx(shannon_entropy(p)).epsilon(1e-12).margin(1e-13));
    CHECK(whole.renyi_2() == Approx(renyi_entropy(p, 2)).epsilon(1e-12).margin(1e-13));
    CHECK(whole.effective_support() == Approx(sparsity::effective_support(p)).epsilon(1e-12));
    CHECK(whole.lse() == Approx(std::log(std::exp(s[0]) / p[0])).epsilon(1e-12));
    CHECK(whole.keys() == 500);
    streaming_entropy<double> joined, empty;
    joined.merge(parts[2]);
    joined.merge(parts[0]);
    joined.merge(empty);
    joined.merge(parts[1]);
    CHECK(joined.shannon() == Approx(whole.shannon()).epsilon(1e-12).margin(1e-13));
    CHECK(joined.renyi_2() == Approx(whole.renyi_2()).epsilon(1e-12).margin(1e-13));
    CHECK(joined.keys() == 500);
  }
}

TEST_CASE("Streamed rows at the edges", "[edges]") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  streaming_entropy<float> empty, one, hidden, far;
  CHECK(empty.shannon() == 0);
  CHECK(empty.renyi_2() == 0);
  CHECK(empty.lse() == -infinity);
  one.push(-1e5f);
  CHECK(one.shannon() == 0);
  CHECK(one.lse() == -1e5f);
  hidden.push(-infinity);
  CHECK(hidden.lse() == -infinity);
  hidden.push(3);
  hidden.push(-infinity);
  CHECK(hidden.shannon() == 0);
  CHECK(hidden.effective_support() == 1);
  for (int i = 0; i < 64; ++i)
    far.push(-1e5f);
  CHECK(far.shannon() == Approx(std::log(64.0f)));
}

TEST_CASE("Rows of every kind: ranges, Eigen vectors, views with strides", "[contract]") {
  std::vector<float> const list{0.5f, 0.25f, 0.25f};
  Eigen::RowVectorXf const row = Eigen::Map<Eigen::RowVectorXf const>(list.data(), 3);
  Eigen::VectorXf const column = row.transpose();
  std::vector<float> const spaced{0.5f, 9, 0.25f, 9, 0.25f, 9};
  double const h = 1.5 * std::log(2);
  CHECK(shannon_entropy(list) == Approx(h));
  CHECK(shannon_entropy(row) == Approx(h));
  CHECK(shannon_entropy(column) == Approx(h));
  CHECK(shannon_entropy(view<float const, 1>(spaced.data(), {3}, {2})) == Approx(h));
  CHECK_THROWS_AS(shannon_entropy(Eigen::MatrixXf(Eigen::MatrixXf::Ones(2, 2))), argument_error);
}

}  // namespace heed::test
