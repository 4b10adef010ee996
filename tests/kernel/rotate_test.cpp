#include <heed/core/workspace.hpp>
#include <heed/kernel/rotate.hpp>

#include "support/catch.hpp"
#include "support/counting_allocator.hpp"
#include "support/random.hpp"

#include <cstring>
#include <limits>
#include <vector>

namespace heed::test {
namespace {

constexpr index pair_counts[] = {1, 2, 3, 5, 7, 8, 9, 16, 17, 29, 32, 64, 65};

std::vector<double> angles_for(index pairs) {
  std::vector<double> theta(static_cast<std::size_t>(pairs));
  for (index t = 0; t < pairs; ++t)
    theta[static_cast<std::size_t>(t)] = std::pow(10000.0, -static_cast<double>(t) / static_cast<double>(pairs));
  return theta;
}

/// cos and sin of position · theta in long double, whose product alone would be 6e-14 off at 10^6.
struct angle {
  long double cos, sin;

  angle(double position, double theta) {
    long double const p = position, product = p * theta, rest = std::fma(p, static_cast<long double>(theta), -product);
    cos = std::cos(product) * std::cos(rest) - std::sin(product) * std::sin(rest);
    sin = std::sin(product) * std::cos(rest) + std::cos(product) * std::sin(rest);
  }
};

/// A rotator, its angles and its scratch with a guard behind.
template <class T>
struct fixture {
  std::vector<double> theta;
  rotation what;
  std::size_t bytes;
  workspace memory;
  rotator<T> rotate;

  fixture(index pairs, bool interleaved, double factor = 1, double slowness = 1, index kept = 0)
      : theta(angles_for(pairs)), what{theta.data(), pairs, factor, interleaved, slowness},
        bytes(rotator<T>::scratch_bytes(what, kept)), memory(bytes + 64),
        rotate((std::memset(memory.data(), 0x5a, bytes + 64), what), memory.data(), kept) {}

  bool guard_is_whole() const {
    for (std::size_t i = 0; i < 64; ++i)
      if (memory.data()[bytes + i] != std::byte{0x5a})
        return false;
    return true;
  }
  index first_of(index t) const { return what.interleaved ? 2 * t : t; }
  index second_of(index t) const { return what.interleaved ? 2 * t + 1 : t + what.pairs; }
};

/// What one rounding of cos and sin, two products and a sum may cost, against |x_a| + |x_b|.
template <class T>
constexpr double tolerance = std::is_same_v<T, float> ? 3 * 0x1p-24 : 1e-14;

template <class T>
void check_rows(std::vector<double> const& positions, double factor, index behind, double slowness = 1) {
  generator random(7);
  INFO(random);
  for (index pairs : pair_counts)
    for (bool interleaved : {false, true}) {
      fixture<T> f(pairs, interleaved, factor, slowness);
      for (double position : positions) {
        std::vector<T> x(static_cast<std::size_t>(2 * pairs + behind));
        for (T& e : x)
          e = static_cast<T>(random.normal());
        std::vector<T> y = x;
        f.rotate.seek(position);
        f.rotate.rotate(y.data());
        double worst = 0;
        for (index t = 0; t < pairs; ++t) {
          auto const a = static_cast<std::size_t>(f.first_of(t)), b = static_cast<std::size_t>(f.second_of(t));
          angle const phi(position / slowness, f.theta[static_cast<std::size_t>(t)]);
          double const ya = static_cast<double>(factor * (x[a] * phi.cos - x[b] * phi.sin));
          double const yb = static_cast<double>(factor * (x[b] * phi.cos + x[a] * phi.sin));
          double const size = factor * (std::fabs(static_cast<double>(x[a])) + std::fabs(static_cast<double>(x[b])));
          worst = std::max({worst, std::fabs(static_cast<double>(y[a]) - ya) / size,
                            std::fabs(static_cast<double>(y[b]) - yb) / size});
        }
        INFO("pairs " << pairs << ", interleaved " << interleaved << ", position " << position);
        REQUIRE(worst <= tolerance<T>);
        REQUIRE(std::equal(x.begin() + 2 * pairs, x.end(), y.begin() + 2 * pairs));
      }
      REQUIRE(f.guard_is_whole());
    }
}

TEMPLATE_TEST_CASE("rotator: rows turn as the formula says, whatever the tail", "[contract]", float, double) {
  check_rows<TestType>({0, 1, 2, 3, 15, 16, 17, 255, 256, 257, 1000, -1, -2, -16, -17, -300, 0.5, -0.25, 1e5 + 0.125},
                       1, 0);
  check_rows<TestType>({5, 6, -3.5}, 1.2302585092994045, 0);
}

TEMPLATE_TEST_CASE("rotator: a slowed rotation needs more positions for the same angle", "[contract]", float, double) {
  check_rows<TestType>({0, 1, 2, 15, 16, 17, 255, 257, 1000, -3, 0.5}, 1, 0, 16);
  check_rows<TestType>({0, 1, 2, 17, 47, 150, -30, 0.25}, 1.5, 0, 3);
  check_rows<TestType>({1, 2, 17, 30}, 1, 0, -2.5);
  check_rows<TestType>({1, 17}, 1, 0, std::numeric_limits<double>::infinity());
}

TEMPLATE_TEST_CASE("rotator: channels behind the pairs stay", "[contract]", float, double) {
  check_rows<TestType>({1, 2}, 1, 3);
}

TEST_CASE("rotator: angles are right at any position", "[contract]") {
  fixture<double> f(64, false);
  generator random(11);
  INFO(random);
  for (double range : {1e3, 1e6, 1e7, 1e9, 1e12, 9e15}) {
    double worst = 0;
    for (int n = 0; n < 200; ++n) {
      double position = random.uniform(-range, range);
      if (n % 2 == 0)
        position = std::floor(position);
      f.rotate.seek(position);
      std::vector<double> y(128, 0.0);
      std::fill_n(y.begin(), 64, 1.0);
      f.rotate.rotate(y.data());
      for (std::size_t t = 0; t < 64; ++t) {
        angle const phi(position, f.theta[t]);
        worst = std::max({worst, std::fabs(static_cast<double>(y[t] - phi.cos)),
                          std::fabs(static_cast<double>(y[t + 64] - phi.sin))});
      }
    }
    INFO("range " << range);
    CHECK(worst <= 1e-14);
  }
}

TEST_CASE("rotator: a long walk does not drift", "[contract]") {
  fixture<double> f(64, false);
  double worst = 0;
  for (index p = 999'000; p < 1'001'000; ++p) {
    f.rotate.seek(static_cast<double>(p));
    std::vector<double> y(128, 0.0);
    std::fill_n(y.begin(), 64, 1.0);
    f.rotate.rotate(y.data());
    for (std::size_t t = 0; t < 64; t += 7) {
      angle const phi(static_cast<double>(p), f.theta[t]);
      worst = std::max(
          {worst, std::fabs(static_cast<double>(y[t] - phi.cos)), std::fabs(static_cast<double>(y[t + 64] - phi.sin))});
    }
  }
  CHECK(worst <= 1e-14);
}

TEMPLATE_TEST_CASE("rotator: bits depend on the position alone, not on the way there or on what is kept", "[contract]",
                   float, double) {
  generator random(3);
  INFO(random);
  for (auto const& [interleaved, kept] : {std::pair<bool, index>{false, 0}, {true, 0}, {false, 1504}, {true, 96}}) {
    fixture<TestType> wanderer(29, interleaved, 1, 1, kept);
    double position = 0;
    for (int n = 0; n < 2000; ++n) {
      switch (random.whole(0, 5)) {
      case 0:
        position = static_cast<double>(random.whole(-2000, 2000));
        break;
      case 1:
        position = random.uniform(-100, 100);
        break;
      case 2:
        position -= 1;
        break;
      default:
        position += static_cast<double>(random.whole(1, 20) == 20 ? 17 : 1);
      }
      wanderer.rotate.seek(position);
      fixture<TestType> fresh(29, interleaved);
      fresh.rotate.seek(position);
      std::vector<TestType> a(58);
      for (auto& e : a)
        e = static_cast<TestType>(random.normal());
      auto b = a;
      wanderer.rotate.rotate(a.data());
      fresh.rotate.rotate(b.data());
      INFO("step " << n << ", position " << position << ", kept " << kept);
      REQUIRE(std::memcmp(a.data(), b.data(), a.size() * sizeof(TestType)) == 0);
    }
    REQUIRE(wanderer.guard_is_whole());
  }
}

TEMPLATE_TEST_CASE("rotator: rows at once are the rows one by one, bit for bit", "[identities]", float, double) {
  generator random(7);
  INFO(random);
  for (index pairs : pair_counts)
    for (bool interleaved : {false, true})
      for (double begin : {0.0, 5.0, 250.0, -20.0, -257.0, 0.5, 0x1p53 - 8}) {
        index const rows = random.whole(0, 40), from_ld = 2 * pairs + 3, to_ld = 2 * pairs + 1;
        // Mostly one by one; a repeated, a skipped, a halved and a backward step among them.
        std::vector<double> positions(static_cast<std::size_t>(rows));
        double next = begin;
        for (double& position : positions) {
          position = next;
          double const steps[] = {0, 2, 0.5, -3};
          next += random.whole(0, 9) == 0 ? steps[random.whole(0, 3)] : 1;
        }
        std::vector<TestType> from(static_cast<std::size_t>(rows * from_ld + 1));
        for (auto& e : from)
          e = static_cast<TestType>(random.normal());
        std::vector<TestType> to(static_cast<std::size_t>(rows * to_ld + 1), TestType(3)), expected = to,
                                                                                           in_place = from;

        fixture<TestType> together(pairs, interleaved, 1.25, 1, random.chance(0.5) ? 272 : 0),
            apart(pairs, interleaved, 1.25);
        auto const position = [&](index i) { return positions[static_cast<std::size_t>(i)]; };
        together.rotate.rotate_rows(rows, position, from.data(), from_ld, to.data(), to_ld);
        together.rotate.rotate_rows(rows, position, in_place.data(), from_ld, in_place.data(), from_ld);
        for (index i = 0; i < rows; ++i) {
          apart.rotate.seek(position(i));
          apart.rotate.rotate(from.data() + i * from_ld, expected.data() + i * to_ld);
          apart.rotate.rotate(from.data() + i * from_ld);
        }
        INFO(rows << " rows of " << pairs << " pairs, interleaved " << interleaved << ", from position " << begin);
        REQUIRE(std::memcmp(to.data(), expected.data(), to.size() * sizeof(TestType)) == 0);
        REQUIRE(std::memcmp(in_place.data(), from.data(), from.size() * sizeof(TestType)) == 0);
        REQUIRE(together.guard_is_whole());
        std::vector<TestType> after(static_cast<std::size_t>(2 * pairs), TestType(1)), wanted = after;
        together.rotate.rotate(after.data());  // the position sought last still stands
        apart.rotate.rotate(wanted.data());
        if (rows > 0)
          REQUIRE(std::memcmp(after.data(), wanted.data(), after.size() * sizeof(TestType)) == 0);
      }
}

TEMPLATE_TEST_CASE("rotator: rotate_inverse undoes rotate, attention factor included", "[identities]", float, double) {
  generator random(5);
  INFO(random);
  for (index pairs : pair_counts)
    for (bool interleaved : {false, true}) {
      fixture<TestType> f(pairs, interleaved, 1.5);
      f.rotate.seek(-77.25);
      std::vector<TestType> x(static_cast<std::size_t>(2 * pairs));
      for (auto& e : x)
        e = static_cast<TestType>(random.normal());
      auto y = x;
      f.rotate.rotate(y.data());
      f.rotate.rotate_inverse(y.data());
      for (index t = 0; t < pairs; ++t) {
        auto const a = static_cast<std::size_t>(f.first_of(t)), b = static_cast<std::size_t>(f.second_of(t));
        double const size = std::fabs(static_cast<double>(x[a])) + std::fabs(static_cast<double>(x[b]));
        REQUIRE(std::fabs(static_cast<double>(y[a] - x[a])) <= 3 * tolerance<TestType> * size);
        REQUIRE(std::fabs(static_cast<double>(y[b] - x[b])) <= 3 * tolerance<TestType> * size);
      }
    }
}

TEST_CASE("rotator: position 0 and angle 0 leave every bit", "[edges]") {
  std::vector<double> const still(5, 0.0);
  for (bool interleaved : {false, true}) {
    workspace memory(rotator<float>::scratch_bytes(5));
    rotator<float> rotate({still.data(), 5, 1, interleaved}, memory.data());
    fixture<float> f(5, interleaved);
    std::vector<float> const x{1, -2, 3.5f, 1e-30f, 5e20f, 6, 7, 8, 9, 0.1f};
    auto y = x, z = x;
    f.rotate.seek(0);
    f.rotate.rotate(y.data());
    rotate.seek(12345.5);
    rotate.rotate(z.data());
    CHECK(y == x);
    CHECK(z == x);
  }
}

TEST_CASE("rotator: a position that is not a number gives NaN and harms no later row", "[edges]") {
  for (double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    fixture<float> f(9, true), fresh(9, true);
    std::vector<float> x(18, 1.0f), y(18, 1.0f), z(18, 1.0f);
    f.rotate.seek(3);
    f.rotate.seek(bad);
    f.rotate.rotate(x.data());
    for (float e : x)
      CHECK(std::isnan(e));
    f.rotate.seek(4);
    f.rotate.rotate(y.data());
    fresh.rotate.seek(4);
    fresh.rotate.rotate(z.data());
    CHECK(y == z);
  }
}

TEST_CASE("rotator: scratch comes in whole cache lines, and is all the memory there is", "[resources]") {
  for (index pairs : pair_counts) {
    CHECK(rotator<float>::scratch_bytes(pairs) % 64 == 0);
    CHECK(rotator<double>::scratch_bytes(pairs) % 64 == 0);
  }
  std::vector<double> const theta = angles_for(64);
  workspace memory(rotator<float>::scratch_bytes(64));
  std::vector<float> row(128, 1.0f);
  allocation_count const count;
  rotator<float> rotate({theta.data(), 64, 1, false}, memory.data());
  for (index p = -300; p < 300; ++p) {
    rotate.seek(static_cast<double>(p));
    rotate.rotate(row.data());
  }
  auto const requests = count.count();
  CHECK(requests == 0);
}

}  // namespace
}  // namespace heed::test
