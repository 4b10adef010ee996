#include <heed/kernel/row_products.hpp>

#include "core/guard_pages.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace heed::test {
namespace {

template <class T>
void fill_random(T* p, index n, generator& random) {
  for (index i = 0; i < n; ++i)
    if constexpr (std::is_same_v<T, std::int8_t>)
      p[i] = static_cast<T>(random.whole(-128, 127));
    else
      p[i] = round_to<T>(random.normal());
}

/// What a storage is widened to.
template <class Stored>
using arithmetic = std::conditional_t<std::is_same_v<Stored, double>, double, float>;

template <class T>
bool close(T got, double expected, double size, index terms) {
  return std::fabs(static_cast<double>(got) - expected) <=
         static_cast<double>(std::numeric_limits<T>::epsilon()) * (static_cast<double>(terms) + 2) * size;
}

#if defined(HEED_SMALL_SWEEP)
constexpr index key_counts[] = {0, 1, 5, 13};
constexpr index dims[] = {1, 8, 17, 80};
#else
constexpr index key_counts[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 19};
constexpr index dims[] = {1, 2, 3, 7, 8, 15, 16, 17, 33, 40, 64, 111, 128, 300};
#endif

TEMPLATE_TEST_CASE("row_scores are q · k, and read no key beyond its channels", "[contract]", float, double,
                   Eigen::half, Eigen::bfloat16, std::int8_t) {
  using T = arithmetic<TestType>;
  guard_pages const pages;
  generator random(1);
  INFO(random);
  for (index rows = 1; rows <= 9; ++rows)
    for (index n : key_counts)
      for (index dim : dims) {
        if (4096 < n * (dim + 3) * static_cast<index>(sizeof(TestType)))
          continue;
        index const ldk = dim + (n % 2 == 0 ? 3 : 0), ldq = round_up<index>(dim, lanes<T>), lds = n + 3 + rows;
        TestType* const k = pages.back<TestType>(std::max<index>(0, (n - 1) * ldk + (n > 0 ? dim : 0)));
        fill_random(k, std::max<index>(0, (n - 1) * ldk + (n > 0 ? dim : 0)), random);
        std::vector<T> q(static_cast<std::size_t>(rows * ldq)), s(static_cast<std::size_t>(rows * lds), T(-777));
        for (index r = 0; r < rows; ++r)
          fill_random(q.data() + r * ldq, dim, random);
        row_scores(k, ldk, n, q.data(), ldq, rows, dim, s.data(), lds);
        int wrong = 0;
        for (index r = 0; r < rows; ++r) {
          for (index j = 0; j < n; ++j) {
            double sum = 0, size = 0;
            for (index c = 0; c < dim; ++c) {
              double const product =
                  static_cast<double>(k[j * ldk + c]) * static_cast<double>(q[static_cast<std::size_t>(r * ldq + c)]);
              sum += product;
              size += std::fabs(product);
            }
            wrong += !close(s[static_cast<std::size_t>(r * lds + j)], sum, size, dim);
          }
          for (index j = n + 3; j < lds; ++j)  // room for 3 more keys, and no further
            wrong += s[static_cast<std::size_t>(r * lds + j)] != T(-777);
        }
        CAPTURE(rows, n, dim);
        REQUIRE(wrong == 0);
      }
}

TEMPLATE_TEST_CASE("row_scores of several rows are those of each, over more keys than stay in the cache", "[contract]",
                   float, double, Eigen::half, Eigen::bfloat16, std::int8_t) {
  using T = arithmetic<TestType>;
  generator random(5);
  constexpr index n = 300, dim = 128;
  std::vector<TestType> k(static_cast<std::size_t>(n * dim));
  fill_random(k.data(), n * dim, random);
  for (index rows : {2, 3, 5, 8}) {
    std::vector<T> q(static_cast<std::size_t>(rows * dim)), one(static_cast<std::size_t>(n + 3));
    fill_random(q.data(), rows * dim, random);
    std::vector<T> all(static_cast<std::size_t>(rows * (n + 3)));
    row_scores(k.data(), dim, n, q.data(), dim, rows, dim, all.data(), n + 3);
    for (index r = 0; r < rows; ++r) {
      row_scores(k.data(), dim, n, q.data() + r * dim, dim, 1, dim, one.data(), n + 3);
      CAPTURE(rows, r);
      REQUIRE(std::equal(one.begin(), one.begin() + n, all.begin() + r * (n + 3)));
    }
  }
}

template <class Stored, class T = arithmetic<Stored>>
struct row_case {
  index n, dim_v, rows, ldv, ldw, ldacc;
  std::vector<Stored> v;
  std::vector<T> w, acc, rescale;

  row_case(index n_keys, index channels, index n_rows, generator& random)
      : n(n_keys), dim_v(channels), rows(n_rows), ldv(channels + 2), ldw(n_keys + 5),
        ldacc(round_up<index>(channels, lanes<T>)), v(static_cast<std::size_t>(n * ldv)),
        w(static_cast<std::size_t>(rows * ldw)), acc(static_cast<std::size_t>((rows + 1) * ldacc)),
        rescale(static_cast<std::size_t>(rows)) {
    fill_random(v.data(), static_cast<index>(v.size()), random);
    for (auto* each : {&w, &acc, &rescale})
      fill_random(each->data(), static_cast<index>(each->size()), random);
    if constexpr (!std::is_same_v<Stored, std::int8_t>)
      for (index j = 0; j < n; ++j)  // the gap between rows
        v[static_cast<std::size_t>(j * ldv + dim_v)] = round_to<Stored>(std::numeric_limits<T>::quiet_NaN());
  }

  bool good(std::vector<T> const& got, index row, std::uint64_t const* visible) const {
    for (index c = 0; c < dim_v; ++c) {
      auto const at = static_cast<std::size_t>(row * ldacc + c);
      double sum = static_cast<double>(acc[at]) * static_cast<double>(rescale[static_cast<std::size_t>(row)]),
             size = std::fabs(sum);
      for (index j = 0; j < n; ++j) {
        if (!is_visible(visible, j))
          continue;
        double const product = static_cast<double>(w[static_cast<std::size_t>(row * ldw + j)]) *
                               static_cast<double>(v[static_cast<std::size_t>(j * ldv + c)]);
        sum += product;
        size += std::fabs(product);
      }
      if (!close(got[at], sum, size, n + 1))
        return false;
    }
    return true;
  }
};

TEMPLATE_TEST_CASE("row_values are w · v beside the rescaled sums, and guarded ones the same bits", "[contract]", float,
                   double, Eigen::half, Eigen::bfloat16, std::int8_t) {
  generator random(2);
  INFO(random);
  for (index rows = 1; rows <= 9; ++rows)
    for (index n : {0, 1, 2, 5, 33, 64, 150})  // 16 KiB of values and more
      for (index dim_v : dims) {
        row_case<TestType> const x(n, dim_v, rows, random);
        auto acc = x.acc, guarded = x.acc;
        row_values(x.v.data(), x.ldv, n, x.w.data(), x.ldw, rows, dim_v, acc.data(), x.ldacc, x.rescale.data());
        CAPTURE(rows, n, dim_v);
        for (index r = 0; r < rows; ++r) {
          REQUIRE(x.good(acc, r, nullptr));
          guarded_row_values(x.v.data(), x.ldv, n, x.w.data() + r * x.ldw, nullptr, dim_v, guarded.data() + r * x.ldacc,
                             x.rescale[static_cast<std::size_t>(r)]);
          REQUIRE(std::equal(guarded.begin() + r * x.ldacc, guarded.begin() + r * x.ldacc + dim_v,
                             acc.begin() + r * x.ldacc));
        }
        REQUIRE(std::equal(acc.end() - x.ldacc, acc.end(), x.acc.end() - x.ldacc));  // the row behind the last
      }
}

TEMPLATE_TEST_CASE("guarded_row_values lets no hidden value through, and every visible one", "[contract][edges]", float,
                   double, Eigen::half, Eigen::bfloat16) {
  using T = arithmetic<TestType>;
  generator random(3);
  constexpr index n = 150;
  row_case<TestType> x(n, 17, 1, random);
  std::uint64_t const visible[] = {0x8f0f00ff12345679U, 0x0123456789abcdefU, 0x80000000003c5a0fU};
  for (index j = 0; j < n; ++j)
    if (!is_visible(visible, j)) {
      x.w[static_cast<std::size_t>(j)] = T(0);
      x.v[static_cast<std::size_t>(j * x.ldv + j % 17)] = round_to<TestType>(std::numeric_limits<T>::quiet_NaN());
    }
  auto acc = x.acc;
  guarded_row_values(x.v.data(), x.ldv, n, x.w.data(), visible, 17, acc.data(), x.rescale[0]);
  CHECK(x.good(acc, 0, visible));
  REQUIRE(is_visible(visible, 149));
  x.v[static_cast<std::size_t>(149 * x.ldv + 4)] = round_to<TestType>(std::numeric_limits<T>::infinity());
  acc = x.acc;
  guarded_row_values(x.v.data(), x.ldv, n, x.w.data(), visible, 17, acc.data(), x.rescale[0]);
  CHECK(std::isinf(acc[4]));
  CHECK(std::isfinite(acc[5]));
}

/// What a walker asks for after `lines` lines, counted in bytes from the first row.
template <class Stored>
index fetched(index ld, index n, index lines) {
  auto const size = static_cast<index>(sizeof(Stored));
  index const a_row = (n * size + 63) / 64, ahead = std::max<index>(1, impl::fetched_bytes / (n * size));
  return (ahead + lines / a_row) * ld * size + lines % a_row * 64;
}

TEMPLATE_TEST_CASE("row_fetcher walks over the lines of rows, each once and in order", "[contract]", float, double,
                   Eigen::half, std::int8_t, std::byte) {
  using fetcher = impl::row_fetcher<TestType>;
  alignas(64) static TestType const rows[64]{};
  auto const first = static_cast<index>(reinterpret_cast<std::uintptr_t>(rows));
  for (index n : dims)
    for (index ld : {n, n + std::min<index>(n - 1, 5), index{0}, -n}) {
      CAPTURE(n, ld);
      auto const row = static_cast<std::uintptr_t>(ld) * sizeof(TestType);
      auto const further =
          std::max<std::uintptr_t>(1, impl::fetched_beyond / (static_cast<std::uintptr_t>(n) * sizeof(TestType))) * row;
      fetcher one(rows, ld, n), in_steps(rows, ld, n), part(rows, ld, n), far(rows, ld, n, true, true);
      for (index lines = 0; lines < 40; ++lines) {
        REQUIRE(static_cast<index>(one.at()) - first == fetched<TestType>(ld, n, lines));
        REQUIRE(far.at() == one.at());
        REQUIRE(far.beyond() - far.at() == further);
        one.next();
        far.next();
        // Three lines in eight steps, two of which have none to themselves; and a line in four readings.
        constexpr index three = 3 * fetcher::line;
        for (int step = 0; step < 8; ++step) {
          in_steps.template follow<three>(0, step, 8);
          REQUIRE(static_cast<index>(in_steps.at()) - first ==
                  fetched<TestType>(ld, n, 3 * lines + (step + 1) * 3 / 8));
        }
        constexpr index quarter = fetcher::line / 4;
        for (index c = 0; c < fetcher::line; c += quarter)
          for (int step = 0; step < 2; ++step)
            part.template follow<quarter>(c, step, 2);
        REQUIRE(part.at() == one.at());
      }
    }
}

TEST_CASE("row_fetcher asks for no floats of rows in a cache that lie apart", "[contract]") {
  static float const rows[4096]{};
  auto const steps = [](auto fetcher) {
    auto const before = fetcher.at();
    fetcher.next();
    return fetcher.at() != before;
  };
  static Eigen::half const halves[8192]{};
  CHECK(steps(impl::row_fetcher<float>(rows, 31, 16)));
  CHECK_FALSE(steps(impl::row_fetcher<float>(rows, 32, 16)));
  CHECK(steps(impl::row_fetcher<float>(rows, 32, 16, true, true)));
  CHECK(steps(impl::row_fetcher<Eigen::half>(halves, 32, 16)));
}

TEST_CASE("row_groups covers the rows once", "[contract]") {
  auto const check = [](auto twos) {
    for (index rows = 0; rows < 20; ++rows) {
      index next = 0;
      impl::row_groups<twos()>(rows, [&](auto count, index first) {
        REQUIRE(first == next);
        next += count;
      });
      REQUIRE(next == rows);
    }
  };
  check(std::true_type{});
  check(std::false_type{});
}

}  // namespace
}  // namespace heed::test
