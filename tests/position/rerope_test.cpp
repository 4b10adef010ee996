#include "support/catch.hpp"

#include <heed/attention/attention.hpp>
#include <heed/attention/scores.hpp>
#include <heed/attention/state.hpp>
#include <heed/core/thread_pool.hpp>
#include <heed/kernel/tile.hpp>
#include <heed/position/rerope.hpp>
#include <heed/reference/attention.hpp>

#include "support/compare.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

#include <cfenv>
#include <numbers>

// ReRoPE, Leaky ReRoPE and Self-Extend through attention, in both drivers.

namespace heed::test {
namespace {

template <class T>
struct inputs {
  tensor<T, 4> q, k, v;

  inputs(index q_len, index kv_len, index dim = 16, index heads_q = 4, index heads_kv = 2, std::uint64_t seed = 51) {
    generator random(seed);
    q = normal_tensor<T, 4>({2, heads_q, q_len, dim}, random);
    k = normal_tensor<T, 4>({2, heads_kv, kv_len, dim}, random);
    v = normal_tensor<T, 4>({2, heads_kv, kv_len, 8}, random);
  }

  template <class... Ms>
  tensor<T, 4> attend(Ms const&... ms) const {
    return attention(q, k, v, ms...);
  }
};

template <class T, class... Ms>
void check(inputs<T> const& in, Ms const&... ms) {
  using wide = std::conditional_t<std::is_same_v<T, double>, long double, double>;
  auto const got = in.attend(ms...);
  tensor<double, 4> expected(got.extents());
  reference::attention<wide>(in.q, in.k, in.v, expected, ms...);
  auto const a = accuracy_of(got, expected, in.v, reference::scores<wide>(in.q, in.k, ms...));
  INFO("q_len " << in.q.extent(2) << ", kv_len " << in.k.extent(2) << ": " << a.message());
  CHECK(a.within_bound());
}

rotary standard(index dim, layout channels = layout::half) { return {frequencies::standard(dim), channels}; }

/// One row for the few-rows driver, two for its groups, then full blocks of lanes.
constexpr index query_lengths[] = {1, 2, 70, 150};

template <class T, class Code>
void check_everywhere(Code const& code) {
  for (index q_len : query_lengths) {
    inputs<T> const in(q_len, 203);
    check(in, code, causal{});
    check(in, code);  // both ways: three branches
    check(in, code, causal{}, log_n_beyond{64}, window{90, 0}, sink_tokens{3});
    check(in, code, offset{10}, window{60, 60});
    check(in, code, offset{20}, window{60, 9});                    // none is far ahead,
    check(in, code, offset{20}, window{60, 9}, sink_tokens{170});  // but for the first ones
  }
}

/// Queries (a, 0) and keys (0, a) whose product overflows at every angle but the multiples of π, where it is some
/// 1e-16 of that: which products a call computes shows in the floating-point exception flags.
template <class T>
struct overflowing {
  static constexpr T huge = std::is_same_v<T, double> ? T(1e160) : T(1e20);
  static constexpr double half_turn = std::numbers::pi;
  tensor<T, 2> q, k, v;

  overflowing(index q_len, index kv_len) : q({q_len, 2}), k({kv_len, 2}), v({kv_len, 3}) {
    generator random(52);
    fill(v.view(), [&] { return random.normal(); });
    for (index i = 0; i < q_len; ++i)
      q(i, 0) = huge;
    poison(0, kv_len);
  }

  /// Keys [first, end) can overflow, the others are small.
  void poison(index first, index end) {
    for (index j = 0; j < k.extent(0); ++j)
      k(j, 1) = j >= first && j < end ? huge * static_cast<T>(1 + j % 3) : T(1e-3);
  }

  static rotary turn(double angle) { return {frequencies(std::vector<double>{angle}), layout::interleaved}; }

  template <class... Ms>
  HEED_NOINLINE bool overflows(tensor<T, 2>& out, Ms const&... ms) const {
    std::feclearexcept(FE_ALL_EXCEPT);
    attention(q, k, v, out, scale{1}, ms...);
    return std::fetestexcept(FE_OVERFLOW) != 0;
  }
};

/// The three rectified codes, with slopes and groups that leave far keys as they are.
template <class Check>
void for_each_code(rotary const& turn, double window, Check const& check) {
  check("rerope", rerope{turn, window});
  check("leaky_rerope", leaky_rerope{turn, window, 1e300});
  check("self_extend", self_extend{turn, window, 1000000});
}

}  // namespace

TEMPLATE_TEST_CASE("Only tiles that straddle the band compute two products", "[contract][resources]", double, float) {
  // A turn by π/w a position: near products overflow, far ones, turned by π, do not. A turn by π a position and a
  // window between two positions: near products do not overflow, far ones do.
  using T = TestType;
  using pairs = overflowing<T>;
  for (index q_len : {index{1}, index{3}, index{2 * block_lanes<T> + 5}}) {
    index const kv_len = 3 * key_block, w = key_block / 2;
    pairs in(q_len, kv_len);
    tensor<T, 2> out({q_len, 3}), expected({q_len, 3});
    for_each_code(pairs::turn(pairs::half_turn / static_cast<double>(w)), static_cast<double>(w),
                  [&](char const* name, auto const& code) {
                    INFO(name << ", q_len " << q_len);
                    in.poison(0, kv_len);
                    CHECK(in.overflows(out, code, offset{w}));
                    CHECK_FALSE(in.overflows(out, code, offset{kv_len - 1 + w}));  // all keys are far
                    auto turned = in;
                    code.rotation.apply(turned.q,
                                        std::vector<double>(static_cast<std::size_t>(q_len), static_cast<double>(w)));
                    CHECK_FALSE(turned.overflows(expected));
                    CHECK(difference_of(out, expected, 1).absolute < 1e-5);
                    in.poison(2 * key_block, kv_len);  // of which all are far ahead
                    CHECK_FALSE(in.overflows(out, code, offset{0}));
                    in.poison(0, key_block);  // of which all are far, while others are near and straddle
                    CHECK_FALSE(in.overflows(out, code, causal{}, offset{key_block + w}));
                    CHECK(in.overflows(out, code, causal{}, offset{key_block - w}));
                  });
    for_each_code(pairs::turn(pairs::half_turn), 0.5 + static_cast<double>(kv_len + q_len),
                  [&](char const* name, auto const& code) {
                    INFO(name << ", q_len " << q_len);
                    in.poison(0, kv_len);
                    CHECK_FALSE(in.overflows(out, code));  // all keys are near
                    CHECK_FALSE(in.overflows(out, code, causal{}));
                  });
    for_each_code(pairs::turn(pairs::half_turn), 0.5 + static_cast<double>(key_block + q_len),
                  [&](char const* name, auto const& code) {
                    INFO(name << ", q_len " << q_len);
                    in.poison(0, kv_len);
                    CHECK(in.overflows(out, code, causal{}, offset{2 * key_block}));
                    in.poison(2 * key_block, kv_len);  // of which all are near, while others are far and straddle
                    CHECK_FALSE(in.overflows(out, code, causal{}, offset{2 * key_block}));
                    CHECK_FALSE(in.overflows(out, code, offset{2 * key_block}));
                  });
  }
}

TEST_CASE("Rectified codes agree with the reference in both drivers", "[reference][contract]") {
  rotary const turn = standard(16);
  check_everywhere<double>(rerope{turn, 37});
  check_everywhere<double>(leaky_rerope{turn, 37, 4});
  check_everywhere<double>(self_extend{turn, 37, 4});
  check_everywhere<float>(rerope{standard(16, layout::interleaved), 37});
  check_everywhere<float>(leaky_rerope{turn, 20, 2.5});
  check_everywhere<float>(self_extend{turn, 64, 8});
}

TEST_CASE("Rectified codes with any window, storage, factor and part of the channels", "[reference][contract]") {
  rotary const turn = standard(16);
  for (index q_len : {3, 80}) {
    for (index w : {1, 2, 63, 64, 65, 96, 97, 150, 400}) {
      check(inputs<float>(q_len, 160), rerope{turn, w}, causal{});
      check(inputs<float>(q_len, 160), leaky_rerope{turn, w, 3}, offset{20});
    }
    check(inputs<Eigen::half>(q_len, 160), rerope{turn, 30}, causal{});
    check(inputs<Eigen::bfloat16>(q_len, 160), leaky_rerope{turn, 30, 2}, causal{});
    check(inputs<Eigen::half>(q_len, 160), self_extend{turn, 30, 4});
    rotary const stretched{frequencies(std::vector<double>{1, 0.1, 0.02}, 1.3), layout::interleaved};
    check(inputs<double>(q_len, 160), rerope{stretched, 30}, causal{});
    check(inputs<double>(q_len, 160), leaky_rerope{stretched, 30, 3});
    check(inputs<double>(q_len, 160), self_extend{stretched, 30, 3}, log_n{100});
  }
}

TEMPLATE_TEST_CASE("A window of the length or more is RoPE, bit for bit", "[identities][contract]", double, float) {
  rotary const turn = standard(16);
  for (index q_len : query_lengths) {
    inputs<TestType> const in(q_len, 150);
    auto const plain = in.attend(turn, causal{}), full = in.attend(turn);
    for (index w : {150, 151, 100000}) {
      CHECK(same_bits(in.attend(rerope{turn, w}, causal{}), plain));
      CHECK(same_bits(in.attend(leaky_rerope{turn, w, 7}, causal{}), plain));
      CHECK(same_bits(in.attend(self_extend{turn, w, 7}, causal{}), plain));
      CHECK(same_bits(in.attend(rerope{turn, w}), full));
    }
    CHECK(!same_bits(in.attend(rerope{turn, 100}, causal{}), plain));
  }
}

TEMPLATE_TEST_CASE("Leaky ReRoPE lies between RoPE (k = 1) and ReRoPE (k to infinity)", "[identities][contract]",
                   double, float) {
  double const tolerance = std::is_same_v<TestType, double> ? 1e-12 : 4e-6;
  rotary const turn = standard(16);
  for (index q_len : query_lengths) {
    inputs<TestType> const in(q_len, 150);
    for (index w : {1, 10, 64}) {
      auto const against = [&](auto const& a, auto const& b) {
        return difference_of(in.attend(a, causal{}), in.attend(b, causal{}), 1).absolute;
      };
      CHECK(against(leaky_rerope{turn, w, 1}, turn) < tolerance);
      CHECK(against(leaky_rerope{turn, w, 1e15}, rerope{turn, w}) < tolerance);
      CHECK(against(leaky_rerope{turn, w, 4}, turn) > 1e-4);
      CHECK(against(leaky_rerope{turn, w, 4}, rerope{turn, w}) > 1e-4);
      CHECK(difference_of(in.attend(leaky_rerope{turn, w, 1}), in.attend(turn), 1).absolute < tolerance);
    }
    CHECK(difference_of(in.attend(self_extend{turn, 16, 1}), in.attend(turn), 1).absolute < tolerance);
  }
}

TEMPLATE_TEST_CASE("Decode in two parts: turned keys of the window and raw far ones, merged by lse",
                   "[identities][contract]", double, float) {
  // What a cache does: R_i q over the last w keys as they were turned once, R_w q over all older ones as they came.
  using T = TestType;
  double const tolerance = std::is_same_v<T, double> ? 1e-12 : 4e-6;
  rotary const turn = standard(16);
  for (index kv_len : {40, 150, 5000})
    for (index w : {1, 33, 400}) {
      inputs<T> const in(1, kv_len);
      index const near = std::min(w, kv_len), far = kv_len - near;
      auto const last = [](tensor<T, 4> const& x, index first, index n) {
        return view<T const, 4>(&x(0, 0, first, 0), {2, x.extent(1), n, x.extent(3)}, x.strides());
      };
      auto q_near = in.q, q_far = in.q, k_near = in.k;
      turn.apply(q_near, kv_len - 1);
      turn.apply(q_far, w);
      turn.apply(k_near, 0);
      tensor<T, 4> a({2, 4, 1, 8}), b(a.extents()), both(a.extents());
      tensor<double, 3> la({2, 4, 1}), lb(la.extents()), l(la.extents()), expected(la.extents());
      attention(q_near, last(k_near, far, near), last(in.v, far, near), a, lse{la});
      attention(q_far, last(in.k, 0, far), last(in.v, 0, far), b, lse{lb});
      merge(a, la, b, lb, both, l);
      auto const whole = in.attend(rerope{turn, w}, causal{}, lse{expected});
      INFO(kv_len << " keys, window " << w);
      CHECK(difference_of(both, whole, 1).absolute < tolerance);
      CHECK(difference_of(l, expected, 1).absolute < 2 * tolerance);
    }
}

TEMPLATE_TEST_CASE("Rectified rows do not depend on how a call is cut into tiles", "[identities]", double, float) {
  // Rows alone, few at a time, and from another first row: other tiles, the other driver, the same distances.
  using T = TestType;
  double const tolerance = std::is_same_v<T, double> ? 1e-12 : 4e-6;
  rotary const turn = standard(16);
  inputs<T> const in(170, 233);
  auto const check_cut = [&](auto const& code, auto const&... ms) {
    auto const whole = in.attend(code, ms...);
    for (index step : {1, 7, 100})
      for (index first = step / 2; first < 170; first += step) {
        index const n = std::min(step, 170 - first);
        view<T const, 4> const rows(&in.q(0, 0, first, 0), {2, 4, n, 16}, in.q.strides()),
            expected(&whole(0, 0, first, 0), {2, 4, n, 8}, whole.strides());
        auto const got = attention(rows, in.k, in.v, code, offset{63 + first}, ms...);
        INFO("rows from " << first << ", " << step << " at a time");
        REQUIRE(difference_of(got, expected, 1).absolute < tolerance);
      }
  };
  check_cut(rerope{turn, 50}, causal{});
  check_cut(rerope{turn, 50});
  check_cut(leaky_rerope{turn, 31, 3});
  check_cut(self_extend{turn, 64, 5}, causal{});
}

TEST_CASE("The distance w itself is far", "[contract]") {
  // Self-Extend's branches differ at rel = w where groups do not divide it: i = 6, j = 1, w = 5, g = 3 gives
  // 2 − 0 + 5 − 1 = 6, while near would be 5.
  rotary const turn{frequencies(std::vector<double>{0.4}), layout::half};
  tensor<double, 2> q({9, 2}), k({9, 2}), s({9, 9});
  for (index i = 0; i < 9; ++i)
    q(i, 0) = k(i, 0) = 1;
  scores(q, k, s, self_extend{turn, 5, 3}, scale{1});
  CHECK(s(6, 1) == Approx(std::cos(0.4 * 6)).epsilon(1e-14));
  CHECK(s(6, 2) == Approx(std::cos(0.4 * 4)).epsilon(1e-14));
  CHECK(s(1, 6) == Approx(std::cos(0.4 * 6)).epsilon(1e-14));
  scores(q, k, s, rerope{turn, 3}, scale{1});
  for (index i = 0; i < 9; ++i)
    for (index j = 0; j < 9; ++j)
      CHECK(s(i, j) == Approx(std::cos(0.4 * static_cast<double>(std::min<index>(std::abs(i - j), 3)))).epsilon(1e-14));
  scores(q, k, s, leaky_rerope{turn, 3, 2}, scale{1});
  CHECK(s(8, 1) == Approx(std::cos(0.4 * 5)).epsilon(1e-14));
  CHECK(s(1, 8) == Approx(std::cos(0.4 * 5)).epsilon(1e-14));
}

TEST_CASE("Golden rows of ReRoPE and Leaky ReRoPE", "[contract]") {
  golden_rows rows;
  rotary const turn = standard(4, layout::interleaved);
  auto const check_golden = [&](auto const& code, double a, double b, double c, double sum) {
    attention(rows.q, rows.k, rows.v, rows.out, code, causal{});
    rows.check_out(a, b, c, sum);
    Eigen::MatrixXd row(1, 3);
    attention(rows.q.bottomRows(1), rows.k, rows.v, row, code, causal{});
    CHECK((row.row(0) - Eigen::RowVector3d(a, b, c)).cwiseAbs().maxCoeff() < 0.6e-8);
  };
  check_golden(rerope{turn, 2}, 0.23981179, 0.54439716, 0.51875852, 8.8048061830);
  check_golden(leaky_rerope{turn, 2, 2}, 0.24763989, 0.57099272, 0.54798903, 8.7777781532);
}

TEST_CASE("Rectified codes: the same bits on every executor, and one visible key is its value",
          "[identities][contract]") {
  rotary const turn = standard(16);
  Eigen::ThreadPool pool(3);
  thread_pool place(pool);
  for (index q_len : {1, 150}) {
    inputs<float> const in(q_len, 5000);
    CHECK(same_bits(in.attend(rerope{turn, 1024}, causal{}), in.attend(rerope{turn, 1024}, causal{}, on{place})));
    auto const own = in.attend(rerope{turn, 4}, window{0, 0});
    for (index c = 0; c < 8; ++c)
      CHECK(own(1, 3, 0, c) == in.v(1, 1, 5000 - q_len, c));
  }
}

TEMPLATE_TEST_CASE("Heads that share angles keep the bits they have alone", "[identities]", double, float) {
  using T = TestType;
  rotary const turn = standard(16);
  Eigen::ThreadPool pool(2);
  thread_pool place(pool);
  auto const check_heads = [&](inputs<T> const& in, auto const& code) {
    auto const together = in.attend(code, causal{});
    CHECK(same_bits(together, in.attend(code, causal{}, on{place})));
    auto const head = [](tensor<T, 4> const& x, index b, index h) {
      return view<T const, 2>(&x(b, h, 0, 0), {x.extent(2), x.extent(3)});
    };
    for (index b = 0; b < 2; ++b)
      for (index h = 0; h < 8; ++h) {
        auto const alone = attention(head(in.q, b, h), head(in.k, b, h), head(in.v, b, h), code, causal{});
        INFO("batch " << b << ", head " << h);
        REQUIRE(std::equal(alone.data(), alone.data() + alone.size(), &together(b, h, 0, 0)));
      }
  };
  for (auto const& [q_len, kv_len] : {std::pair<index, index>{64, 64}, {40, 100}, {130, 130}, {70, 700}}) {
    inputs<T> const in(q_len, kv_len, 16, 8, 8);
    INFO("q_len " << q_len << ", kv_len " << kv_len);
    check_heads(in, turn);
    for_each_code(turn, 30, [&](char const* name, auto const& code) {
      INFO(name);
      check_heads(in, code);
    });
    check_heads(in, leaky_rerope{turn, 30, 4});
  }
}

TEST_CASE("Hidden keys do not reach a row of a rectified code", "[edges][contract]") {
  rotary const turn = standard(16);
  for (index q_len : {2, 70}) {
    inputs<float> in(q_len, 150);
    index const first = 150 - q_len;
    auto const clean = in.attend(rerope{turn, 20}, causal{});
    for (index c = 0; c < 16; ++c)
      in.k(0, 0, 149, c) = in.v(0, 0, 149, c % 8) = std::numeric_limits<float>::quiet_NaN();
    auto const out = in.attend(rerope{turn, 20}, causal{});
    for (index i = 0; first + i < 149; ++i)
      for (index c = 0; c < 8; ++c)
        REQUIRE(out(0, 0, i, c) == clean(0, 0, i, c));
    CHECK(std::isnan(out(0, 0, q_len - 1, 0)));
  }
}

TEST_CASE("Rectified codes refuse windows below 1 and their like", "[errors][contract]") {
  inputs<float> const in(2, 20);
  rotary const turn = standard(16);
  CHECK_THROWS_WITH(in.attend(rerope{turn, 0}), ContainsSubstring("window must be at least 1"));
  CHECK_THROWS_AS(in.attend(rerope{turn, 0.5}), argument_error);
  CHECK_THROWS_AS(in.attend(rerope{turn, -3}), argument_error);
  CHECK_THROWS_AS(in.attend(rerope{turn, std::numeric_limits<double>::quiet_NaN()}), argument_error);
  CHECK_THROWS_AS(in.attend(leaky_rerope{turn, 4, 0}), argument_error);
  CHECK_THROWS_AS(in.attend(leaky_rerope{turn, 4, -1}), argument_error);
  CHECK_THROWS_AS(in.attend(self_extend{turn, 4, 0}), argument_error);
  CHECK_THROWS_AS(in.attend(rerope{standard(32), 4}), argument_error);
}

}  // namespace heed::test
