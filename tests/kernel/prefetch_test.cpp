#include <heed/kernel/prefetch.hpp>

#include <heed/core/tensor.hpp>
#include <heed/kernel/key_tiles.hpp>
#include <heed/kernel/query_block.hpp>

#include "support/catch.hpp"

#include <algorithm>
#include <vector>

// What is asked for ahead changes no result: these tests look at the addresses.

namespace heed::test {
namespace {

std::uintptr_t address(void const* p) { return reinterpret_cast<std::uintptr_t>(p); }

TEST_CASE("line_walk takes the lines of each row, row by row", "[contract]") {
  static char const memory[4096]{};
  for (index bytes : {1, 63, 64, 65, 200})
    for (index stride : {index{0}, bytes, bytes + 300, -bytes}) {
      CAPTURE(bytes, stride);
      line_walk walk(memory + 2048, stride, bytes);
      for (index row = 0; row < 5; ++row)
        for (index at = 0; at < bytes; at += 64) {
          REQUIRE(walk.at() == address(memory + 2048) + static_cast<std::uintptr_t>(row * stride + at));
          walk.next<1>();
        }
    }
}

TEST_CASE("lines_ahead takes each line of its rows once, then none", "[contract][edges]") {
  static char const memory[4096]{};
  lines_ahead ahead(memory, 300, 130, 4);
  for (index row = 0; row < 4; ++row)
    for (index at = 0; at < 192; at += 64) {
      REQUIRE(ahead.left() == 12 - row * 3 - at / 64);
      REQUIRE(ahead.at() == address(memory + row * 300 + at));
      ahead.next();
    }
  std::uintptr_t const end = ahead.at();
  ahead.next();
  CHECK(ahead.left() == 0);
  CHECK(ahead.at() == end);
  CHECK(lines_ahead(memory, 64, 64, -3).left() == 0);
  lines_ahead nothing;
  nothing.next();
  CHECK(nothing.left() == 0);
}

TEST_CASE("Lines are taken several at once as they are one by one", "[contract][edges]") {
  static char const memory[65536]{};
  for (index stride : {130, 192, 300})
    for (index count : {1, 2, 3, 4, 7, 12, 40}) {
      CAPTURE(stride, count);
      lines_ahead some(memory, stride, 130, 11), single = some;
      for (int step = 0; step < 6; ++step) {
        some.next(count);
        for (index i = 0; i < count; ++i)
          single.next();
        REQUIRE(some.left() == single.left());
        REQUIRE(some.at() == single.at());
      }
    }
  lines_ahead nothing;
  nothing.next(5);
  CHECK(nothing.left() == 0);
}

/// A call on v [2, 3, 50, 20] and out [2, 3, 70, 20].
template <class T>
struct call_on_rows {
  tensor<T, 4> v{{2, 3, 50, 20}};
  tensor<float, 4> out{{2, 3, 70, 20}};
  problem<float> call;

  call_on_rows() {
    call.heads_q = call.heads_kv = 3;
    call.kv_len = 50;
    call.dim = call.dim_v = 20;
    call.k = call.v = make_operand(as_view(v));
    call.out = {reinterpret_cast<std::byte*>(out.data()), kind_of<float>(), {}};
    std::copy_n(as_view(out).strides().begin(), 4, call.out.strides.begin());
  }
};

TEMPLATE_TEST_CASE("The values behind a key block, in their own storage", "[contract]", float, Eigen::half) {
  call_on_rows<TestType> x;
  arena counting;
  key_tiles<float> tiles(counting, x.call, nullptr, 16);
  tiles.open(1, 2, {16, 32});
  lines_ahead const values = tiles.values_behind(7);
  CHECK(values.at() == address(&x.v(1, 2, 32, 0)));
  CHECK(values.left() == 7 * static_cast<index>((20 * sizeof(TestType) + 63) / 64));
  CHECK(tiles.values_behind(-2).left() == 0);
  x.call.v.strides[3] = 2;
  CHECK(tiles.values_behind(7).left() == 0);
}

TEST_CASE("Where a block's rows will be written, if they lie evenly", "[contract]") {
  call_on_rows<float> x;
  arena counting;
  row_writer<float> const writer(counting, x.call);
  std::vector<index> row{5, 6, 7, 8}, head{2, 2, 2, 2};
  query_block<float> block;
  block.row = row.data();
  block.head = head.data();
  block.batch = 1;
  block.count = 4;
  CHECK(writer.lines(block).at() == address(&x.out(1, 2, 5, 0)));
  CHECK(writer.lines(block).left() == 4 * 2);
  head[3] = 1;
  CHECK(writer.lines(block).left() == 0);
  head[3] = 2;
  row = {5, 5, 6, 6};
  CHECK(writer.lines(block).left() == 0);
  row = {5, 6, 7, 8};
  x.call.out.strides[3] = 3;
  CHECK(writer.lines(block).left() == 0);
}

}  // namespace
}  // namespace heed::test
