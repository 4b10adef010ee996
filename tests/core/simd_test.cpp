#include <heed/core/simd.hpp>

#include "core/guard_pages.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

namespace heed::test {
namespace {

template <class T>
using numbers = std::array<T, static_cast<std::size_t>(lanes<T>)>;

template <class T>
numbers<T> to_numbers(batch<T> const& x) {
  numbers<T> result;
  store(result.data(), x);
  return result;
}
template <class T>
numbers<T> random_numbers(generator& random) {
  numbers<T> result;
  for (T& x : result)
    x = static_cast<T>(random.normal());
  return result;
}
template <class T>
bool same_bits(T a, T b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

template <class T>
constexpr T nan = std::numeric_limits<T>::quiet_NaN();
template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();

TEMPLATE_TEST_CASE("load_first and store_first touch nothing outside", "[contract][edges]", float, double) {
  guard_pages const pages;
  generator random(1);
  numbers<TestType> const x = random_numbers<TestType>(random);
  for (index n = 1; n <= lanes<TestType>; ++n)
    for (TestType* const p : {pages.back<TestType>(n), pages.front<TestType>()}) {
      std::copy_n(x.begin(), n, p);
      auto const part = to_numbers<TestType>(load_first(p, n));
      for (index i = 0; i < lanes<TestType>; ++i) {
        auto const at = static_cast<std::size_t>(i);
        REQUIRE(part[at] == (i < n ? x[at] : TestType(0)));
      }
      std::fill_n(p, n, TestType(-1));
      store_first(p, load(x.data()), n);
      REQUIRE(std::equal(p, p + n, x.begin()));
    }
  // Behind the last lane, but inside the page: store_first must leave it.
  for (index n = 1; n <= lanes<TestType>; ++n) {
    std::array<TestType, 2 * static_cast<std::size_t>(lanes<TestType>)> to;
    to.fill(TestType(-7));
    store_first(to.data(), load(x.data()), n);
    REQUIRE(std::all_of(to.begin() + n, to.end(), [](TestType t) { return t == TestType(-7); }));
  }
}

TEMPLATE_TEST_CASE("load and store move whole vectors of any alignment", "[contract]", float, double) {
  guard_pages const pages;
  auto* const p = pages.back<TestType>(lanes<TestType> + 1);
  for (index i = 0; i <= lanes<TestType>; ++i)
    p[i] = static_cast<TestType>(i);
  auto const x = load(p + 1);
  store(p, x);
  for (index i = 0; i < lanes<TestType>; ++i)
    CHECK(p[i] == static_cast<TestType>(i + 1));
}

TEMPLATE_TEST_CASE("max and min return the second argument where either is NaN", "[contract]", float, double) {
  using T = TestType;
  T const special[] = {nan<T>, -nan<T>, T(0), T(1), T(-1), infinity<T>, -infinity<T>, std::numeric_limits<T>::max()};
  for (T a : special)
    for (T b : special) {
      bool const either = std::isnan(a) || std::isnan(b);
      T const greater = either ? b : std::max(a, b), less = either ? b : std::min(a, b);
      CAPTURE(a, b);
      for (T lane : to_numbers<T>(heed::max(batch<T>(a), batch<T>(b))))
        REQUIRE((same_bits(lane, greater)));
      for (T lane : to_numbers<T>(heed::min(batch<T>(a), batch<T>(b))))
        REQUIRE((same_bits(lane, less)));
      REQUIRE(same_bits(heed::max(a, b), greater));
      REQUIRE(same_bits(heed::min(a, b), less));
    }
}

TEMPLATE_TEST_CASE("not_equal holds for NaN, as for numbers", "[contract]", float, double) {
  using T = TestType;
  T const special[] = {nan<T>, T(0), -T(0), T(1), infinity<T>, -infinity<T>};
  for (T a : special)
    for (T b : special)
      CHECK(mask_bits<T>(not_equal<T>(batch<T>(a), batch<T>(b))) == (a != b ? (std::uint64_t{1} << lanes<T>)-1 : 0));
}

TEMPLATE_TEST_CASE("fma, abs and select act lane by lane, as on one number", "[contract]", float, double) {
  using T = TestType;
  generator random(2);
  for (int round = 0; round < 200; ++round) {
    auto const a = random_numbers<T>(random), b = random_numbers<T>(random), c = random_numbers<T>(random);
    batch<T> const x = load(a.data()), y = load(b.data()), z = load(c.data());
    auto const sum = to_numbers<T>(heed::fma(x, y, z)), positive = to_numbers<T>(heed::abs(x));
    auto const chosen = to_numbers<T>(heed::select(x < y, x, z));
    for (std::size_t i = 0; i < a.size(); ++i) {
      REQUIRE(sum[i] == heed::fma(a[i], b[i], c[i]));
      REQUIRE(positive[i] == std::fabs(a[i]));
      REQUIRE(heed::abs(a[i]) == positive[i]);
      REQUIRE(chosen[i] == heed::select(a[i] < b[i], a[i], c[i]));
      REQUIRE(chosen[i] == (a[i] < b[i] ? a[i] : c[i]));
    }
  }
#if defined(__FMA__) || defined(__aarch64__)
  T const epsilon = std::numeric_limits<T>::epsilon(), one_more = 1 + epsilon;
  T const exact = epsilon * epsilon;  // (1 + ε)² − (1 + 2ε), lost where the product is rounded
  CHECK(heed::fma(one_more, one_more, -(1 + 2 * epsilon)) == exact);
  CHECK(to_numbers<T>(heed::fma(batch<T>(one_more), batch<T>(one_more), batch<T>(-(1 + 2 * epsilon))))[0] == exact);
#endif
}

TEMPLATE_TEST_CASE("quotient is that of one number, bit for bit", "[contract][identity]", float, double) {
  using T = TestType;
  generator random(31);
  INFO(random);
  for (int round = 0; round < 500; ++round) {
    numbers<T> const a = random_numbers<T>(random), b = random_numbers<T>(random);
    numbers<T> both{};
    store(both.data(), quotient<T>(load(a.data()), load(b.data())));
    for (std::size_t i = 0; i < both.size(); ++i)
      REQUIRE(both[i] == a[i] / b[i]);
  }
}

TEMPLATE_TEST_CASE("Masks and bits are two forms of one thing", "[contract]", float, double) {
  using T = TestType;
  constexpr int w = lanes<T>;
  std::uint64_t const all = (std::uint64_t{1} << w) - 1;
  auto const check = [&](std::uint64_t bits) {
    auto const mask = mask_from_bits<T>(bits);
    REQUIRE(mask_bits<T>(mask) == (bits & all));
    REQUIRE(heed::any<T>(mask) == ((bits & all) != 0));
    auto const chosen = to_numbers<T>(heed::select(mask, batch<T>(T(1)), batch<T>(T(2))));
    for (std::size_t i = 0; i < chosen.size(); ++i)
      REQUIRE(chosen[i] == (((bits >> i) & 1U) != 0 ? T(1) : T(2)));
  };
  for (std::uint64_t bits = 0; bits <= all; bits += w <= 8 ? 1 : 37)
    check(bits);
  for (int i = 0; i < w; ++i)
    check(std::uint64_t{1} << i);
  check(all);
  check(~std::uint64_t{0});  // what is above the lanes does not matter
  check(~all);
  auto const number = iota<T>();
  CHECK(mask_bits<T>(number < batch<T>(T(2))) == 3);
  CHECK(mask_bits<T>(number != number) == 0);
}

TEMPLATE_TEST_CASE("iota counts the lanes", "[contract]", float, double) {
  auto const n = to_numbers<TestType>(iota<TestType>());
  for (std::size_t i = 0; i < n.size(); ++i)
    CHECK(n[i] == static_cast<TestType>(i));
}

TEMPLATE_TEST_CASE("Reductions take every lane in once", "[contract]", float, double) {
  using T = TestType;
  generator random(3);
  for (int i = 0; i < lanes<T>; ++i) {
    numbers<T> unit{};
    unit[static_cast<std::size_t>(i)] = T(3);
    batch<T> const zero(T(0)), x = load(unit.data());
    REQUIRE(reduce_add<T>(x) == T(3));
    REQUIRE(reduce_max<T>(x) == T(3));
    REQUIRE(reduce_max<T>(x - batch<T>(T(5))) == T(-2));
    for (int which = 0; which < 4; ++which) {
      T sums[6] = {9, 9, 9, 9, 9, 9};
      reduce_add4<T>(which == 0 ? x : zero, which == 1 ? x : zero, which == 2 ? x : zero, which == 3 ? x : zero,
                     sums + 1);
      for (int s = 0; s < 4; ++s)
        REQUIRE(sums[s + 1] == (s == which ? T(3) : T(0)));
      REQUIRE((sums[0] == 9 && sums[5] == 9));
    }
  }
  for (int round = 0; round < 500; ++round) {
    numbers<T> x[4];
    for (auto& each : x)
      each = random_numbers<T>(random);
    T sums[4];
    reduce_add4<T>(load(x[0].data()), load(x[1].data()), load(x[2].data()), load(x[3].data()), sums);
    for (int i = 0; i < 4; ++i) {
      double exact = 0, size = 0;
      for (T each : x[i]) {
        exact += static_cast<double>(each);
        size += std::fabs(static_cast<double>(each));
      }
      double const bound = size * static_cast<double>(std::numeric_limits<T>::epsilon()) * lanes<T>;
      REQUIRE(std::fabs(static_cast<double>(sums[i]) - exact) <= bound);
      REQUIRE(std::fabs(static_cast<double>(reduce_add<T>(load(x[i].data()))) - exact) <= bound);
      REQUIRE(reduce_max<T>(load(x[i].data())) == *std::max_element(x[i].begin(), x[i].end()));
    }
  }
  CHECK(std::isnan(reduce_add<T>(batch<T>(nan<T>))));
  CHECK(reduce_max<T>(batch<T>(-infinity<T>)) == -infinity<T>);
}

TEMPLATE_TEST_CASE("reduce_add4x4 gives the bits of reduce_add4, in rows", "[contract]", float, double) {
  using T = TestType;
  generator random(4);
  INFO(random);
  for (int round = 0; round < 100; ++round) {
    batch<T> x[16];
    for (auto& each : x)
      each = load(random_numbers<T>(random).data());
    T rows[4 * 7], expected[4];
    std::fill(std::begin(rows), std::end(rows), T(9));
    reduce_add4x4<T>(x, rows, 7);
    for (int r = 0; r < 4; ++r) {
      reduce_add4<T>(x[4 * r], x[4 * r + 1], x[4 * r + 2], x[4 * r + 3], expected);
      for (int i = 0; i < 7; ++i)
        REQUIRE(same_bits(rows[7 * r + i], i < 4 ? expected[i] : T(9)));
    }
  }
}

TEMPLATE_TEST_CASE("Every 16-bit number is widened exactly, and nothing beyond is read", "[contract]", Eigen::half,
                   Eigen::bfloat16) {
  guard_pages const pages;
  constexpr unsigned w = lanes<float>;
  auto* const p = pages.back<TestType>(w);
  int wrong = 0;
  for (unsigned bits = 0; bits < 0x10000U; bits += w) {
    for (unsigned i = 0; i < w; ++i)
      p[i] = Eigen::numext::bit_cast<TestType>(static_cast<std::uint16_t>(bits + i));
    auto const wide = to_numbers<float>(load_widened(p));
    for (unsigned i = 0; i < w; ++i) {
      auto const expected = static_cast<float>(p[i]);
      wrong += std::isnan(expected) ? !std::isnan(wide[i]) : !same_bits(wide[i], expected);
    }
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("store_narrowed rounds as round_to does, at every midpoint and beside it", "[contract]", Eigen::half,
                   Eigen::bfloat16) {
  guard_pages const pages;
  constexpr unsigned w = lanes<float>;
  auto* const p = pages.back<TestType>(w);
  std::vector<float> x;
  for (unsigned bits = 0; bits < 0xffffU; ++bits) {
    auto const low = static_cast<double>(Eigen::numext::bit_cast<TestType>(static_cast<std::uint16_t>(bits)));
    auto const high = static_cast<double>(Eigen::numext::bit_cast<TestType>(static_cast<std::uint16_t>(bits + 1)));
    auto const middle = static_cast<float>((low + high) / 2);
    x.insert(x.end(), {middle, std::nextafter(middle, 0.0F), std::nextafter(middle, 2 * middle)});
  }
  for (float large : {65519.0F, 65520.0F, 65536.0F, std::numeric_limits<float>::max()})
    x.insert(x.end(), {large, -large});
  for (std::uint32_t payload = 1; payload < 0x800000U; payload *= 2)
    x.insert(x.end(), {std::bit_cast<float>(0x7f800000U | payload), std::bit_cast<float>(0xff800000U | payload)});
  x.insert(x.end(), 2 * w - x.size() % w, std::bit_cast<float>(0x7fffffffU));  // adding to these would carry out
  int wrong = 0;
  for (std::size_t i = 0; i + w <= x.size(); i += w) {
    store_narrowed(p, load(x.data() + i));
    for (unsigned lane = 0; lane < w; ++lane) {
      auto const expected = round_to<TestType>(x[i + lane]);
      bool const nan_expected = std::isnan(static_cast<float>(expected));
      wrong += nan_expected ? !std::isnan(static_cast<float>(p[lane])) : !same_bits(p[lane], expected);
    }
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("load_hidden makes 0 of every true byte, and reads none beyond", "[contract]", float, double) {
  using T = TestType;
  guard_pages const pages;
  auto* const p = pages.back<std::byte>(lanes<T>);
  std::fill_n(p, lanes<T>, std::byte{1});
  for (int lane = 0; lane < lanes<T>; ++lane) {
    for (unsigned value = 0; value < 256; ++value) {
      p[lane] = static_cast<std::byte>(value);
      auto const x = to_numbers<T>(load_hidden<T>(p));
      for (int i = 0; i < lanes<T>; ++i)
        REQUIRE(same_bits(x[static_cast<std::size_t>(i)], i == lane && value == 0 ? -infinity<T> : T(0)));
    }
    p[lane] = std::byte{1};
  }
}

TEST_CASE("float and double are widened by loading them", "[contract]") {
  generator random(4);
  auto const f = random_numbers<float>(random);
  auto const d = random_numbers<double>(random);
  CHECK(to_numbers<float>(load_widened(f.data())) == f);
  CHECK(to_numbers<double>(load_widened(d.data())) == d);
}

TEMPLATE_TEST_CASE("exponent_from_low_bits makes powers of two", "[contract]", float, double) {
  using T = TestType;
  constexpr int bias = std::numeric_limits<T>::max_exponent - 1;
  T const magic = std::ldexp(T(1.5), std::numeric_limits<T>::digits - 1) + static_cast<T>(bias);
  for (int n = 1 - bias; n <= bias; ++n)
    REQUIRE(to_numbers<T>(exponent_from_low_bits(batch<T>(magic + static_cast<T>(n))))[0] == std::ldexp(T(1), n));
}

TEST_CASE("unroll calls with each number once, in order", "[contract]") {
  std::vector<int> seen, constants;
  unroll<5>([&](int i) { seen.push_back(i); });
  CHECK(seen == std::vector<int>{0, 1, 2, 3, 4});
  unroll_constants<5>([&](auto i) {
    static_assert(decltype(i)::value >= 0);
    constants.push_back(i);
  });
  CHECK(constants == seen);
}

}  // namespace
}  // namespace heed::test
