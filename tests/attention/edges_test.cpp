#include "support/catch.hpp"

#include <heed/kernel/tile.hpp>
#include <heed/position/rotary.hpp>

#include "attention/call.hpp"
#include "support/compare.hpp"

#include <vector>

// Hidden is per pair: no bit of a hidden key or value reaches a row. Sizes 0 and 1. Numbers that are not finite.

namespace heed::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// Which pairs (batch, query head, query, key) a request hides, by the reference's scores of finite inputs.
template <class T>
tensor<double, 4> scores_of(example<T>& in, request const& r) {
  return judge(in.views(), r).scores;
}

/// Puts `poison` into key j and its value in turn, for some j, and compares every row that does not see it with the
/// same call on finite numbers, bit by bit; rows that see a poisoned value must not be finite.
template <class T>
void check_no_leak(example<T> in, request r, std::string const& what) {
  index const batch = in.q.extent(0), heads = in.q.extent(1), group = heads / in.k.extent(1), q_len = in.q.extent(2),
              kv_len = in.k.extent(2), dim_v = in.v.extent(3);
  auto const scores = scores_of(in, r);
  attend(in.views(), r);
  auto const clean = in.out;
  auto const k = in.k, v = in.v;
  index leaks = 0, lost = 0, pairs = 0;
  for (double poison : {nan, infinity, -infinity})
    for (index j = 0; j < kv_len; j += 1 + kv_len / 23)
      for (bool in_key : {true, false}) {
        in.k = k;
        in.v = v;
        for (index b = 0; b < batch; ++b)
          for (index g = 0; g < in.k.extent(1); ++g) {
            if (in_key)
              for (index c = 0; c < in.k.extent(3); ++c)
                in.k(b, g, j, c) = static_cast<T>(poison);
            for (index c = 0; c < dim_v; ++c)
              in.v(b, g, j, c) = static_cast<T>(poison);
          }
        attend(in.views(), r);
        for_each_place({batch, heads, q_len, 1}, [&](index b, index h, index i, index) {
          bool const hidden = scores(b, h, i, j) == -infinity;
          pairs += hidden;
          for (index c = 0; c < dim_v; ++c) {
            T const got = in.out(b, h, i, c);
            if (hidden)
              leaks += std::memcmp(&got, &clean(b, h, i, c), sizeof(T)) != 0;
            else if (!in_key)
              lost += std::isfinite(got);
          }
        });
      }
  (void)group;
  INFO(what << ", q_len " << q_len << ", " << pairs << " hidden pairs");
  CHECK(pairs > 0);
  CHECK(leaks == 0);
  CHECK(lost == 0);
}

template <class T>
void check_all_that_hides(index q_len, index heads_q, index kv_len = 133, index dim_v = 17) {
  generator random(61);
  example<T> const in({2, heads_q, 1, q_len, kv_len, 8, dim_v}, 62);
  tensor<bool, 2> const holes = mask_tensor<2>({q_len, kv_len}, random);
  tensor<T, 2> hiding({q_len, kv_len});
  fill(hiding.view(), [&] { return random.chance(0.5) ? -infinity : random.normal(); });
  tensor<std::int32_t, 2> q_ids({2, q_len}), k_ids({2, kv_len});
  fill(q_ids.view(), [&] { return static_cast<double>(random.whole(-1, 1)); });
  fill(k_ids.view(), [&] { return static_cast<double>(random.whole(-1, 1)); });
  std::vector<index> const lens{kv_len / 2, kv_len - 2};
  rotary const rope{frequencies::standard(8), layout::half};
  check_no_leak(in, request(causal{}), "causal");
  check_no_leak(in, request(window{10, 3}), "window");
  check_no_leak(in, request(causal{}, window{10, 0}, sink_tokens{3}), "causal, window, sinks");
  check_no_leak(in, request(lengths{lens}), "lengths");
  check_no_leak(in, request(segments{q_ids, k_ids}), "segments");
  check_no_leak(in, request(mask{holes}), "mask");
  check_no_leak(in, request(bias{hiding}), "bias of −inf");
  check_no_leak(in, request(causal{}, rope), "causal, rotary");
  check_no_leak(in, request(causal{}, squared_relu{visible{}}), "causal, squared_relu");
  check_no_leak(in, request(causal{}, l2_softmax{}), "causal, l2_softmax");
  check_no_leak(in, request(causal{}, mask{holes}, softcap{2}, alibi::standard(heads_q), score{bend{}}, log_n{30}),
                "much");
}

}  // namespace

TEST_CASE("Nothing of a hidden key or value reaches a row: queries in lanes", "[edges][contract]") {
  check_all_that_hides<float>(70, 2);
  check_all_that_hides<double>(35, 1);
}

TEST_CASE("Nothing of a hidden key or value reaches a row: all keys in one tile", "[edges][contract]") {
  static_assert(keys_in_one_tile >= 101);
  check_all_that_hides<float>(70, 2, 101, tile_lanes<float>);
  check_all_that_hides<double>(35, 1, 101, tile_lanes<double>);
}

TEST_CASE("Nothing of a hidden key or value reaches a row: few rows", "[edges][contract]") {
  check_all_that_hides<float>(4, 2);
  check_all_that_hides<double>(5, 1);
}

TEST_CASE("NaN in a query touches only its row", "[edges][contract]") {
  for (index q_len : {70, 20, 3}) {
    example<float> in({1, 2, 1, q_len, 131, 8, 17}, 63);
    for (double poison : {nan, infinity}) {
      auto const clean = in.attend(causal{});
      auto const q = in.q;
      in.q(0, 1, q_len / 2, 3) = static_cast<float>(poison);
      in.attend(causal{});
      in.q = q;
      index others = 0, own = 0;
      for_each_place(clean.extents(), [&](index b, index h, index i, index c) {
        if (h == 1 && i == q_len / 2)
          own += std::isnan(in.out(b, h, i, c));
        else
          others += std::memcmp(&in.out(b, h, i, c), &clean(b, h, i, c), sizeof(float)) != 0;
      });
      CHECK(others == 0);
      CHECK(own == 17);
    }
  }
}

TEST_CASE("One visible key returns its value bit for bit", "[identities][contract]") {
  auto const check_in = []<class T>(T) {
    for (index q_len : {1, 5, 9, 70}) {
      example<T> in({2, 2, 1, q_len, 200, 24, 33}, 64, 30);
      for (index j : {0, 63, 64, 95, 96, 199}) {
        tensor<bool, 2> only({1, 200});
        only(0, j) = true;
        bool same = true;
        auto const compare = [&](auto const&... ms) {
          in.attend(ms...);
          for_each_place(in.out.extents(), [&](index b, index h, index i, index c) {
            same = same && std::memcmp(&in.out(b, h, i, c), &in.v(b, 0, j, c), sizeof(T)) == 0;
          });
          return same;
        };
        CHECK(compare(mask{only}));
        CHECK(compare(mask{only}, log_n{10}, scale{3}));
        CHECK(compare(mask{only}, l2_softmax{}));
        CHECK(compare(mask{only}, softcap{5}, alibi::standard(2), score{bend{}}));
      }
      std::vector<index> const one{1, 1};
      in.attend(lengths{one});
      CHECK(in.out(1, 1, q_len - 1, 32) == in.v(1, 0, 0, 32));
    }
  };
  check_in(float());
  check_in(double());
}

TEST_CASE("Equal values come back, and keys may be permuted", "[identities]") {
  for (index q_len : {3, 70}) {
    example<double> in({1, 2, 1, q_len, 131, 8, 8}, 65);
    auto const whole = in.attend();
    auto const k = in.k, v = in.v;
    for (index j = 0; j < 131; ++j)
      for (index c = 0; c < 8; ++c) {
        in.k(0, 0, j, c) = k(0, 0, (j * 50 + 7) % 131, c);
        in.v(0, 0, j, c) = v(0, 0, (j * 50 + 7) % 131, c);
      }
    CHECK(difference_of(in.attend(), whole).relative < 1e-14);
    fill(in.v.view(), [] { return 0.7; });
    in.attend(causal{});
    for_each_place(in.out.extents(), [&](index b, index h, index i, index c) {
      if (std::fabs(in.out(b, h, i, c) - 0.7) > 1e-14)
        FAIL("a row of equal values gives " << in.out(b, h, i, c));
    });
  }
}

TEST_CASE("Lengths of 0 and 1, everywhere", "[edges][contract]") {
  for (index batch : {0, 1, 2})
    for (index heads_kv : {0, 1, 2})
      for (index group : {1, 8})
        for (index q_len : {0, 1, 2})
          for (index kv_len : {0, 1, 2}) {
            tensor<double, 3> l({batch, heads_kv * group, q_len});
            example<double> in({batch, heads_kv * group, heads_kv, q_len, kv_len, 1, 1}, 66);
            fill(in.out.view(), [] { return 5.0; });
            check_call(in, request(), "tiny");
            check_call(in, request(causal{}, log_n{512}), "tiny, causal");
            check_call(in, request(squared_relu{visible{}}), "tiny, squared_relu");
          }
}

TEST_CASE("Sums over very many keys keep their digits", "[edges][contract]") {
  // Equal scores and positive values: every sum grows all the way, and nothing cancels.
  index const kv_len = 100000, q_len = 20;
  example<float> in({1, 1, 1, q_len, kv_len, 2, 8}, 68);
  generator random(69);
  fill(in.q.view(), [] { return 0.0; });
  fill(in.v.view(), [&] { return random.uniform(0.5, 1); });
  std::array<double, 8> mean{};
  for (index j = 0; j < kv_len; ++j)
    for (index c = 0; c < 8; ++c)
      mean[static_cast<std::size_t>(c)] += static_cast<double>(in.v(0, 0, j, c)) / static_cast<double>(kv_len);
  auto const error = [&](auto const&... ms) {
    double worst = 0;
    in.attend(ms...);
    for_each_place(in.out.extents(), [&](index b, index h, index i, index c) {
      worst = std::max(worst, std::fabs(static_cast<double>(in.out(b, h, i, c)) - mean[static_cast<std::size_t>(c)]));
    });
    return worst / unit_roundoff<float>;
  };
  // One sum over all keys errs by 20 units; the naive composition of Eigen's products by 5.
  CHECK(error() <= 8);
  tensor<float, 2> one({1, 1});
  one(0, 0) = 1;
  CHECK(error(squared_relu{row_sum{}}, bias{one}) <= 8);
  // Parts with different maxima: keys far down come before those that count.
  for (index first : {1536, 3000, 60000}) {
    tensor<float, 2> low({1, kv_len});
    for (index j = 0; j < first; ++j)
      low(0, j) = -200;
    request all(bias{low});
    all.entropy = true;
    tensor<double, 3> l({1, 1, q_len}), h({1, 1, q_len});
    all.add(lse{l});
    all.add(entropy{h});
    attend(in.views(), all);
    double const left = std::log(static_cast<double>(kv_len - first));
    CHECK(l(0, 0, q_len - 1) == Approx(left).epsilon(1e-6));
    CHECK(h(0, 0, q_len - 1) == Approx(left).epsilon(1e-5));
    std::array<double, 8> of_rest{};
    for (index j = first; j < kv_len; ++j)
      for (index c = 0; c < 8; ++c)
        of_rest[static_cast<std::size_t>(c)] +=
            static_cast<double>(in.v(0, 0, j, c)) / static_cast<double>(kv_len - first);
    for (index c = 0; c < 8; ++c)
      CHECK(in.out(0, 0, 3, c) == Approx(of_rest[static_cast<std::size_t>(c)]).epsilon(1e-6));
  }
}

TEST_CASE("Large scores stay finite", "[edges][contract]") {
  for (index q_len : {3, 70}) {
    example<float> in({1, 2, 1, q_len, 131, 64, 16}, 67, 1000);
    check_call(in, request(causal{}), "scores in the thousands");
    in.attend(causal{});
    bool finite = true;
    for_each_place(in.out.extents(),
                   [&](index b, index h, index i, index c) { finite = finite && std::isfinite(in.out(b, h, i, c)); });
    CHECK(finite);
  }
}

TEST_CASE("Squared ReLU over nothing but minus infinity is an empty row, whatever the gate", "[edges][contract]") {
  tensor<double, 4> u({1, 1, 1, 1});
  u(0, 0, 0, 0) = nan;
  for (auto const& len : {std::pair<index, index>{70, 200}, {2, 200}, {1, 5000}}) {
    index const q_len = len.first, kv_len = len.second;
    INFO("q_len " << q_len);
    example<double> in({1, 2, 2, q_len, kv_len, 8, 5}, 68);
    tensor<double, 3> hiding({2, 1, 1});
    hiding(1, 0, 0) = -infinity;
    auto const check = [&](auto const&... ms) {
      in.attend(ms..., gate{u});
      for (index i = 0; i < q_len; ++i)
        for (index c = 0; c < 5; ++c) {
          REQUIRE(std::isnan(in.out(0, 0, i, c)));
          REQUIRE(in.out(0, 1, i, c) == 0);
        }
    };
    check(squared_relu{fixed{3}}, bias{hiding});
    check(squared_relu{visible{}}, bias{hiding}, causal{});
    check(squared_relu{row_sum{}}, bias{hiding});
    fill(in.v.view(), [] { return infinity; });
    check(squared_relu{row_sum{}}, bias{hiding}, causal{});
    // Scores below 0 weigh nothing, either, but they are seen.
    check(squared_relu{fixed{3}}, bias{hiding}, scale{0});
  }
}

}  // namespace heed::test
