#include <heed/kernel/band.hpp>

#include "support/catch.hpp"

#include <string>
#include <vector>

namespace heed::test {
namespace {

/// Whether position p sees key j, as the contract's table says it, in numbers that cannot overflow.
bool should_see(band const& b, index row, index key) {
  if (key < 0 || key >= b.kv_len)
    return false;
  auto const distance =
      static_cast<long double>(b.offset) + static_cast<long double>(row) - static_cast<long double>(key);
  if (b.causal && distance < 0)
    return false;
  bool const in_window = (b.left == unbounded || distance <= static_cast<long double>(b.left)) &&
                         (b.right == unbounded || -distance <= static_cast<long double>(b.right));
  return in_window || key < b.prefix_keys;
}

constexpr index rows = 6;

std::string text(band const& b) {
  auto const number = [](index n) { return n == unbounded ? std::string("unbounded") : std::to_string(n); };
  return "offset " + number(b.offset) + ", left " + number(b.left) + ", right " + number(b.right) + ", prefix " +
         number(b.prefix_keys) + ", causal " + number(b.causal) + ", kv_len " + number(b.kv_len);
}

/// Calls f with every small band: causal ones have right = 0, as the fold makes them.
template <class F>
void for_each_band(F const& f) {
#if defined(HEED_SMALL_SWEEP)
  std::vector<index> const windows{0, 2, 9, unbounded};
#else
  std::vector<index> const windows{0, 1, 2, 3, 5, 9, 20, unbounded - 1, unbounded};
#endif
  for (index kv_len : {0, 1, 2, 7, 13})
    for (index offset : {-20, -7, -3, -1, 0, 1, 2, 5, 8, 12, 13, 14, 40})
      for (index left : windows)
        for (index right : windows)
          for (index prefix : {0, 1, 3, 6, 100})
            for (bool causal : {false, true})
              if (!causal || right == 0)
                f(band{offset, left, right, prefix, causal, kv_len});
}

TEST_CASE("A band sees what the modifiers say, and counts it", "[contract]") {
  for_each_band([](band const& b) {
    int wrong = 0;
    for (index row = 0; row < rows; ++row) {
      index count = 0;
      for (index key = -2; key < b.kv_len + 3; ++key) {
        bool const expected = should_see(b, row, key);
        wrong += b.sees(row, key) != expected;
        wrong += (key >= 0 && ((key >= b.lo(row) && key < b.hi(row)) || key < b.prefix(row))) != expected;
        count += expected;
      }
      wrong += b.count(row) != count;
      wrong += b.position(row) != b.offset + row;
      wrong += b.lo(row) < 0 || b.hi(row) < 0 || b.hi(row) > b.kv_len || b.prefix(row) < 0 || b.prefix(row) > b.kv_len;
    }
    if (wrong != 0)
      FAIL_CHECK(text(b));
  });
}

TEST_CASE("All three bounds of a band grow with the row", "[contract]") {
  for_each_band([](band const& b) {
    for (index row = 1; row < rows; ++row)
      if (b.lo(row) < b.lo(row - 1) || b.hi(row) < b.hi(row - 1) || b.prefix(row) < b.prefix(row - 1))
        FAIL_CHECK(text(b));
  });
}

TEST_CASE("Lengths near the end of the numbers saturate", "[edges]") {
  constexpr index far = index{1} << 62;
  for (index offset : {-far, index{-5}, index{0}, far})
    for (index left : {index{0}, far, unbounded - 1, unbounded})
      for (index right : {index{0}, far, unbounded - 1, unbounded}) {
        band const b{offset, left, right, 2, false, 10};
        for (index row : {index{0}, index{3}})
          for (index key = 0; key < 10; ++key)
            if (b.sees(row, key) != should_see(b, row, key))
              FAIL_CHECK(text(b) + ", row " + std::to_string(row) + ", key " + std::to_string(key));
      }
}

TEST_CASE("hull holds every visible key, and nothing where there is none", "[contract]") {
  for_each_band([](band const& b) {
    int wrong = 0;
    for (index first = 0; first < rows; first += 2)
      for (index last : {first, rows - 1})
        for (key_range const keys : {key_range{0, b.kv_len}, key_range{0, 4}, key_range{4, 8}, key_range{5, 6}}) {
          key_range const within{keys.begin, std::min(keys.end, b.kv_len)}, h = hull(b, first, last, within);
          bool any = false;
          for (index key = within.begin; key < within.end; ++key)
            for (index row = first; row <= last; ++row)
              if (should_see(b, row, key)) {
                any = true;
                wrong += key < h.begin || key >= h.end;
              }
          wrong += !h.empty() && (h.begin < within.begin || h.end > within.end);
          wrong += first == last && any == h.empty();
        }
    if (wrong != 0)
      FAIL_CHECK(text(b));
  });
}

TEST_CASE("all_visible is never wrong, and right for one row", "[contract]") {
  for_each_band([](band const& b) {
    int wrong = 0;
    for (index first = 0; first < rows; ++first)
      for (index last = first; last < rows; ++last)
        for (index begin = 0; begin < b.kv_len; begin += 2)
          for (index end = begin + 1; end <= b.kv_len; end += 3) {
            bool all = true;
            for (index row = first; row <= last; ++row)
              for (index key = begin; key < end; ++key)
                all = all && should_see(b, row, key);
            bool const said = all_visible(b, first, last, {begin, end});
            wrong += said && !all;
            wrong += !said && all && first == last;
          }
    if (wrong != 0)
      FAIL_CHECK(text(b));
  });
}

TEST_CASE("block_walk meets every visible key once, at multiples of the step", "[contract]") {
  for_each_band([](band const& b) {
    int wrong = 0;
    for (index step : {1, 3, 4, 64})
      for (index first = 0; first < rows; first += 2)
        for (index last : {first, rows - 1}) {
          std::vector<int> walked(static_cast<std::size_t>(b.kv_len));
          index before = -1, blocks = 0;
          for (block_walk walk(b, first, last, step); !walk.done() && blocks < 100; walk.advance(), ++blocks) {
            wrong += walk.begin() <= before || walk.begin() % step != 0 || walk.begin() >= b.kv_len;
            before = walk.begin();
            for (index key = walk.begin(); key < std::min(walk.begin() + step, b.kv_len); ++key)
              ++walked[static_cast<std::size_t>(key)];
          }
          wrong += blocks == 100;
          for (index key = 0; key < b.kv_len; ++key) {
            int const times = walked[static_cast<std::size_t>(key)];
            bool visible = false;
            for (index row = first; row <= last; ++row)
              visible = visible || should_see(b, row, key);
            wrong += times > 1 || (visible && times == 0);
          }
        }
    if (wrong != 0)
      FAIL_CHECK(text(b));
  });
}

TEST_CASE("block_walk skips what no row sees", "[contract]") {
  // One row at 1000 with a window of 10 and 4 sink tokens: the first block, then those of the window.
  band const b{1000, 10, 0, 4, true, 2000};
  std::vector<index> begins;
  for (block_walk walk(b, 0, 0, 64); !walk.done(); walk.advance())
    begins.push_back(walk.begin());
  CHECK(begins == std::vector<index>{0, 960});
  CHECK(block_walk(band{-5, unbounded, 0, 0, true, 100}, 0, 3, 64).done());
}

}  // namespace
}  // namespace heed::test
