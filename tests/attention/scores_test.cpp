#include "support/catch.hpp"

#include <heed/attention/scores.hpp>
#include <heed/position/rerope.hpp>
#include <heed/reference/attention.hpp>

#include "support/compare.hpp"
#include "support/counting_allocator.hpp"
#include "support/random.hpp"

// The score stage alone: GlobalPointer (E1), and the invariance of lossless enlargement (F5).

namespace heed::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class T, class... Ms>
void check(index q_len, index kv_len, Ms const&... ms) {
  generator random(71);
  auto const q = normal_tensor<T, 4>({2, 4, q_len, 12}, random), k = normal_tensor<T, 4>({2, 2, kv_len, 12}, random);
  tensor<T, 4> got({2, 4, q_len, kv_len});
  fill(got.view(), [] { return 77.0; });
  scores(q, k, got, ms...);
  auto const expected = reference::scores<long double>(q, k, ms...);
  double const epsilon = unit_roundoff<T>;
  difference const d = difference_of(got, expected, 1);
  INFO(q_len << " x " << kv_len << ": " << d.message());
  // A product of 12 channels, turned or not, and a map or two: a dozen roundings of what is added up.
  CHECK(d.absolute <= 32 * epsilon * (1 + largest(expected)));

  // Those above a threshold: the same, in row order, and no others.
  struct found {
    index b, h, i, j;
    T s;
  };
  std::vector<found> above;
  T const threshold = T(0.7);
  scores_above(
      q, k, threshold, [&](index b, index h, index i, index j, T s) { above.push_back({b, h, i, j, s}); }, ms...);
  std::size_t at = 0;
  bool same = true;
  for_each_place(got.extents(), [&](index b, index h, index i, index j) {
    if (!(got(b, h, i, j) > threshold))
      return;
    same = same && at < above.size();
    if (same) {
      found const& f = above[at++];
      same = f.b == b && f.h == h && f.i == i && f.j == j && f.s == got(b, h, i, j);
    }
  });
  CHECK(same);
  CHECK(at == above.size());
}

rotary const turn{frequencies::standard(12), layout::interleaved};

}  // namespace

TEST_CASE("Bare scores agree with the reference, and so do those above a threshold", "[reference][contract]") {
  generator random(72);
  auto const added = normal_tensor<float, 2>({1, 131}, random);
  auto const holes = mask_tensor<2>({1, 131}, random);
  for (index q_len : {1, 3, 70}) {
    check<double>(q_len, 131);
    check<float>(q_len, 131, causal{}, turn);
    check<double>(q_len, 131, turn, window{0, unbounded}, offset{0});
    check<float>(q_len, 131, bias{added}, mask{holes}, softcap{3}, log_n{50}, scale{0.5});
    check<double>(q_len, 131, rerope{turn, 20}, alibi::standard(4), window{30, 5}, sink_tokens{2});
  }
  check<float>(200, 200, turn, window{0, unbounded});
}

TEST_CASE("GlobalPointer: spans i <= j of every head, in row order", "[contract]") {
  // E1: s_a(i, j) = (R_i q)·(R_j k) / √d for i ≤ j.
  generator random(73);
  auto const q = normal_tensor<float, 3>({3, 50, 12}, random), k = normal_tensor<float, 3>({3, 50, 12}, random);
  auto turned_q = q, turned_k = k;
  turn.apply(turned_q, 0);
  turn.apply(turned_k, 0);
  index count = 0, last_place = -1;
  scores_above(
      q, k, 1,
      [&](index b, index h, index i, index j, float s) {
        ++count;
        index const place = (h * 50 + i) * 50 + j;
        CHECK(b == 0);
        CHECK(i <= j);
        CHECK(place > last_place);
        last_place = place;
        double sum = 0;
        for (index c = 0; c < 12; ++c)
          sum += static_cast<double>(turned_q(h, i, c)) * static_cast<double>(turned_k(h, j, c));
        CHECK(s == Approx(sum / std::sqrt(12)).margin(2e-6));
      },
      turn, window{0, unbounded}, offset{0});
  index expected = 0;
  for (index h = 0; h < 3; ++h)
    for (index i = 0; i < 50; ++i)
      for (index j = i; j < 50; ++j) {
        double sum = 0;
        for (index c = 0; c < 12; ++c)
          sum += static_cast<double>(turned_q(h, i, c)) * static_cast<double>(turned_k(h, j, c));
        expected += sum / std::sqrt(12) > 1 ? 1 : 0;
      }
  CHECK(count == expected);
  CHECK(count > 20);
}

TEST_CASE("Hidden pairs are minus infinity, and thresholds at the edges", "[edges][contract]") {
  tensor<float, 2> q({4, 4}), k({4, 4}), s({4, 4});
  fill(q.view(), [] { return 1.0; });
  fill(k.view(), [] { return 1.0; });
  k(3, 0) = std::numeric_limits<float>::quiet_NaN();
  scores(q, k, s, causal{}, scale{0.25});
  for (index i = 0; i < 4; ++i)
    for (index j = 0; j < 4; ++j) {
      if (j > i)
        CHECK(static_cast<double>(s(i, j)) == -infinity);
      else if (j < 3)
        CHECK(s(i, j) == 1);
    }
  CHECK(std::isnan(s(3, 3)));
  auto const count = [&](double threshold) {
    int n = 0;
    scores_above(q, k, threshold, [&](index, index, index, index, float) { ++n; }, causal{}, scale{0.25});
    return n;
  };
  CHECK(count(1) == 0);  // above, not at; NaN is not above anything
  CHECK(count(0.99) == 9);
  CHECK(count(-infinity) == 9);  // hidden pairs are never handed out
  CHECK(count(infinity) == 0);
  tensor<float, 2> none({0, 4});
  scores_above(none, k, 0, [&](index, index, index, index, float) { FAIL("nobody is there"); });
}

TEST_CASE("Scores above a threshold never need all scores at once", "[resources][contract]") {
  generator random(74);
  auto const q = normal_tensor<float, 2>({2000, 8}, random), k = normal_tensor<float, 2>({2000, 8}, random);
  allocation_count const asked;
  index n = 0;
  scores_above(q, k, 3, [&](index, index, index, index, float) { ++n; });
  CHECK(n > 100);
  CHECK(asked.bytes() < (std::size_t{1} << 20) + 64 * 2000 * sizeof(float) + 4096);
}

TEST_CASE("Scores refuse what does not fit", "[errors]") {
  tensor<float, 2> q({4, 4}), k({5, 4}), s({4, 5}), wrong({5, 4});
  CHECK_THROWS_AS(scores(q, k, wrong), argument_error);
  CHECK_THROWS_AS(scores(q, q, q), argument_error);
  CHECK_THROWS_AS(scores(q, k, s, softcap{0}), argument_error);
  CHECK_THROWS_AS(scores_above(q, s, 0, [](index, index, index, index, float) {}), argument_error);
}

TEST_CASE("Lossless enlargement leaves weights as they are, with RoPE too", "[identities][contract]") {
  // F5: every coordinate r times, each times r^(1/4) / √r, and softmax(q·k/√d) is the same. Under RoPE it is pairs that
  // are repeated, and their angles with them.
  generator random(75);
  index const n = 60, dim = 8;
  auto const q = normal_tensor<double, 3>({2, n, dim}, random), k = normal_tensor<double, 3>({2, n, dim}, random),
             v = normal_tensor<double, 3>({2, n, 5}, random);
  for (index r : {2, 3}) {
    double const factor = std::pow(static_cast<double>(r), 0.25) / std::sqrt(static_cast<double>(r));
    auto const enlarged = [&](tensor<double, 3> const& x, index unit) {
      tensor<double, 3> y({2, n, r * dim});
      for (index h = 0; h < 2; ++h)
        for (index i = 0; i < n; ++i)
          for (index c = 0; c < r * dim; ++c)
            y(h, i, c) = factor * x(h, i, c / (r * unit) * unit + c % unit);
      return y;
    };
    auto const same = [&](tensor<double, 3> const& a, tensor<double, 3> const& b) {
      return difference_of(a, b, 1).absolute < 1e-13;
    };
    CHECK(same(attention(enlarged(q, 1), enlarged(k, 1), v, causal{}), attention(q, k, v, causal{})));
    std::vector<double> repeated;
    auto const plain = frequencies::standard(dim);
    for (index t = 0; t < dim / 2; ++t)
      repeated.insert(repeated.end(), static_cast<std::size_t>(r), plain[t]);
    rotary const before{plain, layout::interleaved}, after{frequencies(repeated), layout::interleaved};
    CHECK(same(attention(enlarged(q, 2), enlarged(k, 2), v, causal{}, after), attention(q, k, v, causal{}, before)));
    CHECK(same(attention(enlarged(q, 2), enlarged(k, 2), v, rerope{after, 9}), attention(q, k, v, rerope{before, 9})));
    // With the standard angles of the larger head it is not lossless.
    rotary const standard{frequencies::standard(r * dim), layout::interleaved};
    CHECK(
        !same(attention(enlarged(q, 2), enlarged(k, 2), v, causal{}, standard), attention(q, k, v, causal{}, before)));
  }
}

}  // namespace heed::test
