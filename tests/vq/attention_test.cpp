#include "support/golden.hpp"

#include "vq/calls.hpp"

#include <heed/attention/score.hpp>

#include <vector>

namespace heed::test {
namespace {

constexpr double tolerance = 1e-12;
#if defined(HEED_SMALL_SWEEP)
constexpr bool small = true;
#else
constexpr bool small = false;
#endif

rerope code_of(index dim, double window) { return {rotary{frequencies::standard(dim), layout::half}, window}; }

tensor<double, 2> table_of(index heads, index n, generator& random) {
  return normal_tensor<double, 2>({heads, n}, random);
}

}  // namespace

TEST_CASE("VQ attention is attention over quantised keys", "[identities][vq]") {
  generator random(101);
  INFO(random);
  for (index len : {1, 2, 7, 16, 33}) {
    for (index block : {1, 3, 4, 16, 40}) {
      for (index codes : {1, 2, 5, 17}) {
        if (small && (len + block + codes) % 3 != 0)
          continue;
        vq_inputs<> const in({2, 4, 2, len, len, 6, 5, codes, block}, random);
        INFO("len " << len << ", block " << block << ", codes " << codes);
        CHECK(in.error() <= tolerance);
        CHECK(in.error(causal{}) <= tolerance);
        CHECK(in.error(causal{}, log_n{5}, softcap{2}) <= tolerance);
        for (index window : {1, 2, 6, 50}) {
          if (window == 2 && small)
            continue;
          INFO("window " << window);
          auto const table = table_of(4, window, random);
          CHECK(in.error(causal{}, code_of(6, static_cast<double>(window))) <= tolerance);
          CHECK(in.error(causal{}, relative_bias{table}) <= tolerance);
          CHECK(in.error(code_of(6, static_cast<double>(window))) <= tolerance);
          CHECK(in.error(relative_bias{table, -window / 2}) <= tolerance);
        }
      }
    }
  }
}

TEST_CASE("VQ attention with every modifier that it takes", "[identities][vq]") {
  generator random(102);
  INFO(random);
  vq_inputs<> const in({3, 4, 2, 21, 30, 8, 3, 6, 5}, random);
  std::vector<double> const per_head{0.3, -1.0, 2.0, 0.7};
  std::vector<index> const ends{30, 0, 13};
  std::vector<index> const offsets{9, -4, 25};
  auto const table = table_of(1, 7, random);
  auto const each = [&](auto const&... ms) {
    CHECK(in.error(ms...) <= tolerance);
    CHECK(in.error(lengths{ends}, ms...) <= tolerance);
    CHECK(in.error(offset{0}, ms...) <= tolerance);
    CHECK(in.error(offset{-9}, ms...) <= tolerance);
    CHECK(in.error(offset{100}, ms...) <= tolerance);
    CHECK(in.error(offset{offsets}, lengths{ends}, ms...) <= tolerance);
  };
  auto const both = [&](auto const&... ms) {
    each(ms...);
    each(causal{}, ms...);
  };
  SECTION("plain") { both(); }
  SECTION("scale and softcap") { both(scale{-0.7}, softcap{1.5}); }
  SECTION("log_n") { both(log_n{8}); }
  SECTION("log_n_clamped") { both(log_n_clamped{8, 4}); }
  SECTION("log_n_beyond") { both(log_n_beyond{8}); }
  SECTION("scalable") { both(scalable{per_head}); }
  SECTION("sink_logits") { both(sink_logits{per_head}); }
  SECTION("relative_bias") { both(relative_bias{table}); }
  SECTION("relative_bias, shifted") { both(relative_bias{table, -3}), both(relative_bias{table, 2}); }
  SECTION("rerope") { both(code_of(8, 6)); }
  SECTION("rerope with a fraction") { both(code_of(8, 2.5)); }
  SECTION("all of it") {
    both(code_of(8, 4), relative_bias{table, -2}, scalable{per_head}, softcap{3}, sink_logits{per_head});
  }
}

TEST_CASE("VQ attention in float, on mixed storage, on few rows", "[identities][vq]") {
  generator random(103);
  INFO(random);
  for (index q_len : {1, 3, 60}) {
    vq_inputs<float> const in({1, 4, 2, q_len, 60, 16, 16, 8, 16}, random);
    tensor<double, 4> expected(in.out_extents());
    reference::attention(in.q, in.decoded, in.v, expected, causal{});
    auto const scores = reference::scores(in.q, in.decoded, causal{});
    tensor<float, 4> out(in.out_extents());
    vq_attention(in.q, in.k, in.v, out, in.book, in.block, causal{});
    auto const got = accuracy_of(out, expected, in.v, scores);
    INFO(got.message());
    CHECK(got.within_bound());

    tensor<Eigen::half, 4> half_out(in.out_extents());
    tensor<Eigen::bfloat16, 4> rounded(in.v.extents());
    for (index i = 0; i < rounded.size(); ++i)
      rounded.data()[i] = round_to<Eigen::bfloat16>(in.v.data()[i]);
    reference::attention(in.q, in.decoded, rounded, expected, causal{});
    vq_attention(in.q, in.k, rounded, half_out, in.book, in.block, causal{});
    CHECK(difference_of(half_out, expected).relative <= 0x1p-10);
  }
}

TEMPLATE_TEST_CASE("Every key its own code: softmax attention", "[identities][vq]", double, float) {
  using T = TestType;
  generator random(104);
  INFO(random);
  index const len = 23, dim = 5;
  auto const q = normal_tensor<T, 3>({2, len, dim}, random), k = normal_tensor<T, 3>({2, len, dim}, random),
             v = normal_tensor<T, 3>({2, len, 3}, random);
  codebook<T> const book(k);
  auto const check = [&](auto const&... ms) {
    auto const error = difference_of(vq_attention(q, k, v, book, 4, ms...), attention(q, k, v, ms...));
    INFO(error.message());
    CHECK(error.absolute <= (std::is_same_v<T, double> ? tolerance : 4e-6));
  };
  check();
  check(causal{});
  check(causal{}, log_n{7});
  check(causal{}, rerope{rotary{frequencies::standard(4), layout::half}, 5});
}

TEST_CASE("The golden rows of Transformer-VQ", "[reference][vq]") {
  using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  golden_rows rows;
  matrix vectors(4, 4);
  vectors << rows.k.row(0), rows.k.row(2), rows.k.row(4), matrix::Constant(1, 4, 9);
  codebook<double> const book(vectors);
  auto const codes = book.encode(rows.k);
  CHECK(std::vector<int>(codes.data(), codes.data() + 6) == std::vector<int>{0, 0, 1, 2, 2, 2});
  auto const check = [&](double a, double b, double c, double sum, auto const&... ms) {
    for (index block : {1, 2, 3, 5, 6, 9}) {
      vq_attention(rows.q, rows.k, rows.v, rows.out, book, block, ms...);
      rows.check_out(a, b, c, sum);
    }
  };
  check(0.30528786, 0.30972351, 0.12628503, 7.3418875253, causal{});
  check(0.30528786, 0.30972351, 0.12628503, 5.4558955537);
  tensor<double, 1> table({4});
  table(0) = 0.3, table(1) = -0.2, table(2) = 0.1;  // and 0 from there on
  check(0.39767257, 0.37032496, 0.11834319, 7.2368236330, causal{}, relative_bias{table});
}

TEST_CASE("VQ attention: what is hidden is not looked at, what is empty is 0", "[edges][vq]") {
  generator random(105);
  vq_inputs<> in({1, 2, 1, 6, 12, 4, 3, 5, 2}, random);
  double const nan = std::numeric_limits<double>::quiet_NaN();
  tensor<double, 4> out(in.out_extents()), again(in.out_extents());
  std::vector<index> const ends{9};
  vq_attention(in.q, in.k, in.v, out, in.book, in.block, causal{}, lengths{ends}, offset{1});
  for (index j = 7; j < 12; ++j)
    in.k(0, 0, j, 1) = in.v(0, 0, j, 2) = nan;
  vq_attention(in.q, in.k, in.v, again, in.book, in.block, causal{}, lengths{ends}, offset{1});
  CHECK(same_bits(out, again));

  // the row before is spared, the row itself is not
  in.v(0, 0, 4, 2) = nan;
  vq_attention(in.q, in.k, in.v, again, in.book, in.block, causal{}, lengths{ends}, offset{1});
  for (index c = 0; c < 3; ++c)
    CHECK(again(0, 1, 2, c) == out(0, 1, 2, c));
  CHECK(std::isnan(again(0, 1, 3, 2)));
  CHECK(again(0, 1, 3, 1) == out(0, 1, 3, 1));

  tensor<double, 3> sums({1, 2, 6});
  vq_attention(in.q, in.k, in.v, out, in.book, in.block, causal{}, offset{-6}, lse{sums});
  CHECK(largest(out) == 0);
  CHECK(sums(0, 0, 0) == -std::numeric_limits<double>::infinity());

  tensor<double, 4> const no_k({1, 1, 0, 4}), no_v({1, 1, 0, 3}), no_q({1, 2, 0, 4});
  out(0, 0, 0, 0) = 7;
  vq_attention(in.q, no_k, no_v, out, in.book, 3);
  CHECK(largest(out) == 0);
  CHECK(vq_attention(no_q, no_k, no_v, in.book, 3, causal{}).size() == 0);
}

TEST_CASE("VQ attention refuses what does not fit", "[errors][vq]") {
  generator random(106);
  vq_inputs<> in({2, 4, 2, 6, 6, 4, 3, 5, 2}, random);
  tensor<double, 4> out(in.out_extents());
  std::fill_n(out.data(), out.size(), 3.0);
  auto const says = [](std::string const& text) { return ContainsSubstring(text); };
  CHECK_THROWS_WITH(vq_attention(in.q, in.k, in.v, out, in.book, 0),
                    says("vq_attention: block must be at least 1, got 0"));
  codebook<double> const other_heads(3, 5, 4), other_dim(2, 5, 3);
  CHECK_THROWS_WITH(vq_attention(in.q, in.k, in.v, out, other_heads, 2),
                    says("vq_attention: k.extent(heads) must equal the codebook's 3, got 2"));
  CHECK_THROWS_WITH(vq_attention(in.q, in.k, in.v, out, other_dim, 2),
                    says("vq_attention: k.extent(dim) must equal the codebook's 3, got 4"));
  in.codes(1, 1, 5) = 5;
  CHECK_THROWS_WITH(vq_attention(in.q, in.codes, in.v, out, in.book, 2), says("codes must lie in [0, 5)"));
  in.codes(1, 1, 5) = -1;
  CHECK_THROWS_WITH(vq_attention(in.q, in.codes, in.v, out, in.book, 2, causal{}), says("codes must lie in [0, 5)"));
  tensor<std::int32_t, 3> const one_batch({1, 2, 6});
  CHECK_THROWS_WITH(vq_attention(in.q, one_batch, in.v, out, in.book, 2), says("codes.extent(batch) must be 2, got 1"));
  in.k(1, 0, 5, 0) = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH(vq_attention(in.q, in.k, in.v, out, in.book, 2, causal{}), says("k must be finite"));
  CHECK_THROWS_WITH(vq_attention(in.q, in.codes, in.v, in.q, in.book, 2), says("extent(dim"));
  CHECK_THROWS_WITH(vq_attention(in.q, in.k, in.v, out, in.book, 2, log_n{1}), says("log_n.base"));
  workspace little(64);
  CHECK_THROWS_WITH(vq_attention(in.q, in.k, in.v, out, in.book, 2, with{little}),
                    says("workspace must have at least"));
  tensor<double, 4> square({2, 2, 6, 4});
  CHECK_THROWS_WITH(vq_attention(in.decoded, square, square, square, in.book, 2), says("must not share memory"));
  CHECK_THROWS_WITH(vq_attention(in.decoded, square, in.decoded, square, in.book, 2),
                    says("out must not share memory with k"));
  for (index i = 0; i < out.size(); ++i)
    REQUIRE(out.data()[i] == 3.0);
}

}  // namespace heed::test
