#include <heed/kernel/value_rows.hpp>

#include "support/catch.hpp"
#include "support/sums.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

namespace heed::test {
namespace {

template <class T>
struct rows_case {
  static constexpr index width = block_lanes<T>;
  index n, dim_v, ld;
  std::vector<T> w, v;
  weighed_keys<T> x;

  rows_case(index n_keys, index channels, generator& random)
      : n(n_keys), dim_v(channels), ld(channels + 3), w(random_vector<T>(n * width, random)),
        v(rows_with_gaps<T>(n, dim_v, ld, random)) {
    x.w = w.data();
    x.v = v.data();
    x.ldv = ld;
    std::fill_n(x.end, width, n);
  }

  /// What is hidden from a lane neither counts nor, being NaN there, harms.
  template <class Sees>
  void check(index lane, index count, generator& random, Sees sees) const {
    index const ldout = dim_v + 5;
    T const untouched = T(-12345);
    auto const factor = random_vector<T>(count, random);
    std::vector<T> out(static_cast<std::size_t>((count + 1) * ldout), untouched);
    value_rows(x, lane, count, dim_v, factor.data(), out.data(), ldout);
    int wrong = 0;
    for (index i = 0; i <= count; ++i)
      for (index c = 0; c < ldout; ++c) {
        T const got = out[static_cast<std::size_t>(i * ldout + c)];
        if (i == count || c >= dim_v) {
          wrong += got != untouched;
          continue;
        }
        exact_sum expected;
        for (index j = 0; j < n; ++j)
          if (sees(lane + i, j))
            expected.add(w[static_cast<std::size_t>(j * width + lane + i)], v[static_cast<std::size_t>(j * ld + c)]);
        wrong += !expected.times(static_cast<double>(factor[static_cast<std::size_t>(i)])).matches(got);
      }
    CAPTURE(n, dim_v, lane, count);
    REQUIRE(wrong == 0);
  }
};

}  // namespace

TEMPLATE_TEST_CASE("value_rows sums exactly the keys that each row sees", "[contract][edges]", float, double) {
  using T = TestType;
  generator random(71);
  INFO(random);
  for (index n : {1, 2, 7, 33, 128})
    for (index dim_v :
         {lanes<T>, lanes<T> + 1, tile_lanes<T> - 1, tile_lanes<T>, tile_lanes<T> + lanes<T> + 3, 3 * tile_lanes<T>})
      for (index step : {0, 1, 2, 5}) {  // keys that a row sees more than the one before it
        rows_case<T> x(n, dim_v, random);
        auto const sees = [&](index at, index key) { return key < x.x.end[at]; };
        for (index lane = 0; lane < block_lanes<T>; lane += lanes<T>) {
          index const least = random.whole(-3, n);
          for (index i = lane; i < block_lanes<T>; ++i)
            x.x.end[i] = std::clamp<index>(least + step * (i - lane), 0, n);
          for (index count = 1; count <= lanes<T>; ++count)
            x.check(lane, count, random, sees);
          x.check(lane, block_lanes<T> - lane, random, sees);
        }
      }
}

TEMPLATE_TEST_CASE("value_rows: no number past the last key that a row sees reaches it", "[contract][edges]", float,
                   double) {
  using T = TestType;
  generator random(72);
  INFO(random);
  index const n = lanes<T> + 3;
  for (index poisoned = 1; poisoned < n; ++poisoned) {
    rows_case<T> x(n, tile_lanes<T> + lanes<T> + 1, random);
    for (index i = 0; i < lanes<T>; ++i)
      x.x.end[i] = std::min(i + 2, poisoned);
    std::fill_n(x.v.begin() + poisoned * x.ld, x.dim_v, std::numeric_limits<T>::quiet_NaN());
    std::fill_n(x.w.begin() + poisoned * x.width, x.width, T(0));
    x.check(0, lanes<T>, random, [&](index at, index key) { return key < x.x.end[at]; });
  }
}

TEMPLATE_TEST_CASE("value_rows asks the bits, of each register tile its own", "[contract][edges]", float, double) {
  using T = TestType;
  constexpr index width = block_lanes<T>;
  generator random(73);
  INFO(random);
  index const n = 23, tiles = register_tile<T>::side_by_side, stride = n + 4;
  rows_case<T> x(n, tile_lanes<T> + lanes<T> + 1, random);
  std::vector<std::uint64_t> seen(static_cast<std::size_t>(tiles * stride));
  for (auto& bits : seen)
    for (index lane = 0; lane < 64; ++lane)
      bits |= std::uint64_t{random.chance(0.6)} << lane;
  x.x.seen = seen.data();
  x.x.seen_stride = stride;
  auto const sees = [&](index at, index key) {
    index const tile = at / tile_lanes<T>;
    return key < x.x.end[at] && (seen[static_cast<std::size_t>(tile * stride + key)] >> at & 1U) != 0;
  };
  for (index i = 0; i < width; ++i)
    x.x.end[i] = std::min<index>(n, 3 + i);
  for (index lane = 0; lane < width; lane += lanes<T>) {
    x.check(lane, lanes<T>, random, sees);
    // One key is hidden from all of them, and its values are NaN.
    auto const v = x.v;
    std::fill_n(x.v.begin() + 2 * x.ld, x.dim_v, std::numeric_limits<T>::quiet_NaN());
    for (index tile = 0; tile < tiles; ++tile)
      seen[static_cast<std::size_t>(tile * stride + 2)] = 0;
    x.check(lane, lanes<T>, random, sees);
    x.v = v;
  }
}

TEMPLATE_TEST_CASE("value_rows returns a single value bit for bit, and zeros where nothing is seen", "[identity]",
                   float, double) {
  using T = TestType;
  generator random(74);
  rows_case<T> x(1, tile_lanes<T>, random);
  std::fill(x.w.begin(), x.w.end(), T(1));
  x.v[0] = T(-0.0);
  x.x.end[0] = 0;
  std::vector<T> const ones(static_cast<std::size_t>(lanes<T>), T(1));
  std::vector<T> out(static_cast<std::size_t>(lanes<T> * x.dim_v), T(7));
  value_rows(x.x, 0, lanes<T>, x.dim_v, ones.data(), out.data(), x.dim_v);
  CHECK(std::count(out.begin(), out.begin() + x.dim_v, T(0)) == x.dim_v);
  for (index i = register_tile<T>::rows; i < lanes<T>;
       ++i)  // a piece that begins with a row without keys adds to zeros
    CHECK(std::memcmp(out.data() + i * x.dim_v, x.v.data(), static_cast<std::size_t>(x.dim_v) * sizeof(T)) == 0);
  for (index i = 1; i < lanes<T>; ++i)
    CHECK(std::equal(x.v.begin(), x.v.begin() + x.dim_v, out.begin() + i * x.dim_v));
}

}  // namespace heed::test
