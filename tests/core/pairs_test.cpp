#include <heed/core/pairs.hpp>

#include "core/guard_pages.hpp"
#include "support/catch.hpp"

#include <cmath>
#include <cstring>

namespace heed::test {
namespace {

template <int V>
void fill_with_bits(Eigen::bfloat16* p, unsigned first) {
  for (unsigned i = 0; i < V * lanes<float>; ++i)
    p[i] = Eigen::numext::bit_cast<Eigen::bfloat16>(static_cast<std::uint16_t>(first + i));
}

TEST_CASE("load_vectors widens every bfloat16 exactly, in order or in pairs, and reads nothing beyond", "[contract]") {
  guard_pages const pages;
  constexpr int V = 4, w = lanes<float>;
  auto* const p = pages.back<Eigen::bfloat16>(V * w);
  int wrong = 0;
  for (unsigned bits = 0; bits < 0x10000U; bits += V * w) {
    fill_with_bits<V>(p, bits);
    batch<float> x[V];
    load_vectors<V>(p, x);
    float wide[V * w];
    for (int u = 0; u < V; ++u)
      store(wide + u * w, x[u]);
    for (int i = 0; i < V * w; ++i) {
      int const from = in_pairs<Eigen::bfloat16, V> ? i / (2 * w) * 2 * w + i % w * 2 + i / w % 2 : i;
      auto const expected = static_cast<float>(p[from]);
      wrong += std::isnan(expected) ? !std::isnan(wide[i]) : std::memcmp(&wide[i], &expected, sizeof expected) != 0;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("Other storage comes in order", "[contract]") {
  constexpr int V = 2, w = lanes<float>;
  Eigen::half p[V * w];
  for (int i = 0; i < V * w; ++i)
    p[i] = static_cast<Eigen::half>(static_cast<float>(i));
  batch<float> x[V];
  load_vectors<V>(p, x);
  for (int u = 0; u < V; ++u) {
    float wide[w];
    store(wide, x[u]);
    for (int i = 0; i < w; ++i)
      REQUIRE(wide[i] == static_cast<float>(u * w + i));
  }
}

#if defined(__AVX512F__)
TEST_CASE("split_pair orders numbers as load_pair does, and join_pair undoes it", "[contract]") {
  constexpr int w = lanes<float>;
  float in_order[2 * w], split[2 * w], joined[2 * w];
  for (int i = 0; i < 2 * w; ++i)
    in_order[i] = static_cast<float>(i);
  split_pair(in_order, split);
  for (int i = 0; i < w; ++i) {
    REQUIRE(split[i] == static_cast<float>(2 * i));
    REQUIRE(split[w + i] == static_cast<float>(2 * i + 1));
  }
  batch<float> even = load(split), odd = load(split + w);
  join_pair(even, odd);
  store(joined, even);
  store(joined + w, odd);
  CHECK(std::memcmp(joined, in_order, sizeof joined) == 0);
}
#endif

}  // namespace
}  // namespace heed::test
