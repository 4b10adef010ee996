#include <heed/kernel/plane.hpp>

#include <heed/core/tensor.hpp>

#include "support/catch.hpp"
#include "support/random.hpp"

#include <cmath>
#include <vector>

namespace heed::test {
namespace {

template <class T>
constexpr T hidden = -std::numeric_limits<T>::infinity();

constexpr index batches = 2, heads = 3, q_len = 4, kv_len = 600;  // more keys than one step of a count

operand stretched(operand const& o) { return broadcast(o, {batches, heads, q_len, kv_len}, "test", "operand"); }

/// A plane's numbers for one row, by the way the kernels ask for them: in pieces.
template <class T>
std::vector<T> row_of(plane const& p, index batch, index head, index row, index position) {
  std::vector<T> numbers(kv_len, T(77));
  for (index at = 0; at < kv_len; at += 37)
    p.fill(batch, head, row, position, at, std::min<index>(37, kv_len - at), numbers.data() + at);
  return numbers;
}

/// Calls f(batch, head, row) for all rows.
template <class F>
void for_each_row(F const& f) {
  for (index b = 0; b < batches; ++b)
    for (index h = 0; h < heads; ++h)
      for (index i = 0; i < q_len; ++i)
        f(b, h, i);
}

plane mask_plane(operand const& o) {
  plane p;
  p.from = plane::source::mask;
  p.values = stretched(o);
  return p;
}

TEMPLATE_TEST_CASE("A bias plane is the bias, of any storage and strides", "[contract]", float, Eigen::half,
                   Eigen::bfloat16) {
  generator random(1);
  auto const bias = normal_tensor<TestType, 4>({batches, heads, q_len, kv_len}, random);
  auto const by_head = normal_tensor<TestType, 3>({heads, 1, kv_len}, random);
  auto const across = normal_tensor<TestType, 2>({kv_len, q_len}, random);
  plane p, q, r;
  p.values = stretched(make_operand(bias.view()));
  q.values = stretched(make_operand(by_head.view()));
  r.values = stretched(make_operand(view<TestType const, 2>(across.data(), {q_len, kv_len}, {1, q_len})));
  CHECK_FALSE(p.counts());
  int wrong = 0;
  for_each_row([&](index b, index h, index i) {
    auto const x = row_of<float>(p, b, h, i, i), y = row_of<float>(q, b, h, i, i), z = row_of<float>(r, b, h, i, i);
    for (index j = 0; j < kv_len; ++j) {
      auto const at = static_cast<std::size_t>(j);
      wrong += x[at] != static_cast<float>(bias(b, h, i, j));
      wrong += y[at] != static_cast<float>(by_head(h, 0, j));
      wrong += z[at] != static_cast<float>(across(j, i));
    }
  });
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("A mask plane is 0 where the mask is true, minus infinity elsewhere", "[contract]", float, double) {
  generator random(2);
  auto const mask = mask_tensor<4>({batches, 1, q_len, kv_len}, random);
  plane const p = mask_plane(make_operand(mask.view()));
  CHECK(p.counts());
  int wrong = 0;
  for_each_row([&](index b, index h, index i) {
    auto const x = row_of<TestType>(p, b, h, i, i);
    for (index j = 0; j < kv_len; ++j)
      wrong += x[static_cast<std::size_t>(j)] != (mask(b, 0, i, j) ? TestType(0) : hidden<TestType>);
  });
  CHECK(wrong == 0);
}

plane segment_plane(tensor<std::int32_t, 2> const& query_ids, tensor<std::int32_t, 2> const& key_ids) {
  plane p;
  p.from = plane::source::segments;
  p.query_ids = query_ids.view();
  p.key_ids = key_ids.view();
  return p;
}

TEMPLATE_TEST_CASE("Segments see their own ids; a negative id sees nothing, not even its own", "[contract][edges]",
                   float, double) {
  generator random(3);
  tensor<std::int32_t, 2> query_ids({batches, q_len}), key_ids({batches, kv_len});
  fill(query_ids.view(), [&] { return random.whole(-1, 2); });
  fill(key_ids.view(), [&] { return random.whole(-1, 2); });
  query_ids(0, 1) = -1;
  plane const p = segment_plane(query_ids, key_ids);
  CHECK(p.counts());
  int wrong = 0;
  for_each_row([&](index b, index h, index i) {
    auto const x = row_of<TestType>(p, b, h, i, i);
    for (index j = 0; j < kv_len; ++j) {
      bool const sees = query_ids(b, i) >= 0 && query_ids(b, i) == key_ids(b, j);
      wrong += x[static_cast<std::size_t>(j)] != (sees ? TestType(0) : hidden<TestType>);
    }
  });
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("A relative bias is looked up by distance, clamped at both ends", "[contract][edges]", float,
                   double) {
  using T = TestType;
  generator random(4);
  constexpr index entries = 9;
  auto const table = normal_tensor<T, 2>({heads, entries}, random), one = normal_tensor<T, 2>({1, entries}, random);
  for (index first : {-4, 0, 3, -700})
    for (bool by_head : {true, false}) {
      plane p;
      p.from = plane::source::relative;
      p.values = broadcast(
          make_operand(view<T const, 3>(by_head ? table.data() : one.data(), {by_head ? heads : 1, 1, entries})),
          {1, heads, 1, entries}, "test", "table");
      std::swap(p.values.extents[1], p.values.extents[2]);  // [1, 1, heads, entries]
      std::swap(p.values.strides[1], p.values.strides[2]);
      p.first = first;
      CHECK_FALSE(p.counts());
      int wrong = 0;
      for (index position : {-5, 0, 3, 300, 10000})
        for (index h = 0; h < heads; ++h) {
          auto const x = row_of<T>(p, 0, h, 0, position);
          for (index j = 0; j < kv_len; ++j) {
            index entry = position - j - first;
            entry = entry < 0 ? 0 : entry > entries - 1 ? entries - 1 : entry;
            wrong += x[static_cast<std::size_t>(j)] != (by_head ? table(h, entry) : one(0, entry));
          }
        }
      CAPTURE(first, by_head);
      CHECK(wrong == 0);
    }
}

TEMPLATE_TEST_CASE("Planes are summed; minus infinity of any hides, whatever the others hold", "[contract][edges]",
                   float, double) {
  using T = TestType;
  constexpr index n = 7;
  T const infinity = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  T const first[n] = {1, 2, -infinity, infinity, nan, -infinity, 3},
          second[n] = {10, 20, 30, -infinity, -infinity, infinity, nan};
  bool const mask[n] = {true, false, true, true, true, true, true};
  plane a, b, m;
  a.values = make_operand(view<T const, 1>(first, {n}));
  b.values = make_operand(view<T const, 1>(second, {n}));
  m.from = plane::source::mask;
  m.values = make_operand(view<bool const, 1>(mask, {n}));
  planes all;
  CHECK_FALSE(static_cast<bool>(all));
  all.add(a);
  all.add(b);
  CHECK_FALSE(all.lower_counts);
  all.add(m);
  CHECK(all.lower_counts);
  CHECK(static_cast<bool>(all));
  T to[n + 1], spare[n];
  to[n] = 5;
  fill_planes(all, 0, 0, 0, 0, 0, n, to, spare);
  CHECK(to[0] == 11);
  for (int i : {1, 2, 3, 4, 5})
    CHECK(to[i] == hidden<T>);
  CHECK(std::isnan(to[6]));
  CHECK(to[n] == 5);
}

TEST_CASE("The lines of a plane that is alone and read as it lies", "[contract]") {
  generator random(6);
  auto const bias = normal_tensor<float, 4>({batches, heads, q_len, kv_len}, random);
  auto const of_row = normal_tensor<float, 1>({kv_len}, random);
  auto const lines = [](planes const& all) { return all.lines(1, 2, 1, 3, {32, 82}); };
  planes one;
  plane p;
  p.values = stretched(make_operand(bias.view()));
  one.add(p);
  CHECK(lines(one).at() == reinterpret_cast<std::uintptr_t>(&bias(1, 2, 1, 32)));
  CHECK(lines(one).left() == 3 * 4);
  one.items[0].values = stretched(make_operand(of_row.view()));
  CHECK(lines(one).left() == 4);  // the same for all rows
  one.items[0].values.strides[3] = 0;
  CHECK(lines(one).left() == 0);
  one.items[0] = p;
  one.items[0].from = plane::source::relative;
  CHECK(lines(one).left() == 0);
  planes two;
  two.add(p);
  two.add(p);
  CHECK(lines(two).left() == 0);
}

TEST_CASE("count_visible counts what band, masks, segments and a user's rule leave, not biases", "[contract]") {
  generator random(5);
  INFO(random);
  tensor<std::int32_t, 2> query_ids({batches, q_len}), key_ids({batches, kv_len});
  fill(query_ids.view(), [&] { return random.whole(0, 2); });
  fill(key_ids.view(), [&] { return random.whole(-1, 2); });
  auto const mask = mask_tensor<4>({batches, heads, q_len, kv_len}, random, 0.7);
  tensor<float, 1> nothing({kv_len});
  fill(nothing.view(), [] { return -std::numeric_limits<double>::infinity(); });
  planes all;
  plane bias;
  bias.values = stretched(make_operand(nothing.view()));
  all.add(bias);
  all.add(mask_plane(make_operand(mask.view())));
  all.add(segment_plane(query_ids, key_ids));
  for (band const& b : {band{0, unbounded, unbounded, 0, false, kv_len}, band{590, 300, 0, 5, true, kv_len},
                        band{400, 30, 40, 390, false, 500}, band{-2, unbounded, 0, 0, true, kv_len}})
    for_each_row([&](index batch, index head, index row) {
      index expected = 0;
      for (index j = 0; j < kv_len; ++j)
        expected +=
            b.sees(row, j) && mask(batch, head, row, j) && query_ids(batch, row) == key_ids(batch, j) && j % 11 != 0;
      REQUIRE(count_visible(all, b, batch, head, row, [](index j) { return j % 11 != 0; }) == expected);
    });
}

}  // namespace
}  // namespace heed::test
