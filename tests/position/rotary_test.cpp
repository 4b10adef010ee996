#include <heed/attention/modifiers.hpp>
#include <heed/position/rotary.hpp>

#include "support/compare.hpp"
#include "support/counting_allocator.hpp"
#include "support/golden.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"

#include <span>

namespace heed::test {
namespace {

constexpr layout both_layouts[] = {layout::interleaved, layout::half};

/// B1 as it is written, in long double, rows of a rank-4 tensor; `position(b, i)`.
template <class T, class Position>
tensor<double, 4> turned(rotary const& rope, view<T const, 4> const& x, Position const& position) {
  tensor<double, 4> y(x.extents());
  index const pairs = rope.angles.pairs();
  for_each_place(x.extents(), [&](index b, index h, index i, index c) {
    if (c >= 2 * pairs) {
      y(b, h, i, c) = static_cast<double>(x(b, h, i, c));
      return;
    }
    bool const interleaved = rope.channels == layout::interleaved;
    index const t = interleaved ? c / 2 : c % pairs;
    bool const first = interleaved ? c % 2 == 0 : c < pairs;
    index const other = interleaved ? (first ? c + 1 : c - 1) : (first ? c + pairs : c - pairs);
    long double const p = position(b, i), theta = rope.angles[t], phi = p * theta;
    auto const own = static_cast<long double>(x(b, h, i, c)), partner = static_cast<long double>(x(b, h, i, other));
    long double const s = first ? -std::sin(phi) : std::sin(phi);
    y(b, h, i, c) = static_cast<double>(rope.angles.attention_factor() * (own * std::cos(phi) + partner * s));
  });
  return y;
}

/// One rounding of cos and sin, two products, a sum; and the store into narrow storage.
template <class T>
constexpr double tolerance = std::is_same_v<T, double>        ? 2e-14
                             : std::is_same_v<T, float>       ? 4 * 0x1p-24
                             : std::is_same_v<T, Eigen::half> ? 0x1p-11
                                                              : 0x1p-8;

double dot(tensor<double, 2> const& x, index i, tensor<double, 2> const& y, index j) {
  double sum = 0;
  for (index c = 0; c < x.extent(1); ++c)
    sum += x(i, c) * y(j, c);
  return sum;
}

// --- contract ------------------------------------------------------------------------------------------------------

TEST_CASE("rotary: the golden vectors of both layouts", "[reference]") {
  Eigen::MatrixXd interleaved = golden_rows().q, half = interleaved;
  rotary(frequencies::standard(4), layout::interleaved).apply(interleaved, 0);
  rotary(frequencies::standard(4), layout::half).apply(half, 0);
  double const expected[2][4] = {{-0.75090284, 0.46136778, -0.99025231, -0.21196099},
                                 {-0.65982662, -0.34516133, 1.10029051, -0.19260246}};
  for (index t = 0; t < 4; ++t) {
    CHECK(interleaved(3, t) == Approx(expected[0][t]).margin(5e-9).epsilon(0));
    CHECK(half(3, t) == Approx(expected[1][t]).margin(5e-9).epsilon(0));
  }
}

TEMPLATE_TEST_CASE("rotary: every storage type, layout and number of pairs turns as the formula says", "[contract]",
                   float, double, Eigen::half, Eigen::bfloat16) {
  generator random(1);
  INFO(random);
  for (index pairs : {1, 2, 3, 5, 8, 16, 29, 32, 64})
    for (index behind : {0, 3})
      for (layout channels : both_layouts) {
        rotary const rope{frequencies::standard(2 * pairs), channels};
        auto const x = uniform_tensor<TestType, 4>({2, 3, 7, 2 * pairs + behind}, random);
        auto in_place = x;
        tensor<TestType, 4> out(x.extents());
        rope.apply(in_place, -2.5);
        rope.apply(x, -2.5, out);
        auto const expected = turned(rope, x.view(), [](index, index i) { return static_cast<double>(i) - 2.5; });
        auto const error = difference_of(in_place, expected, 1);
        INFO("pairs " << pairs << ", behind " << behind << ": " << error.message());
        REQUIRE(error.absolute <= 2 * tolerance<TestType>);
        REQUIRE(same_bits(in_place, out));
      }
}

TEST_CASE("rotary: far positions keep their accuracy in float", "[contract]") {
  generator random(2);
  INFO(random);
  rotary const rope{frequencies::standard(128), layout::half};
  for (double first : {1e6, 1e7, -1e6 + 0.25, 12345678.0}) {
    auto x = uniform_tensor<float, 4>({1, 1, 40, 128}, random);
    auto const expected =
        turned(rope, std::as_const(x).view(), [&](index, index i) { return first + static_cast<double>(i); });
    rope.apply(x, first);
    CHECK(difference_of(x, expected, 1).absolute <= 2 * tolerance<float>);
  }
}

TEST_CASE("rotary: positions are a number, a list or a matrix, of any arithmetic type", "[contract]") {
  generator random(3);
  INFO(random);
  rotary const rope{frequencies::standard(8), layout::interleaved};
  auto const x = normal_tensor<float, 4>({2, 3, 4, 8}, random);
  auto const apply = [&](auto const& positions) {
    tensor<float, 4> out(x.extents());
    rope.apply(x, positions, out);
    return out;
  };
  auto const expected = apply(5);
  CHECK(same_bits(apply(5.0f), expected));
  CHECK(same_bits(apply(std::vector<int>{5, 6, 7, 8}), expected));
  CHECK(same_bits(apply(std::vector<std::uint8_t>{5, 6, 7, 8}), expected));
  CHECK(same_bits(apply(std::array<double, 4>{5, 6, 7, 8}), expected));
  std::vector<std::int64_t> const longs{5, 6, 7, 8};
  CHECK(same_bits(apply(std::span(longs)), expected));
  CHECK(same_bits(apply(Eigen::Vector4f(5, 6, 7, 8)), expected));
  CHECK(same_bits(apply(Eigen::RowVector4d(5, 6, 7, 8)), expected));
  std::vector<std::int32_t> const sparse{5, 0, 6, 0, 7, 0, 8, 0};
  CHECK(same_bits(apply(view<std::int32_t const, 1>(sparse.data(), {4}, {2})), expected));
  CHECK(same_bits(apply(view<std::int32_t const, 2>(sparse.data(), {2, 4}, {0, 2})), expected));

  tensor<std::int64_t, 2> by_batch({2, 4});
  for (index i = 0; i < 8; ++i)
    by_batch.data()[i] = i * i - 7;
  auto const got = apply(by_batch);
  auto const want = turned(rope, x.view(), [&](index b, index i) { return static_cast<double>(by_batch(b, i)); });
  CHECK(difference_of(got, want, 1).absolute <= 16 * tolerance<float>);
}

TEST_CASE("rotary: any rank, any strides, Eigen objects of both orders", "[contract]") {
  generator random(4);
  INFO(random);
  for (layout channels : both_layouts) {
    rotary const rope{frequencies::standard(10), channels};
    auto const x = normal_tensor<float, 4>({2, 3, 5, 12}, random);
    tensor<float, 4> expected(x.extents());
    rope.apply(x, 9, expected);

    for (index_array<4> const& strides : {index_array<4>{1, 2, 6, 30}, index_array<4>{180, 12, 36, 1},
                                          index_array<4>{400, 130, 25, 2}, index_array<4>{-180, 60, -12, 1}}) {
      guarded<float, 4> g(x.extents(), strides), target(x.extents(), strides);
      for_each_place(x.extents(), [&](index a, index b, index c, index d) { g.view()(a, b, c, d) = x(a, b, c, d); });
      rope.apply(g.view(), 9, target.view());
      CHECK(difference_of(target.view(), expected, 1).absolute == 0);
      rope.apply(g.view(), 9);
      CHECK(difference_of(g.view(), expected, 1).absolute == 0);
      CHECK(g.damage() == "");
      CHECK(target.damage() == "");
    }

    tensor<float, 3> three({3, 5, 12});
    std::copy_n(x.data(), three.size(), three.data());
    rope.apply(three, 9);
    CHECK(std::equal(three.data(), three.data() + three.size(), expected.data()));

    Eigen::MatrixXf columns = x.matrix(0, 0);
    Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> rows = columns;
    Eigen::MatrixXf const want = expected.matrix(0, 0);
    Eigen::MatrixXf out(5, 12), flipped(12, 5);
    rope.apply(columns, 9, out);
    rope.apply(rows, 9, flipped.transpose());
    CHECK(out == want);
    CHECK(flipped.transpose() == want);
    rope.apply(columns.bottomRows(2), 12);
    CHECK(columns.bottomRows(2) == want.bottomRows(2));
    CHECK(columns.topRows(3) == x.matrix(0, 0).topRows(3));
  }
}

TEST_CASE("rotary: storage types mix, each rounded once", "[contract]") {
  generator random(5);
  INFO(random);
  rotary const rope{frequencies::standard(6), layout::half};
  auto const x = uniform_tensor<Eigen::half, 2>({5, 8}, random);
  tensor<float, 2> wide({5, 8}), exact({5, 8});
  tensor<Eigen::bfloat16, 2> narrow({5, 8});
  for (index i = 0; i < x.size(); ++i)
    wide.data()[i] = static_cast<float>(x.data()[i]);
  rope.apply(wide, 3);
  rope.apply(x, 3, exact);
  rope.apply(x, 3, narrow);
  CHECK(same_bits(wide, exact));
  for (index i = 0; i < x.size(); ++i)
    CHECK(static_cast<float>(narrow.data()[i]) == static_cast<float>(round_to<Eigen::bfloat16>(exact.data()[i])));
}

TEST_CASE("rotary: describes itself to a call, and its copies do, too", "[contract]") {
  rotary const rope{frequencies({0.5, 0.25}, 1.5), layout::interleaved};
  description d;
  {
    auto const set = modifiers(rope);
    std::get<0>(set.members).describe(d);
  }
  CHECK(d.position.rule == position_rule::rotary);
  CHECK(d.position.pairs == 2);
  CHECK(d.position.interleaved);
  CHECK(d.position.attention_factor == 1.5);
  CHECK(d.position.theta == rope.angles.theta());
  description e;
  rotary(rope.angles, layout::half).describe(e);
  CHECK_FALSE(e.position.interleaved);
}

// --- identities ----------------------------------------------------------------------------------------------------

TEST_CASE("rotary: permuting channels exchanges the layouts", "[identities]") {
  generator random(6);
  INFO(random);
  for (index dim : {2, 6, 64, 58}) {
    auto x = normal_tensor<float, 2>({9, dim}, random);
    tensor<float, 2> permuted({9, dim});
    auto const source = [&](index c) { return c < dim / 2 ? 2 * c : 2 * (c - dim / 2) + 1; };
    for (index i = 0; i < 9; ++i)
      for (index c = 0; c < dim; ++c)
        permuted(i, c) = x(i, source(c));
    rotary(frequencies::standard(dim), layout::interleaved).apply(x, 1);
    rotary(frequencies::standard(dim), layout::half).apply(permuted, 1);
    for (index i = 0; i < 9; ++i)
      for (index c = 0; c < dim; ++c)
        REQUIRE(permuted(i, c) == Approx(x(i, source(c))).margin(1e-6));
  }
}

TEST_CASE("rotary: lengths stay, scores depend on the distance, turns add up", "[identities]") {
  generator random(7);
  INFO(random);
  for (layout channels : both_layouts) {
    rotary const rope{frequencies::standard(32), channels};
    auto const q = normal_tensor<double, 2>({8, 32}, random), k = normal_tensor<double, 2>({8, 32}, random);
    auto rotated = [&](tensor<double, 2> x, double first) {
      rope.apply(x, first);
      return x;
    };
    auto const q0 = rotated(q, 0), k0 = rotated(k, 0), q7 = rotated(q, 1000.5), k7 = rotated(k, 1000.5);
    for (index i = 0; i < 8; ++i) {
      CHECK(dot(q7, i, q7, i) == Approx(dot(q, i, q, i)).epsilon(1e-13));
      for (index j = 0; j < 8; ++j)
        CHECK(dot(q0, i, k0, j) == Approx(dot(q7, i, k7, j)).margin(1e-12));
    }
    // R_p R_q = R_{p+q}, row by row: positions 3 + i, then −1.75.
    auto twice = rotated(q, 3);
    rope.apply(twice, std::vector<double>(8, -1.75));
    CHECK(difference_of(twice, rotated(q, 1.25), 1).absolute <= 1e-13);
    CHECK(same_bits(rotated(tensor<double, 2>({1, 32}), 0), tensor<double, 2>({1, 32})));
    auto still = q;
    rope.apply(still, std::vector<int>(8, 0));
    CHECK(same_bits(still, q));
  }
}

TEMPLATE_TEST_CASE("rotary: apply_inverse undoes apply", "[identities]", float, double) {
  generator random(8);
  INFO(random);
  for (layout channels : both_layouts) {
    rotary const rope{frequencies::yarn(26, {.factor = 4, .train_len = 64}), channels};
    auto const x = uniform_tensor<TestType, 3>({2, 9, 29}, random);
    auto y = x;
    tensor<TestType, 3> z(x.extents());
    rope.apply(y, 77);
    CHECK(difference_of(y, x, 1).absolute > 0.1);
    rope.apply_inverse(y, 77, z);
    rope.apply_inverse(y, 77);
    CHECK(difference_of(y, x, 1).absolute <= 8 * tolerance<TestType>);
    CHECK(same_bits(y, z));
    // With factor 1 it is the turn by the negative position.
    rotary const plain{frequencies::standard(26), channels};
    auto back = x, forth = x;
    plain.apply_inverse(back, std::vector<int>(9, 12));
    plain.apply(forth, std::vector<int>(9, -12));
    CHECK(difference_of(back, forth, 1).absolute <= 2 * tolerance<TestType>);
  }
}

// --- edges ---------------------------------------------------------------------------------------------------------

TEST_CASE("rotary: nothing to do is done", "[edges]") {
  rotary const rope{frequencies::standard(4), layout::half};
  tensor<float, 4> none({0, 2, 3, 4}), no_rows({2, 2, 0, 4}), no_heads({1, 0, 3, 4});
  rope.apply(none, 0);
  rope.apply(no_rows, std::vector<double>{});
  rope.apply(no_heads, std::vector<double>{1, 2, 3}, no_heads);
  CHECK(none.size() + no_rows.size() + no_heads.size() == 0);
}

TEST_CASE("rotary: an input may be broadcast, and out may be x", "[edges]") {
  rotary const rope{frequencies::standard(4), layout::half};
  std::vector<float> const row{1, 2, 3, 4};
  tensor<float, 2> out({5, 4});
  rope.apply(view<float const, 2>(row.data(), {5, 4}, {0, 1}), 0, out);
  for (index i = 0; i < 5; ++i)
    CHECK(out(i, 0) == Approx(std::cos(static_cast<double>(i)) - 3 * std::sin(static_cast<double>(i))).margin(1e-6));
  auto a = out, b = out;
  rope.apply(a, 4);
  rope.apply(b, 4, b);
  CHECK(same_bits(a, b));
}

TEST_CASE("rotary: NaN stays in its pair", "[edges]") {
  for (layout channels : both_layouts) {
    rotary const rope{frequencies::standard(8), channels};
    tensor<float, 2> x({2, 8});
    x(1, 1) = std::numeric_limits<float>::quiet_NaN();
    rope.apply(x, 3);
    index const other = channels == layout::interleaved ? 0 : 5;
    for (index i = 0; i < 2; ++i)
      for (index c = 0; c < 8; ++c)
        CHECK(std::isnan(x(i, c)) == (i == 1 && (c == 1 || c == other)));
  }
}

TEST_CASE("rotary: more pairs than the stack holds", "[edges]") {
  generator random(9);
  INFO(random);
  rotary const rope{frequencies::standard(4096), layout::interleaved};
  auto x = uniform_tensor<float, 4>({1, 1, 3, 4096}, random);
  auto const expected =
      turned(rope, std::as_const(x).view(), [](index, index i) { return static_cast<double>(i) + 5; });
  rope.apply(x, 5);
  CHECK(difference_of(x, expected, 1).absolute <= 2 * tolerance<float>);
}

// --- errors --------------------------------------------------------------------------------------------------------

TEST_CASE("rotary: bad input is refused by name before anything is written", "[errors]") {
  rotary const rope{frequencies::standard(8), layout::half};
  std::vector<float> memory(200, 1.0f);
  view<float, 2> const x(memory.data(), {3, 8});
  tensor<float, 2> small({3, 6}), wrong({2, 8});
  tensor<float, 4> four({2, 1, 3, 8});
  tensor<int, 2> three_rows({3, 3}), two_rows({2, 3});

  CHECK_THROWS_WITH(rope.apply(small, 0),
                    "rotary::apply: x.extent(dim) must be at least 8, two channels for each pair, got 6");
  CHECK_THROWS_WITH(rope.apply_inverse(small, 0),
                    "rotary::apply_inverse: x.extent(dim) must be at least 8, two channels for each pair, got 6");
  CHECK_THROWS_WITH(rope.apply(x, std::vector{1, 2}),
                    "rotary::apply: positions must have 3 numbers, one per row, got 2");
  CHECK_THROWS_WITH(rope.apply(x, two_rows),
                    "rotary::apply: positions must have 1 or 1 rows of numbers, one per batch, got 2");
  CHECK_THROWS_WITH(rope.apply(four, three_rows),
                    "rotary::apply: positions must have 1 or 2 rows of numbers, one per batch, got 3");
  CHECK_NOTHROW(rope.apply(four, two_rows));
  CHECK_THROWS_WITH(rope.apply(x, 0, wrong), "rotary::apply: out.extent(len) must equal x's 3, got 2");
  CHECK_THROWS_WITH(rope.apply(x, 0, view<float, 2>(memory.data() + 8, {3, 8})),
                    "rotary::apply: out must be x itself or lie apart from it, got overlapping memory");
  CHECK_THROWS_WITH(rope.apply(x, 0, view<float, 2>(memory.data(), {3, 8}, {9, 1})),
                    "rotary::apply: out must be x itself or lie apart from it, got overlapping memory");
  CHECK_THROWS_WITH(rope.apply(x, 0, view<float, 2>(memory.data() + 100, {3, 8}, {0, 1})),
                    "rotary::apply: out must not overlap itself (a stride is 0 or too small)");
  CHECK_THROWS_WITH(rope.apply(view<float, 2>(memory.data(), {3, 8}, {4, 1}), 0),
                    "rotary::apply: x must not overlap itself (a stride is 0 or too small)");
  CHECK_THROWS_WITH(rope.apply(view<float, 2>(memory.data(), {-3, 8}), 0),
                    "rotary::apply: x has a negative extent, -3");
  CHECK(memory == std::vector<float>(200, 1.0f));
  CHECK_NOTHROW(rope.apply(x, 0, view<float, 2>(memory.data() + 24, {3, 8})));
}

static_assert(!std::is_constructible_v<rotary, frequencies>, "a layout has no default");
static_assert(!std::is_default_constructible_v<rotary>);

// --- resources -----------------------------------------------------------------------------------------------------

TEST_CASE("rotary: no heap for heads of any usual size", "[resources]") {
  rotary const rope{frequencies::standard(512), layout::half};
  tensor<float, 3> x({2, 4, 512});
  tensor<Eigen::half, 3> narrow({2, 4, 512});
  tensor<double, 3> wide({2, 4, 512});
  std::vector<int> const positions{1, 5, 2, 9};
  allocation_count const count;
  rope.apply(x, 3);
  rope.apply(narrow, positions);
  rope.apply_inverse(wide, positions);
  rope.apply(x, 3, narrow);
  auto const set = modifiers(rope);
  auto const requests = count.count();
  CHECK(requests == 0);
  CHECK(std::get<0>(set.members).angles.pairs() == 256);
}

}  // namespace
}  // namespace heed::test
