#include <heed/kernel/online.hpp>

#include "support/catch.hpp"
#include "support/random.hpp"

#include <cstring>
#include <limits>
#include <vector>

namespace heed::test {
namespace {

template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();

constexpr std::size_t channels = 5;

/// The state of a row.
template <class T>
struct state {
  T m = -infinity<T>, l = 0, u = 0;
  std::array<T, channels> acc{};

  bool operator==(state const& other) const {
    return std::memcmp(&m, &other.m, sizeof(T)) == 0 && l == other.l && u == other.u && acc == other.acc;
  }
};

template <class T>
state<T> merged(state<T> a, state<T> const& b, T unit, bool running = true, bool squares = false) {
  merge_states<T>(a.m, a.l, a.u, a.acc.data(), b.m, b.l, b.u, b.acc.data(), channels, unit, running, squares);
  return a;
}

/// The state by its definition, in long double.
template <class T>
state<T> defined(std::vector<T> const& scores, std::vector<std::array<T, channels>> const& values,
                 bool squares = false) {
  state<T> result;
  for (T s : scores)
    result.m = std::max(result.m, s);
  long double l = 0, u = 0, acc[channels] = {};
  for (std::size_t j = 0; j < scores.size(); ++j) {
    if (scores[j] == -infinity<T>)
      continue;
    long double const over = static_cast<long double>(scores[j]) - static_cast<long double>(result.m),
                      w = std::exp(over);
    l += squares ? w * w : w;
    u += w * over;
    for (std::size_t c = 0; c < channels; ++c)
      acc[c] += w * static_cast<long double>(values[j][c]);
  }
  result.l = static_cast<T>(l);
  result.u = static_cast<T>(u);
  for (std::size_t c = 0; c < channels; ++c)
    result.acc[c] = static_cast<T>(acc[c]);
  return result;
}

template <class T>
struct piece {
  std::vector<T> scores;
  std::vector<std::array<T, channels>> values;

  piece(generator& random, index n, double deviation) {
    for (index j = 0; j < n; ++j) {
      scores.push_back(static_cast<T>(random.normal(0, deviation)));
      values.emplace_back();
      for (T& v : values.back())
        v = static_cast<T>(random.normal());
    }
  }
  piece operator+(piece const& other) const {
    piece result = *this;
    result.scores.insert(result.scores.end(), other.scores.begin(), other.scores.end());
    result.values.insert(result.values.end(), other.values.begin(), other.values.end());
    return result;
  }
  state<T> made(bool squares = false) const { return defined<T>(scores, values, squares); }
};

template <class T>
bool close(state<T> const& a, state<T> const& b, double tolerance) {
  auto const near = [&](T x, T y) {
    return std::fabs(static_cast<double>(x) - static_cast<double>(y)) <=
           tolerance * (1 + std::fabs(static_cast<double>(b.l)) + std::fabs(static_cast<double>(b.u)));
  };
  bool good = a.m == b.m && near(a.l, b.l) && near(a.u, b.u);
  for (std::size_t c = 0; c < channels; ++c)
    good = good && near(a.acc[c], b.acc[c]);
  return good;
}

template <class T>
constexpr double tolerance = 16 * static_cast<double>(std::numeric_limits<T>::epsilon());

TEMPLATE_TEST_CASE("Merging two states gives the state of all their keys", "[contract]", float, double) {
  using T = TestType;
  generator random(1);
  INFO(random);
  for (int round = 0; round < 300; ++round) {
    bool const squares = round % 3 == 0;
    piece<T> const a(random, random.whole(1, 9), 3), b(random, random.whole(1, 9), 3);
    state<T> both = merged(a.made(squares), b.made(squares), log2_e<T>, true, squares);
    state<T> expected = (a + b).made(squares);
    if (squares)
      both.u = expected.u = 0;  // the entropy of l2_softmax is not offered
    CAPTURE(round, both.l, expected.l, both.u, expected.u);
    REQUIRE(close(both, expected, tolerance<T>));
  }
}

TEMPLATE_TEST_CASE("The empty state is an identity, bit for bit", "[contract][edges]", float, double) {
  using T = TestType;
  generator random(2);
  state<T> const empty;
  for (int round = 0; round < 100; ++round)
    for (bool squares : {false, true}) {
      state<T> const s = piece<T>(random, random.whole(1, 5), 30).made(squares);
      REQUIRE(merged(s, empty, log2_e<T>, true, squares) == s);
      REQUIRE(merged(empty, s, log2_e<T>, true, squares) == s);
    }
  CHECK(merged(empty, empty, log2_e<T>) == empty);
  CHECK(merged(empty, empty, T(1), true, true) == empty);
}

TEMPLATE_TEST_CASE("Merging is exactly commutative", "[contract]", float, double) {
  using T = TestType;
  generator random(3);
  INFO(random);
  int different = 0;
  for (int round = 0; round < 2000; ++round) {
    bool const squares = round % 4 == 0, running = round % 5 != 0;
    T const unit = round % 2 == 0 ? log2_e<T> : T(1);
    state<T> const a = piece<T>(random, random.whole(0, 6), 2).made(squares);
    state<T> const b = round % 7 == 0 ? a : piece<T>(random, random.whole(0, 6), 2).made(squares);
    state<T> ab = merged(a, b, unit, running, squares), ba = merged(b, a, unit, running, squares);
    if (!running)
      ab.m = ba.m = ab.u = ba.u = 0;  // there are none
    different += !(ab == ba);
  }
  CHECK(different == 0);
}

TEMPLATE_TEST_CASE("Merging is associative to rounding", "[contract]", float, double) {
  using T = TestType;
  generator random(4);
  INFO(random);
  for (int round = 0; round < 300; ++round) {
    state<T> const a = piece<T>(random, random.whole(0, 4), 4).made(),
                   b = piece<T>(random, random.whole(0, 4), 4).made(),
                   c = piece<T>(random, random.whole(0, 4), 4).made();
    REQUIRE(close(merged(merged(a, b, log2_e<T>), c, log2_e<T>), merged(a, merged(b, c, log2_e<T>), log2_e<T>),
                  tolerance<T>));
  }
}

TEMPLATE_TEST_CASE("Without a maximum, states just add up", "[contract]", float, double) {
  using T = TestType;
  state<T> a, b;
  a.l = 3;
  b.l = 4;
  a.acc[1] = 2;
  b.acc[1] = 5;
  state<T> const both = merged(a, b, T(1), false);
  CHECK(both.l == 7);
  CHECK(both.acc[1] == 7);
  CHECK(both.m == -infinity<T>);
}

TEMPLATE_TEST_CASE("Scores far apart: the lesser state vanishes, and nothing is NaN", "[edges]", float, double) {
  using T = TestType;
  state<T> high, low;
  high.m = T(1e5);
  low.m = T(-1e5);
  high.l = low.l = 1;
  high.acc.fill(T(2));
  low.acc.fill(T(3));
  CHECK(merged(high, low, log2_e<T>) == high);
  CHECK(merged(low, high, log2_e<T>) == high);
}

TEMPLATE_TEST_CASE("Rescaling from and to an empty state", "[edges]", float, double) {
  using T = TestType;
  T const nothing = -infinity<T>;
  CHECK(rescale_factor<T>(nothing, nothing, T(1)) == 0);
  CHECK(rescale_factor<T>(nothing, T(3), T(1)) == 0);
  CHECK(rescale_factor<T>(T(3), T(3), T(1)) == 1);
  CHECK(rescale_factor<T>(T(2), T(3), T(1)) == T(0.5));
  CHECK(rescale_factor<T>(T(2), T(3), log2_e<T>) == Approx(std::exp(-1.0)));
  CHECK(std::isnan(rescale_factor<T>(std::numeric_limits<T>::quiet_NaN(), T(3), T(1))));
  CHECK(safe_maximum<T>(nothing) == 0);
  CHECK(safe_maximum<T>(T(-3)) == -3);
  CHECK(safe_maximum<T>(infinity<T>) == infinity<T>);
  CHECK(std::isnan(safe_maximum<T>(std::numeric_limits<T>::quiet_NaN())));
  CHECK(rescaled_entropy_sum<T>(T(5), T(2), nothing, T(3), T(0)) == 0);
  CHECK(rescaled_entropy_sum<T>(T(5), T(2), T(1), T(3), T(0.25)) == T(0.25));
}

TEMPLATE_TEST_CASE("A batch of rows is rescaled as its rows are", "[contract]", float, double) {
  using T = TestType;
  constexpr auto w = static_cast<std::size_t>(lanes<T>);
  generator random(5);
  T from[w], to[w], u[w], l[w], r[w], out[w];
  for (std::size_t i = 0; i < w; ++i) {
    to[i] = static_cast<T>(random.normal(0, 5));
    from[i] = to[i] - static_cast<T>(random.uniform(0, 3));
    u[i] = static_cast<T>(random.normal());
    l[i] = static_cast<T>(random.uniform(1, 4));
  }
  from[0] = -infinity<T>;
  to[1] = from[1] = -infinity<T>;
  batch<T> const factor = rescale_factor<T>(load(from), load(to), batch<T>(log2_e<T>));
  store(r, factor);
  store(out, rescaled_entropy_sum<T>(load(u), load(l), load(from), load(to), factor));
  for (std::size_t i = 0; i < w; ++i) {
    CHECK(r[i] == rescale_factor<T>(from[i], to[i], log2_e<T>));
    CHECK(out[i] == Approx(rescaled_entropy_sum<T>(u[i], l[i], from[i], to[i], r[i])).margin(1e-6));
  }
}

TEMPLATE_TEST_CASE("The entropy of a finished row", "[contract][edges]", float, double) {
  using T = TestType;
  CHECK(finished_entropy<T>(T(0), T(0), T(1)) == 0);
  CHECK(finished_entropy<T>(T(1), T(0), T(1)) == 0);
  CHECK(finished_entropy<T>(T(8), T(0), T(1)) == Approx(std::log(8.0)));
  CHECK(finished_entropy<T>(T(1), T(1e-9), T(1)) == 0);  // never below 0
  // Two keys, scores 0 and −1.
  double const w = std::exp(-1.0), l = 1 + w, expected = -(1 / l) * std::log(1 / l) - (w / l) * std::log(w / l);
  CHECK(finished_entropy<T>(static_cast<T>(l), static_cast<T>(-w), T(1)) == Approx(expected));
  CHECK(finished_entropy<T>(static_cast<T>(l), static_cast<T>(-w * 1.4426950408889634), ln_2<T>) == Approx(expected));
}

}  // namespace
}  // namespace heed::test
