#include "support/catch.hpp"

#include <heed/attention/bias.hpp>
#include <heed/attention/mask.hpp>
#include <heed/attention/normalizer.hpp>
#include <heed/attention/outputs.hpp>
#include <heed/attention/row_scale.hpp>
#include <heed/attention/score.hpp>
#include <heed/reference/attention.hpp>

#include "support/compare.hpp"
#include "support/random.hpp"

// What the contract fixes where sources differ: empty rows, hidden keys, counts n_i, offsets.

namespace heed::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// Four heads over two key heads, two batches: q [2, 4, 5, 3], k [2, 2, 7, 3], v [2, 2, 7, 2].
struct problem {
  generator random{20240};
  tensor<double, 4> q = normal_tensor<double, 4>({2, 4, 5, 3}, random),
                    k = normal_tensor<double, 4>({2, 2, 7, 3}, random),
                    v = normal_tensor<double, 4>({2, 2, 7, 2}, random), out{{2, 4, 5, 2}};
  tensor<double, 3> log_sums{{2, 4, 5}}, entropies{{2, 4, 5}};

  template <class... Ms>
  tensor<double, 4> attend(Ms const&... modifiers) {
    reference::attention(q, k, v, out, lse{log_sums}, entropy{entropies}, modifiers...);
    return out;
  }

  /// n_i as the divisor of a squared ReLU sees it: all scores 1.
  template <class... Ms>
  double count(index b, index h, index i, Ms const&... modifiers) const {
    auto const ones = [](auto s, auto) { return s * 0 + 1; };
    auto const w = reference::weights(q, k, squared_relu{visible{}}, score{ones}, modifiers...);
    double largest = 0;
    for (index j = 0; j < 7; ++j)
      largest = std::max(largest, w(b, h, i, j));
    return largest == 0 ? 0 : 1 / largest;
  }
};

template <class T, int Rank>
bool all_zero(tensor<T, Rank> const& x) {
  return std::all_of(x.data(), x.data() + x.size(), [](T e) { return e == T(0); });
}

/// Which keys the weights say are visible, as a row of 0 and 1.
template <class... Ms>
std::string seen(problem const& p, index b, index h, index i, Ms const&... modifiers) {
  auto const s = reference::scores(p.q, p.k, modifiers...);
  std::string row;
  for (index j = 0; j < 7; ++j)
    row += s(b, h, i, j) == -infinity ? '0' : '1';
  return row;
}

}  // namespace

TEST_CASE("The reference: rows that see nothing are zero", "[reference][edges]") {
  problem p;
  for_each_place(p.v.extents(), [&](index b, index h, index j, index c) { p.v(b, h, j, c) = nan; });
  tensor<bool, 2> const nothing({5, 7});
  auto const check_zero = [&](double expected_lse) {
    for_each_place(p.out.extents(), [&](index b, index h, index i, index c) {
      CHECK(p.out(b, h, i, c) == 0);
      CHECK(p.log_sums(b, h, i) == expected_lse);
      CHECK(p.entropies(b, h, i) == 0);
    });
  };
  p.attend(mask{nothing});
  check_zero(-infinity);
  p.attend(score{[](auto s, auto) { return s * 0 - std::numeric_limits<double>::infinity(); }});
  check_zero(-infinity);
  std::vector<double> const sinks{1.5, 1.5, 1.5, 1.5};
  p.attend(mask{nothing}, sink_logits{sinks});
  check_zero(1.5);
  tensor<double, 4> u({1, 1, 1, 1});
  u(0, 0, 0, 0) = infinity;
  p.attend(mask{nothing}, gate{u}, log_n{512});
  check_zero(-infinity);
  p.attend(offset{-6}, causal{});
  check_zero(-infinity);
  for (auto const& rule : {squared_relu{fixed{3}}, squared_relu{visible{}}, squared_relu{row_sum{}}}) {
    reference::attention(p.q, p.k, p.v, p.out, mask{nothing}, rule);
    CHECK(all_zero(p.out));
  }
  reference::attention(p.q, p.k, p.v, p.out, mask{nothing}, l2_softmax{});
  CHECK(all_zero(p.out));
}

TEST_CASE("The reference: a row whose relus are all 0 divides by nothing", "[reference][edges]") {
  problem p;
  auto const w = reference::weights(p.q, p.k, squared_relu{row_sum{}}, score{[](auto s, auto) { return -abs(s) - 1; }});
  CHECK(all_zero(w));
}

TEST_CASE("The reference: no keys, no queries, no batches", "[reference][edges]") {
  for (index_array<4> sizes : {index_array<4>{2, 4, 5, 0}, index_array<4>{2, 4, 0, 7}, index_array<4>{0, 4, 5, 7}}) {
    tensor<float, 4> const q({sizes[0], 4, sizes[2], 3}), k({sizes[0], 2, sizes[3], 3}), v({sizes[0], 2, sizes[3], 2});
    tensor<float, 4> out({sizes[0], 4, sizes[2], 2});
    for (index i = 0; i < out.size(); ++i)
      out.data()[i] = 7;
    reference::attention(q, k, v, out, causal{}, log_n{512});
    CHECK(all_zero(out));
  }
}

TEST_CASE("The reference: bands", "[reference]") {
  problem const p;  // q_len 5, kv_len 7: query i stands at i + 2
  CHECK(seen(p, 0, 0, 1, causal{}) == "1111000");
  CHECK(seen(p, 0, 0, 1, causal{}, offset{0}) == "1100000");
  CHECK(seen(p, 0, 0, 1, causal{}, offset{-2}) == "0000000");
  CHECK(seen(p, 0, 0, 3, window{2, 1}) == "0001111");
  CHECK(seen(p, 0, 0, 3, window{0, 0}) == "0000010");
  CHECK(seen(p, 0, 0, 3, window{0, 0}, offset{-3}) == "1000000");
  CHECK(seen(p, 0, 0, 3, window{1, unbounded}) == "0000111");
  CHECK(seen(p, 0, 0, 3, window{unbounded, 1}, offset{-2}) == "1110000");
  CHECK(seen(p, 0, 0, 3, window{unbounded, unbounded}, offset{-9}) == "1111111");
  CHECK(seen(p, 0, 0, 3, window{unbounded - 1, unbounded - 1}, offset{3}) == "1111111");
  CHECK(seen(p, 0, 0, 3, window{1, 0}, sink_tokens{2}) == "1100110");
  CHECK(seen(p, 0, 0, 3, window{1, 0}, sink_tokens{5}) == "1111110");
  CHECK(seen(p, 0, 0, 1, causal{}, window{1, 0}, sink_tokens{6}, offset{1}) == "1110000");
  CHECK(seen(p, 0, 0, 3, sink_tokens{2}) == "1111111");
}

TEST_CASE("The reference: offsets and lengths", "[reference]") {
  problem const p;
  std::vector<index> const lengths_of{6, 3}, offsets{1, 4};
  CHECK(seen(p, 0, 0, 4, lengths{lengths_of}) == "1111110");
  CHECK(seen(p, 1, 0, 4, lengths{lengths_of}) == "1110000");
  CHECK(seen(p, 0, 0, 1, lengths{lengths_of}, causal{}) == "1110000");  // 6 − 5 + 1 = 2
  CHECK(seen(p, 1, 0, 1, lengths{lengths_of}, causal{}) == "0000000");  // 3 − 5 + 1 = −1
  CHECK(seen(p, 1, 0, 1, lengths{lengths_of}, causal{}, offset{0}) == "1100000");
  CHECK(seen(p, 1, 0, 4, lengths{lengths_of}, causal{}, offset{0}) == "1110000");
  CHECK(seen(p, 0, 0, 1, offset{offsets}, causal{}) == "1110000");
  CHECK(seen(p, 1, 0, 1, offset{offsets}, causal{}, lengths{lengths_of}) == "1110000");
  CHECK(seen(p, 1, 0, 1, offset{offsets}, causal{}) == "1111110");
}

TEST_CASE("The reference: masks broadcast from the right and are AND-ed; segments", "[reference]") {
  problem const p;
  tensor<bool, 2> rows({5, 7});
  tensor<bool, 3> heads({4, 1, 7});
  tensor<bool, 4> batches({2, 1, 1, 7});
  for (index j = 0; j < 7; ++j) {
    for (index i = 0; i < 5; ++i)
      rows(i, j) = i != 3 || j != 0;
    for (index h = 0; h < 4; ++h)
      heads(h, 0, j) = h != 2 || j != 1;
    for (index b = 0; b < 2; ++b)
      batches(b, 0, 0, j) = b != 1 || j != 2;
  }
  CHECK(seen(p, 1, 2, 3, mask{rows}, mask{heads}, mask{batches}) == "0001111");
  CHECK(seen(p, 0, 2, 3, mask{rows}, mask{heads}, mask{batches}) == "0011111");
  CHECK(seen(p, 1, 1, 2, mask{rows}, mask{heads}, mask{batches}) == "1101111");

  tensor<std::int32_t, 2> q_ids({2, 5}), k_ids({2, 7});
  for (index j = 0; j < 7; ++j)
    k_ids(0, j) = k_ids(1, j) = static_cast<std::int32_t>(j / 3) - 1;
  for (index i = 0; i < 5; ++i)
    q_ids(0, i) = q_ids(1, i) = static_cast<std::int32_t>(i) - 1;
  CHECK(seen(p, 0, 0, 0, segments{q_ids, k_ids}) == "0000000");  // −1 sees nothing, not even −1
  CHECK(seen(p, 0, 0, 1, segments{q_ids, k_ids}) == "0001110");
  CHECK(seen(p, 1, 3, 2, segments{q_ids, k_ids}) == "0000001");
}

TEST_CASE("The reference: n_i counts what is visible, never biases", "[reference]") {
  problem const p;
  tensor<bool, 2> some({5, 7});
  for (index j = 0; j < 7; ++j)
    for (index i = 0; i < 5; ++i)
      some(i, j) = j % 2 == 0;
  tensor<double, 2> hiding({1, 7});
  hiding(0, 0) = hiding(0, 1) = -infinity;
  std::vector<index> const lengths_of{6, 3};
  CHECK(p.count(0, 0, 3) == 7);
  CHECK(p.count(0, 0, 3, causal{}) == Approx(6));
  CHECK(p.count(0, 0, 3, causal{}, mask{some}) == Approx(3));
  CHECK(p.count(1, 0, 3, lengths{lengths_of}) == Approx(3));
  CHECK(p.count(0, 0, 3, window{1, 0}, sink_tokens{5}) == Approx(6));
  CHECK(p.count(0, 0, 3, causal{}, bias{hiding}) == Approx(6));
}

TEST_CASE("The reference: row scales are exact where the contract says so", "[reference]") {
  problem p;
  auto const plain = p.attend();
  CHECK(same_bits(plain, p.attend(log_n{7})));
  CHECK(same_bits(plain, p.attend(log_n_clamped{7, 3})));
  CHECK(same_bits(plain, p.attend(log_n_beyond{7})));
  CHECK_FALSE(same_bits(plain, p.attend(log_n_beyond{6})));
  tensor<bool, 2> one({5, 7});
  for (index i = 0; i < 5; ++i)
    one(i, i) = true;
  p.attend(log_n{512}, mask{one});
  for_each_place(p.out.extents(), [&](index b, index h, index i, index c) {
    CHECK(p.out(b, h, i, c) == p.v(b, h / 2, i, c));
    CHECK(p.log_sums(b, h, i) == 0);
  });
}

TEST_CASE("The reference: what is hidden is not read", "[reference][edges]") {
  problem p;
  tensor<double, 2> hiding({1, 7});
  hiding(0, 2) = -infinity;
  auto const check_same = [&](auto const&... modifiers) {
    problem poisoned;
    auto const clean = p.attend(modifiers...);
    for (index b = 0; b < 2; ++b)
      for (index h = 0; h < 2; ++h) {
        for (index c = 0; c < 3; ++c)
          poisoned.k(b, h, 2, c) = c == 0 ? infinity : nan;
        for (index c = 0; c < 2; ++c)
          poisoned.v(b, h, 2, c) = nan;
      }
    CHECK(same_bits(clean, poisoned.attend(modifiers...)));
    CHECK(std::all_of(clean.data(), clean.data() + clean.size(), [](double x) { return std::isfinite(x); }));
  };
  tensor<bool, 2> all_but_2({1, 7});
  for (index j = 0; j < 7; ++j)
    all_but_2(0, j) = j != 2;
  check_same(bias{hiding});
  check_same(mask{all_but_2});
  check_same(mask{all_but_2}, squared_relu{row_sum{}}, bias{hiding});
  check_same(causal{}, offset{-3});

  // A functor's −inf is a weight of 0, and 0 · NaN is NaN.
  p.v(0, 0, 2, 0) = nan;
  auto const without_2 = [](auto s, auto at) {
    return heed::select(at.key() == 2, s * 0 - std::numeric_limits<double>::infinity(), s);
  };
  p.attend(score{without_2});
  CHECK(std::isnan(p.out(0, 0, 1, 0)));
  CHECK(std::isfinite(p.out(0, 0, 1, 1)));
  CHECK(reference::weights(p.q, p.k, score{without_2})(0, 0, 1, 2) == 0);
}

TEST_CASE("The reference: the order in which a score is changed", "[reference]") {
  Eigen::MatrixXd q = Eigen::MatrixXd::Constant(1, 1, 3), k = Eigen::MatrixXd::Constant(1, 1, 5);
  tensor<double, 2> added({1, 1});
  added(0, 0) = 0.25;
  std::vector<double> const slopes{0.5};
  tensor<double, 1> table({4});
  for (index n = 0; n < 4; ++n)
    table(n) = 10.0 * static_cast<double>(n);
  auto const s =
      reference::scores(q, k, offset{2}, score{[](auto x, auto at) { return x * 2 + at.key() + at.query(); }},
                        bias{added}, bias{added}, alibi{slopes}, softcap{7}, scale{0.5}, relative_bias{table, 1});
  double const capped = 7 * std::tanh(15 * 0.5 / 7);
  CHECK(s(0, 0, 0, 0) == Approx(2 * (capped + 0.5 - 0.5 * 2 + 10) + 2));
}

namespace {

/// A modifier of a user's own: hides odd keys; and one that halves distances' weight before any functor.
struct even_keys {
  bool visible(site<double> const& at) const { return std::fmod(at.key(), 2) == 0; }
};
struct slope {
  static constexpr auto stage = score_stage::bias;
  template <class S, class Site>
  S apply(S s, Site const& at) const {
    return s - S(0.125) * at.distance();
  }
};

}  // namespace

TEST_CASE("The reference: modifiers of a user's own", "[reference]") {
  problem const p;
  CHECK(seen(p, 0, 0, 1, causal{}, even_keys{}) == "1010000");
  CHECK(p.count(0, 0, 3, causal{}, even_keys{}) == Approx(3));
  auto const plain = reference::scores(p.q, p.k, offset{0});
  auto const sloped = reference::scores(p.q, p.k, offset{0}, heed::modifiers(slope{}));
  CHECK(sloped(0, 1, 3, 1) == Approx(plain(0, 1, 3, 1) - 0.25));
}

TEST_CASE("The reference: sinks, gates, heads, storage", "[reference]") {
  problem p;
  std::vector<double> const sinks{0.5, -infinity, 2, 0};
  auto const plain_weights = reference::weights(p.q, p.k);
  auto const s = reference::scores(p.q, p.k);
  p.attend(sink_logits{sinks});
  auto const w = reference::weights(p.q, p.k, sink_logits{sinks});
  for (index h = 0; h < 4; ++h) {
    double const sink = sinks[static_cast<std::size_t>(h)];
    double sum = std::exp(sink), weights = 0, uncertain = 0;
    for (index j = 0; j < 7; ++j) {
      sum += std::exp(s(1, h, 2, j));
      weights += w(1, h, 2, j);
      uncertain -= w(1, h, 2, j) * std::log(w(1, h, 2, j));
    }
    if (sink != -infinity)
      uncertain -= std::exp(sink) / sum * (sink - std::log(sum));
    CHECK(p.log_sums(1, h, 2) == Approx(std::log(sum)));
    CHECK(weights == Approx(1 - std::exp(sink) / sum));
    CHECK(p.entropies(1, h, 2) == Approx(uncertain));
  }
  CHECK(w(1, 1, 2, 3) == plain_weights(1, 1, 2, 3));

  auto const plain = p.attend();
  tensor<float, 4> u({1, 4, 1, 2});
  for (index h = 0; h < 4; ++h)
    u(0, h, 0, 0) = static_cast<float>(h), u(0, h, 0, 1) = 0.5F;
  auto const gated = p.attend(gate{u});
  CHECK(gated(1, 3, 2, 0) == 3 * plain(1, 3, 2, 0));
  CHECK(gated(1, 3, 2, 1) == 0.5 * plain(1, 3, 2, 1));

  // Rank 2, column-major, another storage type: query head 3 of batch 1 reads key head 1.
  Eigen::MatrixXd const q = p.q.matrix(1, 3), k = p.k.matrix(1, 1), v = p.v.matrix(1, 1);
  Eigen::MatrixXd out(5, 4);
  out.setConstant(7);
  reference::attention(q, k, v, out.middleCols(1, 2));
  CHECK(out(2, 1) == plain(1, 3, 2, 0));
  CHECK(out(4, 2) == plain(1, 3, 4, 1));
  CHECK(out(4, 3) == 7);
  tensor<Eigen::half, 2> rounded({5, 2});
  reference::attention(q, k, v, rounded);
  CHECK(static_cast<double>(rounded(2, 0)) == static_cast<double>(Eigen::half(static_cast<float>(plain(1, 3, 2, 0)))));
}

TEST_CASE("The reference: weights that overflow a naive sum", "[reference][edges]") {
  Eigen::MatrixXd q = Eigen::MatrixXd::Constant(1, 1, 1), k(3, 1), v(3, 1), out(1, 1);
  v << 1, 2, 4;
  k.setConstant(-1e5);
  reference::attention(q, k, v, out);
  CHECK(out(0, 0) == Approx(7.0 / 3));
  k << 1e5, 1e5, -1e5;
  reference::attention(q, k, v, out);
  CHECK(out(0, 0) == 1.5);
  reference::attention(q, k, v, out, l2_softmax{});
  CHECK(out(0, 0) == Approx(3 / std::sqrt(2.0)));
  k(1, 0) = nan;
  reference::attention(q, k, v, out);
  CHECK(std::isnan(out(0, 0)));
}

TEST_CASE("The reference: long double agrees with double, more closely", "[reference]") {
  problem p;
  tensor<long double, 4> wide({2, 4, 5, 2});
  reference::attention<long double>(p.q, p.k, p.v, wide, causal{}, log_n{3});
  auto const plain = p.attend(causal{}, log_n{3});
  double worst = 0;
  for_each_place(plain.extents(), [&](index b, index h, index i, index c) {
    worst = std::max(worst, static_cast<double>(std::fabs(wide(b, h, i, c) - plain(b, h, i, c))));
  });
  CHECK(worst < 1e-14);
  CHECK(worst > 0);
}

TEST_CASE("The reference: refusals", "[reference][errors]") {
  problem p;
  tensor<double, 4> const three_heads({2, 3, 7, 3}), wide({2, 2, 7, 4});
  std::vector<index> const too_long{8, 3}, too_many{1, 2, 3};
  tensor<bool, 2> const narrow({5, 6});
  CHECK_THROWS_WITH(reference::scores(p.q, wide), ContainsSubstring("k.extent(dim) must equal q's 3, got 4"));
  CHECK_THROWS_WITH(reference::scores(p.q, three_heads), ContainsSubstring("must divide q's 4, got 3"));
  CHECK_THROWS_WITH(p.attend(lengths{too_long}), ContainsSubstring("lengths[0] must be in [0, 7], got 8"));
  CHECK_THROWS_WITH(p.attend(lengths{too_many}), ContainsSubstring("lengths must have 2 entries, got 3"));
  CHECK_THROWS_WITH(p.attend(mask{narrow}), ContainsSubstring("mask must have 1 or 7 columns, got 6"));
  CHECK_THROWS_AS(reference::attention(p.q, p.k, three_heads, p.out), argument_error);
}

}  // namespace heed::test
