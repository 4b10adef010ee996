#include <heed/core/tensor.hpp>

#include "support/catch.hpp"

#include <numeric>
#include <vector>

namespace heed::test {
namespace {

std::vector<float> counted(index n) {
  std::vector<float> numbers(static_cast<std::size_t>(n));
  std::iota(numbers.begin(), numbers.end(), 0.0F);
  return numbers;
}

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (argument_error const& e) {
    return e.what();
  }
  return "nothing was thrown";
}

static_assert(std::is_same_v<index, std::ptrdiff_t>);
static_assert(std::is_convertible_v<view<float, 3>, view<float const, 3>>);
static_assert(!std::is_convertible_v<view<float const, 3>, view<float, 3>>);
static_assert(!std::is_convertible_v<view<double, 3>, view<float const, 3>>);
static_assert(std::is_trivially_copyable_v<view<float, 4>>);
static_assert(std::is_same_v<view<float const, 4>::value_type, float>);

TEST_CASE("A view is spelt with arrays or braces, with strides or row-major without", "[contract]") {
  auto const memory = counted(8192);
  float const* const p = memory.data();
  std::array<std::ptrdiff_t, 4> e{1, 8, 16, 64}, s{8192, 64, 512, 1};
  view<float const, 4> const a(p, e), b(p, {1, 8, 16, 64}), c(p, {1, 8, 16, 64}, {8192, 64, 512, 1}), d(p, e, s);
  std::ptrdiff_t const n = a.extent(2), t = a.stride(2);
  CHECK(n == 16);
  CHECK(t == 64);
  CHECK(a.strides() == index_array<4>{8192, 1024, 64, 1});
  CHECK(b.strides() == a.strides());
  CHECK(b.extents() == e);
  CHECK(c.strides() == s);
  CHECK(d.strides() == s);
  CHECK(a.data() == p);
  CHECK(a.size() == 8192);
  CHECK(a(0, 1, 2, 3) == 1024 + 2 * 64 + 3);
  CHECK(d(0, 1, 2, 3) == 64 + 2 * 512 + 3);
}

TEST_CASE("A view of constant extents works at compile time", "[contract]") {
  static constexpr int numbers[6] = {0, 1, 2, 3, 4, 5};
  constexpr view<int const, 2> v(numbers, {2, 3});
  static_assert(v(1, 2) == 5 && v.size() == 6 && v.extent(0) == 2 && v.stride(0) == 3);
  CHECK(v(1, 0) == 3);
}

TEST_CASE("A view shares memory: copies of it do, and so does its const form", "[contract]") {
  auto memory = counted(6);
  view<float, 2> const v(memory.data(), {2, 3});
  view<float const, 2> const constant = v;
  auto const copy = v;
  copy(1, 1) = 40;
  CHECK(constant(1, 1) == 40);
  CHECK(constant.data() == memory.data());
  CHECK(constant.strides() == v.strides());
  CHECK(as_view(v).data() == v.data());
  CHECK(as_view(v).strides() == v.strides());
}

TEST_CASE("Strides may be negative, and zero where an input is broadcast", "[contract][edges]") {
  auto memory = counted(24);
  view<float, 3> const reversed(memory.data() + 23, {2, 3, 4}, {-12, -4, -1});
  float expected = 23;
  for (index i = 0; i < 2; ++i)
    for (index j = 0; j < 3; ++j)
      for (index c = 0; c < 4; ++c)
        CHECK(reversed(i, j, c) == expected--);
  view<float const, 2> const repeated(memory.data() + 5, {3, 4}, {0, 1});
  for (index i = 0; i < 3; ++i)
    CHECK(repeated(i, 2) == 7);
}

TEST_CASE("A view of size 0 or of nothing is harmless", "[edges]") {
  view<float, 4> const nothing;
  CHECK(nothing.data() == nullptr);
  CHECK(nothing.size() == 0);
  view<float, 3> const empty(nullptr, {2, 0, 4});
  CHECK(empty.size() == 0);
  CHECK(empty.stride(1) == 4);
  CHECK(empty.matrix(1).rows() == 0);
}

TEST_CASE("A view hands its matrices back as Eigen maps of the same memory", "[contract]") {
  auto memory = counted(2 * 3 * 4 * 5);
  view<float, 4> const v(memory.data(), {2, 3, 4, 5});
  auto m = v.matrix(1, 2);
  CHECK(m.rows() == 4);
  CHECK(m.cols() == 5);
  CHECK(m.data() == &v(1, 2, 0, 0));
  for (index i = 0; i < 4; ++i)
    for (index c = 0; c < 5; ++c)
      CHECK(m(i, c) == v(1, 2, i, c));
  m(3, 4) = -1;
  CHECK(v(1, 2, 3, 4) == -1);

  view<float const, 4> const turned(memory.data(), {2, 3, 5, 4}, {60, 20, 1, 5});  // every matrix transposed
  auto const t = turned.matrix(0, 1);
  static_assert(std::is_same_v<decltype(turned.matrix(0, 1).data()), float const*>);
  for (index i = 0; i < 5; ++i)
    for (index c = 0; c < 4; ++c)
      CHECK(t(i, c) == v(0, 1, c, i));
  CHECK((t.transpose() - v.matrix(0, 1)).norm() == 0);
  CHECK(view<float, 2>(memory.data(), {3, 4}).matrix()(2, 1) == 9);
}

TEST_CASE("heads_first exchanges heads and rows", "[contract]") {
  auto memory = counted(2 * 3 * 4 * 5);
  view<float, 4> const rows_first(memory.data(), {2, 3, 4, 5});  // [batch, len, heads, dim]
  auto const v = heads_first(rows_first);
  CHECK(v.extents() == index_array<4>{2, 4, 3, 5});
  for (index b = 0; b < 2; ++b)
    for (index h = 0; h < 4; ++h)
      for (index i = 0; i < 3; ++i)
        for (index c = 0; c < 5; ++c)
          CHECK(&v(b, h, i, c) == &rows_first(b, i, h, c));
  auto const three = heads_first(view<float const, 3>(memory.data(), {3, 4, 5}));
  CHECK(three.extents() == index_array<3>{4, 3, 5});
  CHECK(&three(3, 1, 2) == &rows_first(0, 1, 3, 2));
}

TEST_CASE("split_heads cuts the channels of a row into heads", "[contract]") {
  auto memory = counted(2 * 3 * 20);
  view<float, 3> const x(memory.data(), {2, 3, 20});
  auto const v = split_heads(x, 4);
  CHECK(v.extents() == index_array<4>{2, 4, 3, 5});
  for (index b = 0; b < 2; ++b)
    for (index h = 0; h < 4; ++h)
      for (index i = 0; i < 3; ++i)
        for (index c = 0; c < 5; ++c)
          CHECK(&v(b, h, i, c) == &x(b, i, h * 5 + c));
  view<float, 3> const sparse(memory.data(), {2, 3, 8}, {60, 20, 2});  // every second channel of the first 16
  auto const spread = split_heads(sparse, 4);
  CHECK(spread.extents() == index_array<4>{2, 4, 3, 2});
  CHECK(spread.strides() == index_array<4>{60, 4, 20, 2});
  CHECK(&spread(1, 3, 2, 1) == &sparse(1, 2, 7));
  view<float const, 2> const one(memory.data(), {3, 20}, {1, 3});  // column-major
  auto const heads = split_heads(one, 2);
  CHECK(heads.extents() == index_array<3>{2, 3, 10});
  CHECK(&heads(1, 2, 3) == &one(2, 13));
}

TEST_CASE("split_packed_qkv finds queries, keys and values", "[contract]") {
  auto memory = counted(2 * 3 * 16);
  view<float const, 3> const x(memory.data(), {2, 3, 16});  // 4 query heads and 2 key heads of 2 channels
  auto const [q, k, v] = split_packed_qkv(x, 4, 2);
  CHECK(q.extents() == index_array<4>{2, 4, 3, 2});
  CHECK(k.extents() == index_array<4>{2, 2, 3, 2});
  CHECK(v.extents() == index_array<4>{2, 2, 3, 2});
  for (index b = 0; b < 2; ++b)
    for (index i = 0; i < 3; ++i)
      for (index c = 0; c < 2; ++c) {
        for (index h = 0; h < 4; ++h)
          CHECK(&q(b, h, i, c) == &x(b, i, 2 * h + c));
        for (index h = 0; h < 2; ++h) {
          CHECK(&k(b, h, i, c) == &x(b, i, 8 + 2 * h + c));
          CHECK(&v(b, h, i, c) == &x(b, i, 12 + 2 * h + c));
        }
      }
}

TEST_CASE("Heads that do not divide the channels are refused with the numbers", "[errors]") {
  auto memory = counted(2 * 3 * 20);
  view<float, 3> const x(memory.data(), {2, 3, 20});
  view<float, 2> const y(memory.data(), {3, 20});
  CHECK(message_of([&] { split_heads(x, 3); }) == "split_heads: heads must divide the last extent 20, got 3");
  CHECK(message_of([&] { split_heads(x, 0); }) == "split_heads: heads must divide the last extent 20, got 0");
  CHECK(message_of([&] { split_heads(y, -5); }) == "split_heads: heads must divide the last extent 20, got -5");
  CHECK(message_of([&] { split_packed_qkv(x, 3, 2); }) ==
        "split_packed_qkv: heads_q + 2 heads_kv must divide the last extent 20, got 3 + 2 * 2");
  // 6 − 2 divides 20, but there are no −1 key heads.
  CHECK(message_of([&] { split_packed_qkv(x, 6, -1); }) ==
        "split_packed_qkv: heads_q + 2 heads_kv must divide the last extent 20, got 6 + 2 * -1");
}

}  // namespace
}  // namespace heed::test
