#include "support/catch.hpp"

#include <heed/core/thread_pool.hpp>
#include <heed/position/rotary.hpp>
#include <heed/recurrent/scan.hpp>
#include <heed/reference/attention.hpp>

#include "support/compare.hpp"
#include "support/random.hpp"

// attention_scan: every prefix of the keys, and the same bits on every executor.

namespace heed::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class T, int Rank>
view<T const, Rank> prefix(tensor<T, Rank> const& x, index n) {
  index_array<Rank> extents = x.extents();
  extents[Rank - 2] = n;
  return {x.data(), extents, x.strides()};
}

/// Each row against the reference over that prefix, the query standing where it stood.
template <class T, class... Ms>
void check_prefixes(index_array<4> const& shape, index heads_q, double tolerance, Ms const&... ms) {
  index const batch = shape[0], n = shape[2];
  generator random(11);
  auto const q = normal_tensor<T, 4>({batch, heads_q, 1, shape[3]}, random);
  auto const k = normal_tensor<T, 4>(shape, random);
  auto const v = normal_tensor<T, 4>({batch, shape[1], n, 5}, random);
  tensor<T, 4> out({batch, heads_q, n, 5});
  tensor<double, 3> lses({batch, heads_q, n}), entropies({batch, heads_q, n});
  attention_scan(q, k, v, out, lse{lses}, entropy{entropies}, ms...);
  for (index j : {index{0}, index{1}, n / 3, index{127}, index{128}, index{129}, n - 1}) {
    if (j >= n)
      continue;
    tensor<double, 4> expected({batch, heads_q, 1, 5});
    tensor<double, 3> l({batch, heads_q, 1}), h({batch, heads_q, 1});
    reference::attention<long double>(q, prefix(k, j + 1), prefix(v, j + 1), expected, offset{n - 1}, lse{l},
                                      entropy{h}, ms...);
    INFO("prefix of " << j + 1 << " of " << n);
    for_each_place(expected.extents(), [&](index a, index b, index, index c) {
      CHECK(static_cast<double>(out(a, b, j, c)) == Approx(expected(a, b, 0, c)).margin(tolerance).epsilon(0));
      CHECK(absolute_error(lses(a, b, j), l(a, b, 0)) <= 4 * tolerance);
      CHECK(absolute_error(entropies(a, b, j), h(a, b, 0)) <= 16 * tolerance);
    });
  }
}

}  // namespace

TEST_CASE("A scan gives the attention of every prefix", "[identities][contract]") {
  rotary const turn{frequencies::standard(8), layout::half};
  std::vector<double> const sinks{0.4, -0.3, 2, 0};
  for (index n : {1, 5, 128, 129, 700}) {
    check_prefixes<double>({2, 2, n, 8}, 4, 1e-14);
    check_prefixes<float>({1, 2, n, 8}, 4, 4e-6, turn, softcap{2}, sink_logits{sinks});
    check_prefixes<double>({1, 1, n, 8}, 4, 1e-14, window{90, 0}, sink_tokens{2}, alibi::standard(4));
  }
  check_prefixes<Eigen::half>({1, 2, 300, 8}, 4, 2e-3);
}

TEST_CASE("The last prefix is attention itself", "[identities]") {
  generator random(12);
  auto const q = normal_tensor<double, 2>({1, 16}, random), k = normal_tensor<double, 2>({333, 16}, random),
             v = normal_tensor<double, 2>({333, 7}, random);
  tensor<double, 2> out({333, 7}), last({1, 7});
  attention_scan(q, k, v, out);
  attention(q, k, v, last);
  for (index c = 0; c < 7; ++c)
    CHECK(out(332, c) == Approx(last(0, c)).margin(1e-14));
}

TEST_CASE("A scan's bits do not depend on the executor", "[identities][contract]") {
  generator random(13);
  auto const q = normal_tensor<float, 3>({3, 1, 16}, random);
  auto const k = normal_tensor<float, 3>({1, 1000, 16}, random), v = normal_tensor<float, 3>({1, 1000, 9}, random);
  tensor<float, 3> one({3, 1000, 9}), other({3, 1000, 9});
  attention_scan(q, k, v, one);
  for (int threads : {1, 2, 5}) {
    Eigen::ThreadPool pool(threads);
    thread_pool place(pool);
    for (int again = 0; again < 20; ++again) {  // often enough for workers to meet
      attention_scan(q, k, v, other, on{place});
      CHECK(same_bits(one, other));
    }
  }
}

TEST_CASE("Hidden keys and empty prefixes of a scan", "[edges][contract]") {
  generator random(14);
  auto const q = normal_tensor<double, 2>({1, 4}, random), k = normal_tensor<double, 2>({200, 4}, random);
  auto v = normal_tensor<double, 2>({200, 3}, random);
  tensor<bool, 2> shown({1, 200});
  for (index j = 0; j < 200; ++j) {
    shown(0, j) = j >= 150 && j % 2 == 0;
    if (!shown(0, j))
      v(j, 1) = std::numeric_limits<double>::quiet_NaN();
  }
  tensor<double, 2> out({200, 3});
  tensor<double, 1> l({200}), h({200});
  attention_scan(q, k, v, out, mask{shown}, lse{l}, entropy{h});
  for (index j = 0; j < 200; ++j)
    for (index c = 0; c < 3; ++c) {
      if (j < 150) {
        REQUIRE(out(j, c) == 0);
        REQUIRE(l(j) == -infinity);
        REQUIRE(h(j) == 0);
      } else {
        REQUIRE(std::isfinite(out(j, c)));
      }
    }
  CHECK(out(150, 0) == v(150, 0));
  CHECK(out(151, 0) == v(150, 0));
}

TEST_CASE("A scan refuses what does not fit", "[errors]") {
  tensor<float, 2> q({1, 4}), two({2, 4}), k({9, 4}), v({9, 3}), out({9, 3}), small({8, 3});
  CHECK_THROWS_WITH(attention_scan(two, k, v, out), ContainsSubstring("q.extent(len)"));
  CHECK_THROWS_AS(attention_scan(q, k, v, small), argument_error);
  CHECK_THROWS_AS(attention_scan(q, k, v, v), argument_error);
  CHECK_THROWS_AS(attention_scan(q, k, small, out), argument_error);
}

}  // namespace heed::test
