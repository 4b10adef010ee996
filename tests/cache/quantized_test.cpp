#include "support/catch.hpp"

#include <heed/cache/quantized.hpp>
#include <heed/position/rerope.hpp>
#include <heed/reference/attention.hpp>

#include "support/bytes.hpp"
#include "support/compare.hpp"

// quantized_view and quantize: extents, rounding, both paths against the reference, hidden scales.

namespace heed::test {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

void check(bytes const& k, bytes const& v, index heads_q, index q_len, window const& seen, generator& random) {
  auto const q = normal_tensor<float, 4>({k.extents[0], heads_q, q_len, k.extents[3]}, random);
  tensor<float, 4> out({q.extent(0), heads_q, q_len, v.extents[3]});
  tensor<double, 4> expected(out.extents());
  attention(q, k.view(), v.view(), out, seen);
  reference::attention(q, k.view(), v.view(), expected, seen);
  auto const result = accuracy_of(out, expected, v.view(), reference::scores(q, k.view(), seen));
  INFO("q_len " << q_len << ", keys " << k.extents[2] << ", dim " << k.extents[3] << ", dim_v " << v.extents[3]
                << ", blocks of " << k.block << ", " << v.block << ": " << result.message());
  REQUIRE(result.within_bound());
}

constexpr index dims[] = {1, 2, 3, 8, 16, 40, 59, 64, 111, 128, 192, 256};

}  // namespace

TEST_CASE("Attention over int8 keys and values agrees with the reference, in both paths", "[reference][contract]") {
  generator random(71);
  INFO(random);
  index const lengths[] = {1, lanes<float> - 1, lanes<float>, lanes<float> + 1, 63, 64, 65, 131};
  int turn = 0;
  for (index dim : dims)
    for (index len : lengths)
      for (index q_len : {index{1}, index{2}, index{21}}) {
        auto const how = static_cast<layout_of_rows>(turn % 3);
        index const dim_v = dims[turn % 12], group = 1 + turn % 4;
        bytes const k({1, 2, len, dim}, random, 0, how), v({1, 2, len, dim_v}, random, 0, how);
        check(k, v, 2 * group, q_len, turn % 2 == 0 ? window{unbounded, 0} : window{40, 3}, random);
        ++turn;
      }
}

TEST_CASE("Scales per block of channels agree with the reference, in both paths", "[reference][contract]") {
  generator random(72);
  INFO(random);
  for (auto const& [dim, block] : {std::pair<index, index>{128, 32}, {64, 16}, {60, 20}, {8, 1}, {40, 40}, {256, 128}})
    for (index q_len : {1, 21})
      for (auto how : {layout_of_rows::row_major, layout_of_rows::gaps, layout_of_rows::columns}) {
        bytes const k({2, 2, 77, dim}, random, block, how), v({2, 2, 77, dim}, random, block, how);
        check(k, v, 4, q_len, window{unbounded, 0}, random);
      }
}

TEST_CASE("int8 keys take any modifier: rotary, bias, softcap, mixed with float values", "[reference][contract]") {
  generator random(73);
  bytes const k({1, 2, 70, 16}, random);
  auto const v = normal_tensor<Eigen::half, 4>({1, 2, 70, 24}, random);
  rotary const rope{frequencies::standard(16), layout::half};
  for (index q_len : {1, 30}) {
    auto const q = normal_tensor<Eigen::bfloat16, 4>({1, 4, q_len, 16}, random);
    auto const added = normal_tensor<float, 2>({q_len, 70}, random);
    tensor<float, 4> out({1, 4, q_len, 24});
    tensor<double, 4> expected(out.extents());
    attention(q, k.view(), v, out, causal{}, rope, softcap{20.0f}, bias{added});
    reference::attention(q, k.view(), v, expected, causal{}, rope, softcap{20.0f}, bias{added});
    auto const scores = reference::scores(q, k.view(), causal{}, rope, softcap{20.0f}, bias{added});
    CHECK(accuracy_of(out, expected, v, scores).within_bound());
    // Far keys are not turned: few rows widen them in registers, before the near ones and behind.
    rerope const rectified(rope, 9);
    attention(q, k.view(), v, out, rectified, offset{35});
    reference::attention(q, k.view(), v, expected, rectified, offset{35});
    CHECK(accuracy_of(out, expected, v, reference::scores(q, k.view(), rectified, offset{35})).within_bound());
  }
}

TEST_CASE("Scales that are not finite reach no row that does not see their key", "[contract][edges]") {
  for (index block : {0, 8})
    for (index q_len : {2, 21})
      for (float bad : {nan, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
        generator random(74);
        index const len = 90;
        bytes k({1, 1, len, 40}, random, block), v({1, 1, len, 40}, random, block);
        auto const q = normal_tensor<float, 4>({1, 2, q_len, 40}, random);
        tensor<float, 4> clean({1, 2, q_len, 40}), poisoned(clean.extents());
        std::vector<index> const lens{len - 3};
        attention(q, k.view(), v.view(), clean, causal{}, lengths{lens});
        for (bytes* x : {&k, &v})
          for (index j = len - 4; j < len; ++j)  // the last of those that exist: seen by the last query alone
            for (index b = 0; b < x->scales.extent(3); ++b)
              x->scales(0, 0, j, b) = bad;
        attention(q, k.view(), v.view(), poisoned, causal{}, lengths{lens});
        INFO("q_len " << q_len << ", block " << block << ", scale " << bad);
        int other = 0, finite = 0;
        for (index h = 0; h < 2; ++h)
          for (index c = 0; c < 40; ++c) {
            for (index i = 0; i + 1 < q_len; ++i)
              other +=
                  std::bit_cast<std::uint32_t>(clean(0, h, i, c)) != std::bit_cast<std::uint32_t>(poisoned(0, h, i, c));
            finite += std::isfinite(poisoned(0, h, q_len - 1, c));
          }
        CHECK(other == 0);
        CHECK(finite == 0);
      }
}

TEST_CASE("quantize: the nearest code, ties to even, 127 for the greatest", "[contract]") {
  float const x[] = {127, -127, 0.5f, 1.5f, -2.5f, 3.4f, 0, 0, 0, 0, 0, 0};
  tensor<int8, 2> codes({2, 6});
  tensor<float, 1> scales({2});
  scales(1) = 5;
  quantize(view<float const, 2>(x, {2, 6}), codes, scales);
  int8 const expected[] = {127, -127, 0, 2, -2, 3, 0, 0, 0, 0, 0, 0};
  CHECK(std::equal(expected, expected + 12, codes.data()));
  CHECK(scales(0) == 1);
  CHECK(scales(1) == 0);  // a row of zeros

  generator random(75);
  for (index block : {40, 8}) {
    auto const rows = normal_tensor<Eigen::half, 3>({2, 9, 40}, random);
    tensor<int8, 3> narrow({2, 9, 40});
    tensor<float, 3> factors({2, 9, 40 / block});
    quantize(rows, narrow, factors, block);
    operand const back = make_operand(quantized_view(narrow, factors, block));
    for (index h = 0; h < 2; ++h)
      for (index j = 0; j < 9; ++j)
        for (index c = 0; c < 40; ++c) {
          auto const scale = static_cast<double>(factors(h, j, c / block));
          REQUIRE(std::fabs(back(0, h, j, c) - static_cast<double>(rows(h, j, c))) <= scale * (0.5 + 1e-5));
          REQUIRE(narrow(h, j, c) >= -127);
        }
  }
  Eigen::MatrixXf const matrix = Eigen::MatrixXf::Random(5, 8);  // column-major
  Eigen::Matrix<int8, Eigen::Dynamic, Eigen::Dynamic> narrow(5, 8);
  Eigen::VectorXf factors(5);
  quantize(matrix, narrow, factors);
  operand const back = make_operand(quantized_view(narrow, factors));
  for (index j = 0; j < 5; ++j)
    for (index c = 0; c < 8; ++c)
      CHECK(std::fabs(back(0, 0, j, c) - static_cast<double>(matrix(j, c))) <=
            static_cast<double>(factors(j)) * (0.5 + 1e-5));
}

TEST_CASE("quantize refuses what is not finite, and writes nothing then", "[errors][contract]") {
  for (float bad : {nan, std::numeric_limits<float>::infinity()}) {
    tensor<float, 2> x({3, 4});
    x(2, 1) = bad;
    x(0, 0) = 1;
    tensor<int8, 2> codes({3, 4});
    tensor<float, 1> scales({3});
    CHECK_THROWS_WITH(quantize(x, codes, scales), ContainsSubstring("quantize: x must be finite"));
    CHECK(codes(0, 0) == 0);
    CHECK(scales(0) == 0);
  }
  tensor<double, 2> const large({1, 1});
  const_cast<double&>(large(0, 0)) = 1e39;
  tensor<int8, 2> codes({1, 1});
  tensor<float, 1> scales({1});
  CHECK_THROWS_AS(quantize(large, codes, scales), argument_error);
  tensor<float, 2> const longer({2, 1});
  CHECK_THROWS_WITH(quantize(longer, codes, scales), ContainsSubstring("x.extent must equal codes' 1"));
}

TEST_CASE("Scales that do not go with the codes are refused by name", "[errors][contract]") {
  tensor<int8, 3> const codes({2, 5, 12});
  tensor<float, 2> const rows({2, 5}), fewer({2, 4});
  tensor<float, 3> const blocks({2, 5, 3});
  CHECK(quantized_view(codes, rows).block() == 12);
  CHECK(quantized_view(codes, blocks, 4).block() == 4);
  CHECK_THROWS_WITH(quantized_view(codes, fewer), ContainsSubstring("scales.extent(1) must be 5, got 4"));
  CHECK_THROWS_WITH(quantized_view(codes, blocks), ContainsSubstring("scales.extent(2) must be 1, got 3"));
  CHECK_THROWS_WITH(quantized_view(codes, blocks, 5), ContainsSubstring("block must divide codes' 12 channels, got 5"));
  CHECK_THROWS_WITH(quantized_view(codes, blocks, 0), ContainsSubstring("block must divide"));
  CHECK_THROWS_WITH(quantized_view(codes, blocks, 3), ContainsSubstring("scales.extent(2) must be 4, got 3"));
  view<float const, 2> const nowhere(nullptr, {2, 5});
  CHECK_THROWS_WITH(quantized_view(codes, nowhere), ContainsSubstring("scales.data must not be null"));
  tensor<float, 3> q({2, 1, 12});
  tensor<float, 2> all({2, 60});  // its first numbers are the scales of 5 rows
  view<float, 3> const over(all.data(), {2, 1, 12}, {60, 12, 1});
  view<float const, 2> const within(all.data(), {2, 5}, {60, 1});
  CHECK_THROWS_WITH(attention(q, quantized_view(codes, within), quantized_view(codes, rows), over),
                    ContainsSubstring("out must not share memory with k's scales"));
}

TEST_CASE("explain tells how int8 is read", "[contract]") {
  generator random(76);
  bytes const one({1, 2, 70, 40}, random), many({1, 2, 70, 40}, random, 20),
      across({1, 2, 70, 40}, random, 0, layout_of_rows::columns);
  auto const few = normal_tensor<float, 4>({1, 4, 1, 40}, random),
             lanes = normal_tensor<float, 4>({1, 4, 30, 40}, random);
  CHECK(explain(few, one.view(), many.view()).keys == "int8 widened in registers, a scale a row");
  CHECK(explain(few, one.view(), many.view()).values == "int8 widened, a scale per 20 channels, a block at a time");
  CHECK(explain(lanes, one.view(), many.view()).keys == "int8 widened, a scale a row, a block at a time");
  CHECK_THAT(explain(few, across.view(), many.view()).keys, ContainsSubstring("channel stride 70 gathered"));
}

}  // namespace heed::test
