#include "support/catch.hpp"

#include <heed/kernel/tile.hpp>

#include "attention/call.hpp"
#include "support/compare.hpp"

// Sizes: around vectors, blocks, primes; both drivers; long keys.

namespace heed::test {
namespace {

#if defined(HEED_SMALL_SWEEP)
constexpr bool small = true;
#else
constexpr bool small = false;
#endif

index const lengths_of_interest[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 96, 97, 127, 193, 257};
index const dims_of_interest[] = {1, 2, 3, 8, 16, 32, 40, 48, 59, 64, 80, 96, 111, 128, 192, 256};

template <class T>
void check(std::array<index, 7> const& extents, request const& r, char const* what) {
  example<T> in(extents, static_cast<std::uint64_t>(extents[3] * 1000 + extents[4]));
  check_call(in, r, what);
}

}  // namespace

TEST_CASE("A small sweep of sizes", "[reference]") {
  for (index n : {1, 16, 17, 65, 97})
    for (index dim : {1, 3, 16, 59, 128}) {
      check<float>({1, 2, 1, n, n, dim, dim}, request(causal{}), "causal square");
      check<double>({1, 2, 1, n, 97, dim, 17}, request(), "full");
    }
  for (index q_len : {1, 2, 3, 4, 5, 8, 9})
    for (index group : {1, 2, 4, 8}) {
      check<float>({1, 2 * group, 2, q_len, 200, 40, 24}, request(causal{}), "groups");
      check<double>({1, 2 * group, 2, q_len, 70, 40, 24}, request(causal{}), "groups");
    }
}

TEST_CASE("Every dim, as dim and as dim_v", "[reference][sweep]") {
  for (index dim : dims_of_interest)
    for (index q_len : {2, 19, 70}) {
      check<float>({1, 2, 1, q_len, 101, dim, 16}, request(causal{}), "dim");
      check<float>({1, 2, 1, q_len, 101, 16, dim}, request(window{30, 5}), "dim_v");
      check<double>({1, 2, 1, q_len, 101, dim, dim}, request(causal{}), "both");
    }
}

TEST_CASE("Every length against every length", "[reference][sweep]") {
  for (index q_len : lengths_of_interest)
    for (index kv_len : lengths_of_interest) {
      check<float>({1, 2, 1, q_len, kv_len, 8, 8}, request(causal{}), "causal");
      check<float>({1, 1, 1, q_len, kv_len, 8, 8}, request(causal{}, window{20, 0}, sink_tokens{2}, offset{1}), "Λ");
      if (!small)
        check<double>({1, 1, 1, q_len, kv_len, 8, 8}, request(), "full");
    }
}

TEST_CASE("Every length of keys that stand in one tile", "[reference][sweep]") {
  index const dim_v = tile_lanes<float>;
  for (index kv_len : {1, 2, 15, 16, 17, 63, 64, 65, 96, 127, 128, 129})
    for (index q_len : {9, 16, 33, 65, 128, 200}) {
      check<float>({1, 2, 1, q_len, kv_len, 8, dim_v}, request(causal{}), "causal");
      std::vector<index> const lens{kv_len / 2, kv_len};
      check<float>({2, 1, 1, q_len, kv_len, 8, 2 * dim_v}, request(lengths{lens}, offset{3}), "lengths");
      check<float>({1, 4, 2, q_len, kv_len, 8, dim_v - 1}, request(causal{}, offset{-3}, l2_softmax{}),
                   "rows without keys");
      check<float>({1, 1, 1, q_len, kv_len, 8, lanes<float> + 3}, request(window{unbounded, 2}, sink_tokens{5}),
                   "prefix");
      if (!small)
        check<double>({1, 1, 1, q_len, kv_len, 8, lanes<double>}, request(causal{}, squared_relu{visible{}}), "double");
    }
}

TEST_CASE("Every few-rows shape, with groups", "[reference][sweep]") {
  for (index q_len = 1; q_len <= 20; ++q_len)
    for (index group : {1, 2, 4, 8}) {
      check<float>({2, 2 * group, 2, q_len, 150, 33, 20}, request(causal{}), "causal");
      check<float>({1, group, 1, q_len, 150, 16, 16}, request(softcap{2}, alibi::standard(group), score{bend{}}),
                   "maps");
      check<double>({1, group, 1, q_len, 150, 16, 16}, request(causal{}, window{64, 0}), "window");
    }
}

TEST_CASE("Decode over keys that no cache holds", "[reference][sweep]") {
  static_assert(33000 * 2 * 128 * sizeof(float) > cached_bytes);
  check<float>({1, 1, 1, 1, 33000, 128, 128}, request(), "one row");
  if (!small)
    check<float>({1, 4, 1, 1, 33000, 128, 128}, request(), "four rows");
}

TEST_CASE("Decode over long keys, in pieces", "[reference][sweep]") {
  std::vector<index> const lens{9000, 4097};
  for (index kv_len : {2047, 2048, 4095, 4096, 4097, 9000, 40000}) {
    check<float>({1, 4, 2, 1, kv_len, 16, 8}, request(), "decode");
    check<float>({1, 2, 1, 3, kv_len, 8, 8}, request(causal{}), "three rows");
    check<float>({1, 2, 2, 1, kv_len, 8, 8}, request(window{3000, 0}, sink_tokens{4}, causal{}), "window");
    request r(causal{});
    r.entropy = true;
    check<float>({1, 2, 1, 2, kv_len, 8, 8}, r, "entropy");
    check<double>({1, 2, 1, 1, kv_len, 8, 8}, request(squared_relu{visible{}}), "squared_relu");
    check<double>({1, 2, 1, 1, kv_len, 8, 8}, request(l2_softmax{}), "l2_softmax");
    check<double>({1, 2, 1, 1, kv_len, 8, 8}, request(log_n{512}), "log_n");
  }
  check<float>({2, 2, 1, 1, 9000, 8, 8}, request(lengths{lens}), "pieces differ by batch");
}

}  // namespace heed::test
