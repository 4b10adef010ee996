#include <heed/kernel/products.hpp>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/sums.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace heed::test {
namespace {

template <class T>
constexpr T untouched = T(-12345);

#if defined(HEED_SMALL_SWEEP)
constexpr index counts[] = {0, 1, 5, 7, 96};
constexpr index dims[] = {1, 3, 8, 17};
#else
constexpr index counts[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 17, 19, 95, 96};
constexpr index dims[] = {1, 2, 3, 5, 8, 13, 17, 40, 64, 111};
#endif

TEMPLATE_TEST_CASE("scores are q · k for every number of keys, channels and lane vectors", "[contract]", float,
                   double) {
  using T = TestType;
  constexpr index width = block_lanes<T>;
  generator random(1);
  INFO(random);
  for (int vectors = 1; vectors <= block_vectors<T>; ++vectors)
    for (index n : counts)
      for (index dim : dims)
        for (index ld : {dim, dim + 5}) {
          if (ld != dim && n % 2 == 0)
            continue;
          auto const k = rows_with_gaps<T>(n, dim, ld, random), q = random_vector<T>(dim * width, random);
          std::vector<T> s(static_cast<std::size_t>((n + 1) * width), untouched<T>);
          auto maximum = random_vector<T>(width, random);
          auto const before = maximum;
          bool const with_maximum = n % 3 != 0;
          scores(vectors, k.data(), ld, n, q.data(), dim, s.data(), with_maximum ? maximum.data() : nullptr);
          int wrong = 0;
          for (index lane = 0; lane < width; ++lane) {
            bool const used = lane < vectors * lanes<T>;
            T top = before[static_cast<std::size_t>(lane)];
            for (index j = 0; j <= n; ++j) {
              T const got = s[static_cast<std::size_t>(j * width + lane)];
              if (!used || j == n) {
                wrong += got != untouched<T>;
                continue;
              }
              exact_sum expected;
              for (index c = 0; c < dim; ++c)
                expected.add(k[static_cast<std::size_t>(j * ld + c)], q[static_cast<std::size_t>(c * width + lane)]);
              wrong += !expected.matches(got);
              top = std::max(top, got);
            }
            T const unchanged = before[static_cast<std::size_t>(lane)];
            wrong += maximum[static_cast<std::size_t>(lane)] != (used && with_maximum ? top : unchanged);
          }
          CAPTURE(vectors, n, dim, ld);
          REQUIRE(wrong == 0);
        }
}

/// What the value products are given, and what must come out.
template <class T>
struct value_case {
  static constexpr index width = block_lanes<T>;
  index n, dim_v, ld;
  std::vector<T> v, w, o, rescale;

  value_case(index n_keys, index channels, index stride, generator& random)
      : n(n_keys), dim_v(channels), ld(stride), v(rows_with_gaps<T>(n, dim_v, ld, random)),
        w(random_vector<T>(n * width, random)), o(random_vector<T>((dim_v + 1) * width, random)),
        rescale(random_vector<T>(width, random)) {}

  /// How many numbers of `got` are not what keys with a bit in `visible` give.
  int wrong(std::vector<T> const& got, int vectors, std::vector<std::uint64_t> const& visible, int first_lane) const {
    int result = 0;
    for (index c = 0; c <= dim_v; ++c)
      for (index lane = 0; lane < width; ++lane) {
        auto const at = static_cast<std::size_t>(c * width + lane);
        if (c == dim_v || lane >= vectors * lanes<T>) {
          result += got[at] != o[at];
          continue;
        }
        exact_sum expected;
        expected.add(o[at], rescale[static_cast<std::size_t>(lane)]);
        for (index j = 0; j < n; ++j)
          if ((visible[static_cast<std::size_t>(j)] >> (first_lane + lane) & 1U) != 0)
            expected.add(v[static_cast<std::size_t>(j * ld + c)], w[static_cast<std::size_t>(j * width + lane)]);
        result += !expected.matches(got[at]);
      }
    return result;
  }
};

TEMPLATE_TEST_CASE("values are w · v beside the rescaled sums", "[contract]", float, double) {
  using T = TestType;
  generator random(2);
  INFO(random);
  for (int vectors = 1; vectors <= block_vectors<T>; ++vectors)
    for (index n : counts)
      for (index dim_v : dims) {
        value_case<T> const x(n, dim_v, n % 2 == 0 ? dim_v : dim_v + 3, random);
        std::vector<std::uint64_t> const all(static_cast<std::size_t>(n), ~std::uint64_t{0});
        auto o = x.o, guarded = x.o;
        values(vectors, x.v.data(), x.ld, n, x.w.data(), dim_v, o.data(), x.rescale.data());
        CAPTURE(vectors, n, dim_v);
        REQUIRE(x.wrong(o, vectors, all, 0) == 0);
        guarded_values(vectors, x.v.data(), x.ld, n, x.w.data(), all.data(), 0, dim_v, guarded.data(),
                       x.rescale.data());
        REQUIRE(guarded == o);  // bit for bit: the same sums in the same order
      }
}

TEMPLATE_TEST_CASE("values without a rescale are stored over whatever stood there", "[contract][edges]", float,
                   double) {
  using T = TestType;
  constexpr index width = block_lanes<T>;
  generator random(12);
  INFO(random);
  for (int vectors = 1; vectors <= block_vectors<T>; ++vectors)
    for (index dim_v : dims) {
      index const n = dim_v % 2 == 0 ? 7 : 0;
      value_case<T> x(n, dim_v, dim_v + 3, random);
      std::fill(x.rescale.begin(), x.rescale.end(), T(0));
      auto o = x.o;
      for (index c = 0; c < dim_v; ++c)
        std::fill_n(o.begin() + c * width, vectors * lanes<T>, std::numeric_limits<T>::quiet_NaN());
      values<T>(vectors, x.v.data(), x.ld, x.n, x.w.data(), dim_v, o.data(), nullptr);
      CAPTURE(vectors, dim_v);
      REQUIRE(x.wrong(o, vectors, std::vector<std::uint64_t>(static_cast<std::size_t>(n), ~std::uint64_t{0}), 0) == 0);
    }
}

TEMPLATE_TEST_CASE("guarded_values lets no hidden value through", "[contract][edges]", float, double) {
  using T = TestType;
  constexpr index width = block_lanes<T>;
  generator random(3);
  INFO(random);
  for (int vectors = 1; vectors <= block_vectors<T>; ++vectors)
    for (int first_lane : {0, lanes<T>}) {
      if (first_lane + vectors * lanes < T >> width)
        continue;
      for (index n : {1, 7, 96}) {
        value_case<T> x(n, 11, 14, random);
        std::vector<std::uint64_t> visible(static_cast<std::size_t>(n));
        for (index j = 0; j < n; ++j) {
          for (index lane = 0; lane < 64; ++lane)
            visible[static_cast<std::size_t>(j)] |= std::uint64_t{random.chance(0.6)} << lane;
          if (j % 3 == 0) {  // hidden from every lane but one: its weight is 0 and its value NaN or infinite
            index const lane = j % (vectors * lanes<T>);
            visible[static_cast<std::size_t>(j)] = 0;
            x.v[static_cast<std::size_t>(j * x.ld + j % 11)] =
                j % 2 == 0 ? std::numeric_limits<T>::quiet_NaN() : std::numeric_limits<T>::infinity();
            x.w[static_cast<std::size_t>(j * width + lane)] = T(0);
          }
        }
        auto o = x.o;
        guarded_values(vectors, x.v.data(), x.ld, n, x.w.data(), visible.data(), first_lane, x.dim_v, o.data(),
                       x.rescale.data());
        CAPTURE(vectors, first_lane, n);
        REQUIRE(x.wrong(o, vectors, visible, first_lane) == 0);
      }
    }
}

TEMPLATE_TEST_CASE("guarded_values lets a visible NaN reach its lane alone", "[edges]", float, double) {
  using T = TestType;
  constexpr index width = block_lanes<T>;
  T const v[] = {std::numeric_limits<T>::quiet_NaN()};
  std::vector<T> w(width, T(1)), o(width, T(0)), rescale(width, T(1));
  std::uint64_t const visible = 1U << 1;
  guarded_values<T>(1, v, 1, 1, w.data(), &visible, 0, 1, o.data(), rescale.data());
  CHECK(o[0] == 0);
  CHECK(std::isnan(o[1]));
}

TEST_CASE("pieces cover a range once: evenly, or in powers of two", "[contract]") {
  for (index n = 0; n < 60; ++n) {
    std::vector<index> heights;
    index next = 0;
    impl::pieces<6, true>(n, [&](auto height, index first) {
      REQUIRE(first == next);
      heights.push_back(height);
      next += height;
    });
    REQUIRE(next == n);
    REQUIRE(static_cast<index>(heights.size()) == (n + 5) / 6);
    if (n > 0)
      REQUIRE(*std::max_element(heights.begin(), heights.end()) - *std::min_element(heights.begin(), heights.end()) <=
              1);
    next = 0;
    impl::pieces<8, false>(n, [&](auto height, index first) {
      REQUIRE(first == next);
      REQUIRE((height & (height - 1)) == 0);
      next += height;
    });
    REQUIRE(next == n);
  }
}

}  // namespace
}  // namespace heed::test
