#include <heed/kernel/weights.hpp>

#include "support/catch.hpp"
#include "support/random.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace heed::test {
namespace {

using enum normalizer_rule;

static_assert(has_maximum<softmax> && has_maximum<l2_softmax> && !has_maximum<squared_relu>);

template <class T>
T lane0(batch<T> const& x) {
  T all[static_cast<std::size_t>(lanes<T>)];
  store(all, x);
  return all[0];
}

template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();

TEMPLATE_TEST_CASE("The weight of one score", "[contract][edges]", float, double) {
  using T = TestType;
  auto const soft = [](T s, T m) { return lane0<T>(weight_of<softmax, false>(batch<T>(s), batch<T>(m))); };
  CHECK(soft(T(2), T(2)) == 1);
  CHECK(soft(T(-1), T(2)) == T(0.125));
  CHECK(soft(-infinity<T>, T(2)) == 0);
  CHECK(soft(-infinity<T>, T(0)) == 0);
  CHECK(std::isnan(soft(std::numeric_limits<T>::quiet_NaN(), T(2))));
  CHECK(lane0<T>(weight_of<softmax, true>(batch<T>(T(-1)), batch<T>(T(2)))) == Approx(std::exp(-3.0)));
  CHECK(lane0<T>(weight_of<l2_softmax, false>(batch<T>(T(-1)), batch<T>(T(2)))) == T(0.125));
  auto const relu = [](T s) { return lane0<T>(weight_of<squared_relu, false>(batch<T>(s), batch<T>(T(9)))); };
  CHECK(relu(T(3)) == 9);
  CHECK(relu(T(-3)) == 0);
  CHECK(relu(T(0)) == 0);
  CHECK(relu(-infinity<T>) == 0);
  CHECK(std::isnan(relu(std::numeric_limits<T>::quiet_NaN())));
}

TEMPLATE_TEST_CASE("What the sums take in", "[contract][edges]", float, double) {
  using T = TestType;
  batch<T> const half(T(0.5)), three(T(3));
  CHECK(lane0<T>(added_to_sum<softmax, T>(half, three)) == T(3.5));
  CHECK(lane0<T>(added_to_sum<squared_relu, T>(half, three)) == T(3.5));
  CHECK(lane0<T>(added_to_sum<l2_softmax, T>(half, three)) == T(3.25));
  T const least = least_in_square<T>, below = std::nextafter(least, T(0));
  CHECK(lane0<T>(added_to_sum<l2_softmax, T>(batch<T>(least), batch<T>(T(0)))) == least * least);
  CHECK(lane0<T>(added_to_sum<l2_softmax, T>(batch<T>(below), batch<T>(T(0)))) == 0);
  CHECK(std::isnan(lane0<T>(added_to_sum<l2_softmax, T>(batch<T>(std::numeric_limits<T>::quiet_NaN()), three))));
  CHECK(lane0<T>(added_to_entropy<T>(half, batch<T>(T(1)), batch<T>(T(2)), three)) == T(2.5));
  CHECK(lane0<T>(added_to_entropy<T>(batch<T>(T(0)), batch<T>(-infinity<T>), batch<T>(T(2)), three)) == T(3));
}

/// A tile of scores with hidden keys, an empty lane, and state that is already there; then `weigh` against loops.
template <class T, normalizer_rule Rule, bool Scaled, bool Entropy>
void check_tile(int vectors, index n, generator& random) {
  constexpr index width = block_lanes<T>;
  constexpr auto w = static_cast<std::size_t>(width);
  constexpr T unset = T(-4321);
  std::vector<T> s(static_cast<std::size_t>((n + 1) * width)), maximum(w, Rule == squared_relu ? T(0) : -infinity<T>);
  std::vector<T> sum(w), entropy(w);
  for (index lane = 0; lane < width; ++lane) {
    auto const at = static_cast<std::size_t>(lane);
    for (index j = 0; j <= n; ++j) {
      T& score = s[static_cast<std::size_t>(j * width + lane)];
      score = lane == 1 || random.chance(0.2) ? -infinity<T> : static_cast<T>(random.normal(0, 3));
      if (j == n)
        score = unset;
      else if (Rule != squared_relu)
        maximum[at] = std::max(maximum[at], score);
    }
    sum[at] = static_cast<T>(random.uniform(0, 2));
    entropy[at] = static_cast<T>(random.uniform(-2, 0));
  }
  auto weights = s, new_sum = sum, new_entropy = entropy;
  index const lines = 1000, tiles = vectors / register_tile<T>::vectors + vectors % register_tile<T>::vectors;
  lines_ahead later(s.data(), 64, 64, lines);
  impl::weigh<Rule, Scaled, Entropy>(vectors, weights.data(), n, maximum.data(), new_sum.data(), new_entropy.data(),
                                     later);
  REQUIRE(later.left() == lines - 2 * n * tiles);
  int wrong = 0;
  double const tolerance = 64 * static_cast<double>(std::numeric_limits<T>::epsilon());
  for (index lane = 0; lane < width; ++lane) {
    auto const at = static_cast<std::size_t>(lane);
    bool const used = lane < vectors * lanes<T>;
    double total = static_cast<double>(sum[at]), spread = static_cast<double>(entropy[at]);
    double const top = std::isinf(maximum[at]) ? 0 : static_cast<double>(maximum[at]);
    for (index j = 0; j <= n; ++j) {
      auto const place = static_cast<std::size_t>(j * width + lane);
      if (!used || j == n) {
        wrong += weights[place] != s[place];
        continue;
      }
      auto const score = static_cast<double>(s[place]), over = score - top;
      double const positive = score > 0 ? score : 0;
      double const expected = Rule == squared_relu ? positive * positive : Scaled ? std::exp(over) : std::exp2(over);
      auto const got = static_cast<double>(weights[place]);
      wrong += !(std::fabs(got - expected) <= tolerance * (1 + std::min(std::fabs(over), 1000.0)) * expected);
      wrong += score == -std::numeric_limits<double>::infinity() && got != 0;
      total += Rule == l2_softmax ? got * got : got;
      spread += got == 0 ? 0 : got * over;
    }
    auto const near = [&](T got, double expected) {
      return std::fabs(static_cast<double>(got) - expected) <=
             tolerance * (1 + std::fabs(expected)) * static_cast<double>(n + 1);
    };
    wrong += used ? !near(new_sum[at], total) : new_sum[at] != sum[at];
    wrong += used && Entropy ? !near(new_entropy[at], spread) : new_entropy[at] != entropy[at];
  }
  CAPTURE(n, vectors, Scaled, Entropy, static_cast<int>(Rule));
  REQUIRE(wrong == 0);
}

TEMPLATE_TEST_CASE("weigh weighs its lanes in place and sums what it wrote", "[contract]", float, double) {
  using T = TestType;
  constexpr int most = block_vectors<T>;
  generator random(1);
  INFO(random);
  for (index n : {0, 1, 2, 7, 96}) {
    check_tile<T, softmax, false, false>(1, n, random);
    check_tile<T, softmax, false, true>(most, n, random);
    check_tile<T, softmax, true, false>(2, n, random);
    check_tile<T, softmax, true, true>(1, n, random);
    check_tile<T, l2_softmax, false, false>(most, n, random);
    check_tile<T, l2_softmax, true, false>(1, n, random);
    check_tile<T, squared_relu, false, false>(most, n, random);
  }
}

TEST_CASE("The row sum is exactly what enters the value product", "[contract]") {
  // The sum of two weights as they were stored, not of the numbers they were rounded from.
  constexpr index width = block_lanes<float>;
  std::vector<float> s(2 * width, -0.3F), maximum(width, 0.0F), sum(width, 0.0F), entropy(width, 0.0F);
  lines_ahead nothing;
  impl::weigh<softmax, true, false>(1, s.data(), 2, maximum.data(), sum.data(), entropy.data(), nothing);
  CHECK(sum[0] == s[0] + s[static_cast<std::size_t>(width)]);
}

}  // namespace
}  // namespace heed::test
