#include <heed/kernel/exp.hpp>

#include "support/catch.hpp"
#include "support/random.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace heed::test {
namespace {

template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();
template <class T>
constexpr T nan = std::numeric_limits<T>::quiet_NaN();
template <class T>
using bits = std::conditional_t<std::is_same_v<T, float>, std::uint32_t, std::uint64_t>;
template <class T>
using wider = std::conditional_t<std::is_same_v<T, float>, double, long double>;

template <class T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

/// |got − exact| in units of the last place of exact.
template <class T>
double ulps(T got, wider<T> exact) {
  int const exponent = std::max(std::ilogb(exact), std::numeric_limits<T>::min_exponent - 1);
  return static_cast<double>(std::fabs(static_cast<wider<T>>(got) - exact) /
                             std::ldexp(wider<T>(1), exponent - std::numeric_limits<T>::digits + 1));
}

template <class T>
struct worst_case {
  double error = 0;
  T at = 0;

  void take(T x, double e) {
    if (!(e <= error)) {
      error = e;
      at = x;
    }
  }
};

template <class T, class F>
std::array<T, static_cast<std::size_t>(lanes<T>)> on_batch(F const& f, T const* x) {
  std::array<T, static_cast<std::size_t>(lanes<T>)> y;
  store(y.data(), batch<T>(f(load(x))));
  return y;
}

/// f over `count` numbers, lanes at a time, against `exact`.
template <class T, class Next, class F, class Exact>
worst_case<T> worst_over(index count, Next const& next, F const& f, Exact const& exact) {
  worst_case<T> worst;
  T x[static_cast<std::size_t>(lanes<T>)];
  for (index i = 0; i < count; i += lanes<T>) {
    for (T& each : x)
      each = next();
    auto const y = on_batch<T>(f, x);
    for (std::size_t lane = 0; lane < y.size(); ++lane)
      worst.take(x[lane], ulps<T>(y[lane], exact(static_cast<wider<T>>(x[lane]))));
  }
  return worst;
}

auto const weigh = [](auto x) { return exp2_weight(x); };

/// Every step-th float in (−100, 0], and the next to the ends:
/// the error in ulp, and whether one number and a batch agree.
void check_weights_of_floats(std::uint32_t step) {
  std::uint32_t const last = std::bit_cast<std::uint32_t>(-100.0F);
  worst_case<float> worst;
  index different = 0;
  alignas(64) float x[static_cast<std::size_t>(lanes<float>)];
  for (std::uint64_t pattern = 0x80000000U; pattern <= last; pattern += std::uint64_t{step} * lanes<float>) {
    for (std::uint32_t i = 0; i < lanes<float>; ++i)
      x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(std::min<std::uint64_t>(pattern + step * i, last)));
    auto const y = on_batch<float>(weigh, x);
    for (std::size_t i = 0; i < y.size(); ++i) {
      worst.take(x[i], ulps<float>(y[i], std::exp2(static_cast<double>(x[i]))));
      different += !same_bits(y[i], exp2_weight(x[i]));
    }
  }
  CAPTURE(worst.at, worst.error);
  CHECK(worst.error <= 2);
  CHECK(worst.error > 0.4);  // of a function that rounds: else the measurement is broken
  CHECK(different == 0);
}

TEST_CASE("exp2_weight of floats is within 2 ulp, the same for a number and a batch", "[contract]") {
  check_weights_of_floats(997);
}

TEST_CASE("exp2_weight of floats, densely", "[sweep]") { check_weights_of_floats(13); }

TEST_CASE("exp2_weight of doubles is within 2 ulp, the same for a number and a batch", "[contract]") {
  generator random(1);
  index different = 0;
  auto const next = [&] {
    return random.chance(0.5) ? -random.uniform(0, 960)
                              : -std::ldexp(random.uniform(0, 1), static_cast<int>(random.whole(-60, 4)));
  };
  auto const worst = worst_over<double>(200000, next, weigh, [](long double x) { return std::exp2(x); });
  CAPTURE(worst.at, worst.error);
  CHECK(worst.error <= 2);
  CHECK(worst.error > 0.4);
  for (int i = 0; i < 100000; ++i) {
    double const x = next();
    double all[static_cast<std::size_t>(lanes<double>)];
    std::fill(std::begin(all), std::end(all), x);
    different += !same_bits(on_batch<double>(weigh, all).back(), exp2_weight(x));
  }
  CHECK(different == 0);
}

TEMPLATE_TEST_CASE("exp2_weight keeps its promises at the ends", "[edges]", float, double) {
  using T = TestType;
  T const least = std::is_same_v<T, float> ? T(-100) : T(-960);
  auto const both = [](T x, T expected) {
    CAPTURE(x, expected);
    CHECK(same_bits(exp2_weight(x), expected));
    T all[static_cast<std::size_t>(lanes<T>)];
    std::fill(std::begin(all), std::end(all), x);
    for (T y : on_batch<T>(weigh, all))
      CHECK(same_bits(y, expected));
  };
  both(T(0), T(1));
  both(-T(0), T(1));
  both(-std::numeric_limits<T>::denorm_min(), T(1));
  CHECK(exp2_weight(std::nextafter(exp2_cut<T>, T(0))) > T(0));
  CHECK(exp2_cut<T> >= least - T(0.5));
  both(std::nextafter(exp2_cut<T>, -infinity<T>), T(0));
  both(exp2_cut<T> - T(0.25), T(0));
  both(least - T(1), T(0));
  both(least - T(1.5), T(0));
  both(least * 2, T(0));
  both(std::numeric_limits<T>::lowest(), T(0));
  both(-infinity<T>, T(0));
  for (int n = 1; n <= -static_cast<int>(least); ++n)
    both(-static_cast<T>(n), std::ldexp(T(1), -n));
  // What rounding may put above 0.
  CHECK(exp2_weight(std::numeric_limits<T>::epsilon()) == Approx(1));
}

TEMPLATE_TEST_CASE("exp2_weight of NaN is NaN, whatever its payload", "[edges]", float, double) {
  using T = TestType;
  constexpr int mantissa = std::numeric_limits<T>::digits - 1;
  bits<T> const exponent = std::bit_cast<bits<T>>(infinity<T>);
  for (bits<T> sign : {bits<T>(0), static_cast<bits<T>>(bits<T>(1) << (8 * sizeof(T) - 1))})
    for (int i = 0; i < mantissa; ++i)
      for (bits<T> payload : {static_cast<bits<T>>(bits<T>(1) << i), static_cast<bits<T>>((bits<T>(2) << i) - 1)}) {
        T all[static_cast<std::size_t>(lanes<T>)];
        for (T& each : all)
          each = std::bit_cast<T>(static_cast<bits<T>>(sign | exponent | payload));
        REQUIRE(std::isnan(exp2_weight(all[0])));
        for (T y : on_batch<T>(weigh, all))
          REQUIRE(std::isnan(y));
      }
  // One lane's NaN stays in its lane.
  T some[static_cast<std::size_t>(lanes<T>)] = {};
  some[1] = nan<T>;
  auto const y = on_batch<T>(weigh, some);
  CHECK(y[0] == T(1));
  CHECK(std::isnan(y[1]));
}

template <class T, class F>
void check_one(F const& f, T x, T expected) {
  CAPTURE(x, expected);
  T all[static_cast<std::size_t>(lanes<T>)];
  std::fill(std::begin(all), std::end(all), x);
  for (T y : on_batch<T>(f, all)) {
    if (std::isnan(expected)) {
      CHECK(std::isnan(y));
    } else {
      CHECK(y == expected);
      CHECK(std::signbit(y) == std::signbit(expected));
    }
  }
  if (std::isnan(expected))
    CHECK(std::isnan(f(x)));
  else
    CHECK(f(x) == expected);
}

auto const exp_of = [](auto x) { return heed::exp(x); };
auto const log_of = [](auto x) { return heed::log(x); };
auto const tanh_of = [](auto x) { return heed::tanh(x); };

TEMPLATE_TEST_CASE("exp is accurate until it overflows, and 0 where it would be subnormal", "[contract]", float,
                   double) {
  using T = TestType;
  generator random(2);
  T const top = std::log(std::numeric_limits<T>::max()), bottom = std::log(std::numeric_limits<T>::min());
  auto const exact = [](wider<T> x) { return std::exp(x); };
  auto const over = [&](T low, T high) {
    return worst_over<T>(
        100000, [&] { return static_cast<T>(random.uniform(static_cast<double>(low), static_cast<double>(high))); },
        exp_of, exact);
  };
  for (auto const& worst :
       {over(T(-1), T(1)), over(bottom * T(0.9999), top * T(0.9999)), over(top - 1, top - T(1e-3))}) {
    CAPTURE(worst.at, worst.error);
    CHECK(worst.error <= 3);
  }
}

TEMPLATE_TEST_CASE("exp of special numbers", "[edges]", float, double) {
  using T = TestType;
  check_one<T>(exp_of, T(0), T(1));
  check_one<T>(exp_of, -T(0), T(1));
  check_one<T>(exp_of, infinity<T>, infinity<T>);
  check_one<T>(exp_of, std::numeric_limits<T>::max(), infinity<T>);
  check_one<T>(exp_of, T(std::numeric_limits<T>::max_exponent), infinity<T>);
  check_one<T>(exp_of, -infinity<T>, T(0));
  check_one<T>(exp_of, std::numeric_limits<T>::lowest(), T(0));
  check_one<T>(exp_of, nan<T>, nan<T>);
}

TEMPLATE_TEST_CASE("tanh is accurate near 0, in between and far out", "[contract]", float, double) {
  using T = TestType;
  generator random(3);
  for (double reach : {1e-8, 1e-3, 0.1, 0.625, 0.7, 2.0, 10.0, 100.0}) {
    auto const worst = worst_over<T>(
        50000, [&] { return static_cast<T>(random.uniform(-reach, reach)); }, tanh_of,
        [](wider<T> x) { return std::tanh(x); });
    CAPTURE(reach, worst.at, worst.error);
    CHECK(worst.error <= 4);
  }
}

TEMPLATE_TEST_CASE("tanh of special numbers", "[edges]", float, double) {
  using T = TestType;
  check_one<T>(tanh_of, T(0), T(0));
  check_one<T>(tanh_of, -T(0), -T(0));
  check_one<T>(tanh_of, infinity<T>, T(1));
  check_one<T>(tanh_of, -infinity<T>, T(-1));
  check_one<T>(tanh_of, std::numeric_limits<T>::max(), T(1));
  check_one<T>(tanh_of, T(-1000), T(-1));
  check_one<T>(tanh_of, nan<T>, nan<T>);
  T x[static_cast<std::size_t>(lanes<T>)];
  for (std::size_t i = 0; i < std::size(x); ++i)
    x[i] = static_cast<T>(i) / 4;
  auto const positive = on_batch<T>(tanh_of, x);
  for (T& each : x)
    each = -each;
  auto const negative = on_batch<T>(tanh_of, x);
  for (std::size_t i = 0; i < std::size(x); ++i)
    CHECK(negative[i] == -positive[i]);
}

TEMPLATE_TEST_CASE("log is accurate, and knows its special numbers", "[contract][edges]", float, double) {
  using T = TestType;
  generator random(4);
  constexpr int most = std::numeric_limits<T>::max_exponent - 2;
  auto const next = [&] {
    return static_cast<T>(std::ldexp(random.uniform(0.5, 1), static_cast<int>(random.whole(3 - most, most))));
  };
  auto const worst = worst_over<T>(100000, next, log_of, [](wider<T> x) { return std::log(x); });
  CAPTURE(worst.at, worst.error);
  CHECK(worst.error <= 4);
  check_one<T>(log_of, T(1), T(0));
  check_one<T>(log_of, T(0), -infinity<T>);
  check_one<T>(log_of, infinity<T>, infinity<T>);
  check_one<T>(log_of, T(-1), nan<T>);
  check_one<T>(log_of, nan<T>, nan<T>);
}

TEMPLATE_TEST_CASE("exp, log and tanh of one number are the library's", "[contract]", float, double) {
  for (TestType x : {TestType(0.3), TestType(2), TestType(7.5)}) {
    CHECK(heed::exp(x) == std::exp(x));
    CHECK(heed::log(x) == std::log(x));
    CHECK(heed::tanh(-x) == std::tanh(-x));
  }
}

}  // namespace
}  // namespace heed::test
