#include <heed/core/operand.hpp>

#include <heed/core/tensor.hpp>

#include "support/catch.hpp"

#include <array>
#include <span>
#include <vector>

namespace heed::test {
namespace {

TEMPLATE_TEST_CASE("An operand reads any storage through its strides", "[contract]", float, double, Eigen::half,
                   Eigen::bfloat16) {
  tensor<TestType, 4> t({2, 3, 4, 5});
  for (index i = 0; i < t.size(); ++i)
    t.data()[i] = static_cast<TestType>(static_cast<float>(i));
  view<TestType const, 4> const turned(t.data(), {2, 3, 5, 4}, {60, 20, 1, 5});
  operand const straight = make_operand(std::as_const(t).view()), across = make_operand(turned);
  CHECK(straight.kind == kind_of<TestType>());
  CHECK(straight.extents == t.extents());
  CHECK(across.extents == index_array<4>{2, 3, 5, 4});
  CHECK(straight.at(1, 2, 3, 4) == reinterpret_cast<std::byte const*>(&t(1, 2, 3, 4)));
  int wrong = 0;
  for (index a = 0; a < 2; ++a)
    for (index b = 0; b < 3; ++b)
      for (index c = 0; c < 4; ++c)
        for (index d = 0; d < 5; ++d) {
          auto const expected = static_cast<double>(((a * 3 + b) * 4 + c) * 5 + d);
          wrong += straight(a, b, c, d) != expected || across(a, b, d, c) != expected;
        }
  CHECK(wrong == 0);
}

TEST_CASE("A bool reads as 0 or 1", "[contract]") {
  bool const flags[] = {true, false, true};
  operand const o = make_operand(view<bool const, 1>(flags, {3}));
  CHECK(o.kind == scalar_kind::boolean);
  CHECK(o(0, 0, 0, 0) == 1);
  CHECK(o(0, 0, 0, 1) == 0);
  unsigned char const byte = 7;  // a mask from C: any byte that is not 0
  CHECK(make_operand(view<unsigned char const, 1>(&byte, {1}))(0, 0, 0, 0) == 1);
}

TEST_CASE("Missing dimensions go in front, as extents of 1", "[contract]") {
  float memory[24] = {};
  memory[23] = 5;
  operand const two = make_operand(view<float, 2>(memory, {4, 6}));
  CHECK(two.extents == index_array<4>{1, 1, 4, 6});
  CHECK(two(0, 0, 3, 5) == 5);
  operand const one = make_operand(view<float, 1>(memory, {24}));
  CHECK(one.extents == index_array<4>{1, 1, 1, 24});
  CHECK(one(0, 0, 0, 23) == 5);
  CHECK(static_cast<bool>(one));
  CHECK_FALSE(static_cast<bool>(operand{}));
}

TEST_CASE("Extents of 1 are stretched", "[contract]") {
  float memory[6] = {0, 1, 2, 3, 4, 5};
  operand const o = make_operand(view<float, 4>(memory, {1, 2, 1, 3}));
  operand const wide = broadcast(o, {4, 2, 5, 3}, "attention", "bias");
  CHECK(wide.extents == index_array<4>{4, 2, 5, 3});
  int wrong = 0;
  for (index b = 0; b < 4; ++b)
    for (index h = 0; h < 2; ++h)
      for (index i = 0; i < 5; ++i)
        for (index j = 0; j < 3; ++j)
          wrong += wide(b, h, i, j) != static_cast<double>(3 * h + j);
  CHECK(wrong == 0);
  CHECK(broadcast(o, {1, 2, 1, 3}, "f", "x").strides == o.strides);
  CHECK(broadcast(o, {0, 2, 0, 3}, "f", "x").extents == index_array<4>{0, 2, 0, 3});
}

TEST_CASE("What cannot be stretched is refused by name", "[errors]") {
  float memory[120] = {};
  operand const o = make_operand(view<float, 4>(memory, {2, 3, 4, 5}));
  CHECK_THROWS_WITH(broadcast(o, {3, 3, 4, 5}, "attention", "mask"), "attention: mask must have 1 or 3 batch, got 2");
  CHECK_THROWS_WITH(broadcast(o, {2, 8, 4, 5}, "attention", "mask"), "attention: mask must have 1 or 8 heads, got 3");
  CHECK_THROWS_WITH(broadcast(o, {2, 3, 1, 5}, "attention", "bias"), "attention: bias must have 1 or 1 rows, got 4");
  CHECK_THROWS_WITH(broadcast(o, {2, 3, 4, 6}, "scores", "gate"), "scores: gate must have 1 or 6 columns, got 5");
  operand const empty = make_operand(view<float, 2>(memory, {4, 0}));
  CHECK_THROWS_WITH(broadcast(empty, {1, 1, 4, 5}, "attention", "mask"),
                    "attention: mask must have 1 or 5 columns, got 0");
}

TEMPLATE_TEST_CASE("A row output writes one number a row", "[contract]", float, double) {
  tensor<TestType, 3> t({2, 3, 4});
  row_output const rows = make_row_output(t.view());
  CHECK(rows.extents == t.extents());
  rows.store(1, 2, 3, 0.1);
  CHECK(t(1, 2, 3) == static_cast<TestType>(0.1));
  for (index i = 0; i < t.size() - 1; ++i)
    CHECK(t.data()[i] == 0);
  row_output const one = make_row_output(view<TestType, 1>(t.data(), {4}, {6}));
  CHECK(one.extents == index_array<3>{1, 1, 4});
  one.store(0, 0, 2, 7);
  CHECK(t.data()[12] == 7);
  CHECK_FALSE(static_cast<bool>(row_output{}));
}

TEST_CASE("A list of numbers reads any arithmetic container", "[contract]") {
  std::vector<std::ptrdiff_t> const lengths{3, 1, 4};
  number_list const a(lengths);
  CHECK(a.size() == 3);
  CHECK(a.whole(2) == 4);
  CHECK(a.real(1) == 1.0);
  std::array<float, 2> const slopes{0.5F, -2.75F};
  number_list const b(slopes);
  CHECK(b.real(0) == 0.5);
  CHECK(b.whole(1) == -2);
  std::int32_t const plain[] = {7, 8};
  CHECK(number_list(plain).whole(1) == 8);
  CHECK(number_list(std::span<double const>()).size() == 0);
  Eigen::VectorXd vector(3);
  vector << 1, 2, 3.5;
  CHECK(number_list(vector).size() == 3);
  CHECK(number_list(vector).real(2) == 3.5);
  Eigen::Array<std::int64_t, 1, 2> const row(std::int64_t{1} << 40, -1);
  CHECK(number_list(row).whole(0) == std::int64_t{1} << 40);
  CHECK(static_cast<bool>(a));
  CHECK_FALSE(static_cast<bool>(number_list{}));
}

TEST_CASE("A list views and does not copy", "[contract]") {
  std::vector<int> lengths{3, 1};
  number_list const list(lengths);
  lengths[1] = 9;
  CHECK(list.whole(1) == 9);
}

}  // namespace
}  // namespace heed::test
