#include <heed/kernel/load.hpp>

#include "core/guard_pages.hpp"
#include "support/catch.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"

#include <cmath>
#include <limits>
#include <vector>

namespace heed::test {
namespace {

template <class Stored, class T>
constexpr bool goes_with = std::is_same_v<T, double> == std::is_same_v<Stored, double>;

template <class T>
std::byte const* bytes_of(T const* p) {
  return reinterpret_cast<std::byte const*>(p);
}
template <class T>
std::byte* bytes_of(T* p) {
  return reinterpret_cast<std::byte*>(p);
}

constexpr index row_counts[] = {0, 1, 2, 5};
constexpr index channel_counts[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 111};

TEMPLATE_TEST_CASE("Rows of any storage and strides are widened exactly, and written back", "[contract]", float, double,
                   Eigen::half, Eigen::bfloat16) {
  using T = arithmetic_t<TestType>;
  static_assert(goes_with<TestType, T>);
  generator random(1);
  INFO(random);
  for (index rows : row_counts)
    for (index n : channel_counts) {
      // row-major, with gaps, column-major, both strides large, backwards, and one row repeated
      index_array<2> const layouts[] = {{n, 1},     {n + 3, 1}, {1, rows + 2}, {2, 2 * rows + 1},
                                        {3 * n, 3}, {-n, 1},    {n, -1},       {0, 1}};
      for (auto const& strides : layouts) {
        bool const repeats = strides[0] == 0 && rows > 1;
        guarded<TestType, 2> from({rows, n}, strides), back({rows, n}, repeats ? index_array<2>{n, 1} : strides);
        fill_normal(from.view(), random);
        index const ld = n + 2;
        std::vector<T> to(static_cast<std::size_t>((rows + 1) * ld), T(-99));
        load_rows(bytes_of(from.view().data()), kind_of<TestType>(), strides[0], strides[1], rows, n, to.data(), ld);
        int wrong = 0;
        for (index r = 0; r <= rows; ++r)
          for (index c = 0; c < ld; ++c) {
            T const got = to[static_cast<std::size_t>(r * ld + c)];
            wrong += got != (r < rows && c < n ? static_cast<T>(from.view()(r, c)) : T(-99));
          }
        CAPTURE(rows, n, strides[0], strides[1]);
        REQUIRE(wrong == 0);
        auto const b = back.view();
        for (index r = 0; r < rows; ++r) {
          store_row(to.data() + r * ld, n, bytes_of(&b(r, 0)), kind_of<TestType>(), b.stride(1));
          for (index c = 0; c < n; ++c)
            wrong += !(b(r, c) == from.view()(r, c));
        }
        REQUIRE(wrong == 0);
        REQUIRE(back.damage().empty());
      }
    }
}

TEMPLATE_TEST_CASE("store_row rounds to nearest even, keeps NaN, overflows to infinity", "[contract][edges]",
                   Eigen::half, Eigen::bfloat16) {
  float const x[] = {1.0F + 0x1p-11F,
                     1.0F + 3 * 0x1p-11F,
                     1.0F + 0x1p-8F,
                     1.0F + 3 * 0x1p-8F,
                     3.4e38F,
                     -3.4e38F,
                     std::numeric_limits<float>::infinity(),
                     std::numeric_limits<float>::quiet_NaN(),
                     -0.0F};
  constexpr index n = std::size(x);
  TestType y[n + 1];
  y[n] = TestType(5);
  store_row(x, n, bytes_of(y), kind_of<TestType>(), 1);
  for (index i = 0; i < n; ++i) {
    auto const expected = static_cast<float>(round_to<TestType>(x[i])), got = static_cast<float>(y[i]);
    CHECK((got == expected || (std::isnan(got) && std::isnan(expected))));
  }
  if (std::is_same_v<TestType, Eigen::half>) {
    CHECK(static_cast<float>(y[0]) == 1);
    CHECK(static_cast<float>(y[1]) == 1 + 0x1p-9F);
    CHECK(std::isinf(static_cast<float>(y[4])));
  } else {
    CHECK(static_cast<float>(y[2]) == 1);
    CHECK(static_cast<float>(y[3]) == 1 + 0x1p-6F);
  }
  CHECK(std::isnan(static_cast<float>(y[7])));
  CHECK(std::signbit(static_cast<float>(y[8])));
  CHECK(static_cast<float>(y[n]) == 5);
}

TEST_CASE("Rows are read in place where storage and channel stride allow", "[contract]") {
  float const p[64] = {};
  CHECK(in_place<float>(make_operand(view<float const, 2>(p, {4, 8}, {16, 1}))));
  CHECK_FALSE(in_place<float>(make_operand(view<float const, 2>(p, {4, 8}, {1, 4}))));
  CHECK(in_place<float>(make_operand(view<float const, 2>(p, {4, 1}, {1, 4}))));  // one channel: any stride
  CHECK_FALSE(in_place<double>(make_operand(view<float const, 2>(p, {4, 8}))));
  Eigen::half const h[8] = {};
  CHECK_FALSE(in_place<float>(make_operand(view<Eigen::half const, 2>(h, {1, 8}))));
}

TEST_CASE("Rows are widened in registers where the channel stride allows", "[contract]") {
  float const p[64] = {};
  double const d[8] = {};
  Eigen::half const h[64] = {};
  Eigen::bfloat16 const b[8] = {};
  CHECK(in_registers<float>(make_operand(view<float const, 2>(p, {4, 8}, {16, 1}))));
  CHECK(in_registers<float>(make_operand(view<Eigen::half const, 2>(h, {4, 8}, {16, 1}))));
  CHECK_FALSE(in_registers<float>(make_operand(view<Eigen::half const, 2>(h, {4, 8}, {1, 4}))));
  CHECK(in_registers<float>(make_operand(view<Eigen::half const, 2>(h, {4, 1}, {1, 4}))));
  CHECK(in_registers<float>(make_operand(view<Eigen::bfloat16 const, 2>(b, {1, 8}))));
  CHECK(in_registers<double>(make_operand(view<double const, 2>(d, {1, 8}))));
  CHECK_FALSE(in_registers<double>(make_operand(view<float const, 2>(p, {1, 8}))));
}

TEMPLATE_TEST_CASE("load_widened is exact, and its first lanes touch nothing behind them", "[contract]", float, double,
                   Eigen::half, Eigen::bfloat16, std::int8_t) {
  using T = std::conditional_t<std::is_same_v<TestType, double>, double, float>;
  guard_pages const pages;
  generator random(3);
  for (index n = 1; n <= lanes<T>; ++n) {
    TestType* const p = pages.back<TestType>(n);
    for (index i = 0; i < n; ++i)
      if constexpr (std::is_same_v<TestType, std::int8_t>)
        p[i] = static_cast<std::int8_t>(random.whole(-128, 127));
      else
        p[i] = round_to<TestType>(random.normal());
    T got[static_cast<std::size_t>(lanes<T>)];
    store(got, batch<T>(load_widened_first(p, n)));
    for (index i = 0; i < lanes<T>; ++i)
      REQUIRE(got[i] == (i < n ? static_cast<T>(p[i]) : T(0)));
    if (n == lanes<T>) {
      store(got, batch<T>(load_widened(p)));
      for (index i = 0; i < n; ++i)
        REQUIRE(got[i] == static_cast<T>(p[i]));
    }
  }
}

TEMPLATE_TEST_CASE("pack_lanes turns rows into lanes, and unpack_lanes back", "[contract]", float, double) {
  using T = TestType;
  constexpr index w = lanes<T>;
  generator random(2);
  INFO(random);
  for (index count = 1; count <= w; ++count)
    for (index n : channel_counts)
      for (index width : {w, 3 * w}) {
        guarded<T, 2> rows({count, n}, {n + 3, 1}), back({count, n}, {n + 1, 1});
        guarded<T, 2> packed({n, w}, {width, 1});
        fill_normal(rows.view(), random);
        T factor[static_cast<std::size_t>(w)], inverse[static_cast<std::size_t>(w)];
        for (index i = 0; i < w; ++i) {
          auto const at = static_cast<std::size_t>(i);
          factor[at] = static_cast<T>(std::ldexp(i % 2 == 0 ? 1.0 : -1.0, static_cast<int>(i % 5)));
          inverse[at] = 1 / factor[at];
        }
        pack_lanes(rows.view().data(), n + 3, count, n, factor, packed.view().data(), width);
        int wrong = 0;
        for (index c = 0; c < n; ++c)
          for (index i = 0; i < w; ++i)
            wrong +=
                packed.view()(c, i) != (i < count ? rows.view()(i, c) * factor[static_cast<std::size_t>(i)] : T(0));
        unpack_lanes(packed.view().data(), width, n, inverse, back.view().data(), n + 1, count);
        for (index i = 0; i < count; ++i)
          for (index c = 0; c < n; ++c)
            wrong += back.view()(i, c) != rows.view()(i, c);
        CAPTURE(count, n, width);
        REQUIRE(wrong == 0);
        REQUIRE(packed.damage().empty());
        REQUIRE(back.damage().empty());
      }
}

TEMPLATE_TEST_CASE("all_finite finds a single number that is not, and looks at nothing else", "[contract][edges]",
                   float, double, Eigen::half, Eigen::bfloat16) {
  using T = TestType;
  T const nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
  for (index n : channel_counts)
    for (index rows : {1, 3, 4, 9}) {
      index const ld = n + 2;
      std::vector<T> x(static_cast<std::size_t>(rows * ld), nan);  // the gaps stay NaN
      for (index r = 0; r < rows; ++r)
        for (index c = 0; c < n; ++c)
          x[static_cast<std::size_t>(r * ld + c)] =
              c % 2 == 0 ? std::numeric_limits<T>::max() : std::numeric_limits<T>::lowest();
      REQUIRE(all_finite(x.data(), ld, rows, n));
      REQUIRE(all_finite(x.data(), ld, 0, n));
      for (index r = 0; r < rows; ++r)
        for (index c = 0; c < n; ++c) {
          T& place = x[static_cast<std::size_t>(r * ld + c)];
          T const before = place;
          for (T bad : {nan, infinity, -infinity}) {
            place = bad;
            REQUIRE_FALSE(all_finite(x.data(), ld, rows, n));
          }
          place = before;
        }
    }
}

}  // namespace
}  // namespace heed::test
