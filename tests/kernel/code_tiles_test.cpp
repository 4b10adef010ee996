#include "support/catch.hpp"

#include <heed/attention/attention.hpp>
#include <heed/cache/kv_cache.hpp>
#include <heed/core/thread_pool.hpp>
#include <heed/position/rerope.hpp>
#include <heed/reference/attention.hpp>

#include "core/guard_pages.hpp"
#include "support/bytes.hpp"
#include "support/compare.hpp"

// Few rows over int8 keys and values on AMX tiles. Where the build or the machine has none, calls say so.

namespace heed::test {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

bool has_amx() { return has_tiles<float> && static_cast<bool>(enable_amx()); }
with_amx on_tiles() { return with_amx{enable_amx()}; }

/// As exact as float products, whose bound it must keep.
template <class Q, class K, class V, class... Ms>
void check(char const* products, Q const& q, K const& k, V const& v, Ms const&... ms) {
  tensor<float, 4> out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)});
  tensor<double, 4> expected(out.extents());
  attention(q, k, v, out, on_tiles(), ms...);
  reference::attention(q, k, v, expected, ms...);
  auto const result = accuracy_of(out, expected, v, reference::scores(q, k, ms...));
  INFO("heads " << q.extent(1) << ", q_len " << q.extent(2) << ", keys " << k.extent(2) << ", dim " << k.extent(3)
                << ", dim_v " << v.extent(3) << ": " << result.message());
  REQUIRE(result.within_bound());
  REQUIRE(explain(q, k, v, on_tiles(), ms...).products == products);
}

template <class... Ms>
void check_rows(index group, index q_len, index len, index dim, index dim_v, layout_of_rows how, Ms const&... ms) {
  generator random(91);
  INFO(random);
  bytes const k({1, 2, len, dim}, random, 0, how), v({1, 2, len, dim_v}, random, 0, how);
  auto const q = normal_tensor<float, 4>({1, 2 * group, q_len, dim}, random);
  check("AMX tiles, int8", q, k.view(), v.view(), ms...);
}

}  // namespace

TEST_CASE("Few rows over int8 on tiles are as exact as float products", "[reference]") {
  if (!has_amx())
    return;
  int turn = 0;
  index const dims[] = {64, 128, 192};
  for (index len : {32, 33, 47, 63, 64, 65, 97, 127, 128, 129, 500, 511, 512, 513, 543, 544, 1100})
    for (index rows : {2, 3, 4, 5, 7, 8}) {
      auto const how = turn % 2 == 0 ? layout_of_rows::row_major : layout_of_rows::gaps;
      check_rows(rows, 1, len, dims[turn % 3], dims[turn / 3 % 3], how);
      if (rows % 2 == 0)
        check_rows(rows / 2, 2, len, dims[turn / 3 % 3], dims[turn % 3], how, causal{});
      ++turn;
    }
  check_rows(4, 1, 4500, 64, 64, layout_of_rows::row_major);  // cut into pieces
  check_rows(2, 1, 600, 512, 320, layout_of_rows::row_major);
}

TEST_CASE("Every stage between products of codes acts on tiles", "[reference]") {
  if (!has_amx())
    return;
  constexpr auto how = layout_of_rows::row_major;
  generator random(92);
  auto const some = normal_tensor<float, 4>({1, 8, 2, 299}, random);
  tensor<bool, 2> seen({2, 299});
  for (index i = 0; i < seen.size(); ++i)
    seen.data()[i] = i % 5 != 0;
  int const lengths_of[] = {130};
  float const sinks[] = {0.5f, -1, 2, 0, 1, 3, -2, 0};
  check_rows(4, 2, 299, 64, 128, how, causal{}, window{40, 0}, sink_tokens{3});
  check_rows(4, 2, 299, 64, 128, how, lengths{lengths_of}, offset{0});
  check_rows(4, 2, 299, 64, 128, how, causal{}, log_n{64}, scale{0.2});
  check_rows(4, 2, 299, 64, 128, how, softcap{3}, alibi::standard(8), causal{});
  check_rows(4, 2, 299, 64, 128, how, bias{some});
  check_rows(4, 2, 299, 64, 128, how, mask{seen});
  check_rows(4, 2, 299, 64, 128, how, sink_logits{sinks});
  check_rows(4, 2, 299, 64, 128, how, l2_softmax{});
  check_rows(4, 2, 299, 64, 128, how, squared_relu{row_sum{}}, causal{});
}

TEST_CASE("Where tiles take one of the two products, the other is float's", "[reference][contract]") {
  generator random(93);
  bytes const wide({1, 1, 200, 64}, random), narrow({1, 1, 200, 40}, random), blocks({1, 1, 200, 64}, random, 32);
  auto const half = normal_tensor<Eigen::half, 4>({1, 1, 200, 64}, random);
  auto const q = normal_tensor<Eigen::bfloat16, 4>({1, 4, 1, 64}, random);
  auto const wide_q = normal_tensor<float, 4>({1, 4, 1, 64}, random);
  if (!has_tiles<float>)
    CHECK(explain(wide_q, wide.view(), wide.view(), on_tiles()).products ==
          "float; no AMX tiles: this build has no AMX");
  if (!has_amx())
    return;
  rotary const rope{frequencies::standard(64), layout::half};
  check("AMX tiles, int8 keys; values float: few rows are limited by memory", wide_q, wide.view(), half);
  check("AMX tiles, int8 values; keys float: few rows are limited by memory", wide_q, half, wide.view());
  check("AMX tiles, int8 keys; values float: channels are no multiple of 64", wide_q, wide.view(), narrow.view());
  check("AMX tiles, int8 values; keys float: not a scale a row, channels side by side", wide_q, blocks.view(),
        wide.view());
  check("AMX tiles, int8 values; keys float: keys are turned in float", wide_q, wide.view(), wide.view(), rope);
  check("AMX tiles, int8", wide_q, wide.view(), wide.view(), rerope{rope, 20}, offset{150});  // the far keys
  auto const products = [&](auto const& queries, bytes const& k, auto const&... ms) {
    return explain(queries, k.view(), k.view(), ms...).products;
  };
  CHECK(products(q, wide, on_tiles()) == "AMX tiles, int8");
  auto const plan = explain(wide_q, wide.view(), half, on_tiles());
  CHECK(plan.queries == "in place");
  CHECK(plan.keys == "int8 on tiles, a scale a row");
  CHECK(plan.values == "half widened in registers");
  auto const alone = view<float const, 4>(wide_q.data(), {1, 1, 1, 64}, wide_q.strides());
  CHECK(products(alone, wide, on_tiles()) == "float; no AMX tiles: few rows are limited by memory");
  CHECK(products(wide_q, bytes({1, 1, 31, 64}, random), on_tiles()) == "float; no AMX tiles: fewer than 32 keys");
  CHECK(products(wide_q, wide, with_amx{amx_permit{}}) == "float; no AMX tiles: the permit was not granted");
  CHECK(products(wide_q, wide) == "float");
}

TEST_CASE("A cache of int8 decodes on tiles", "[identities]") {
  if (!has_amx())
    return;
  generator random(94);
  rotary const rope{frequencies::standard(64), layout::half};
  auto const k = normal_tensor<float, 3>({2, 700, 64}, random), v = normal_tensor<float, 3>({2, 700, 64}, random);
  auto const q = normal_tensor<float, 3>({8, 1, 64}, random);
  auto const decodes = [&](auto const& code) {
    kv_cache<int8> cache(2, 64, 64, 700, code);
    cache.append(k, v);
    tensor<float, 3> plain(q.extents()), out(q.extents());
    attention(q, cache, plain, causal{});
    attention(q, cache, out, causal{}, on_tiles());
    CHECK(difference_of(out, plain).relative <= 1e-5);
    CHECK_FALSE(same_bits(out, plain));  // else no tile has been near it
  };
  decodes(rope);
  decodes(rerope{rope, 100});
}

TEST_CASE("On tiles a row that is not finite keeps to itself", "[edges]") {
  if (!has_amx())
    return;
  generator random(95);
  index const len = 200;
  bytes k({1, 1, len, 64}, random), v({1, 1, len, 64}, random);
  auto q = normal_tensor<float, 4>({1, 3, 2, 64}, random);
  tensor<float, 4> clean({1, 3, 2, 64}), out(clean.extents());
  auto const call = [&](tensor<float, 4>& to) { attention(q, k.view(), v.view(), to, causal{}, on_tiles()); };
  auto const others = [&](auto const& poisoned) {
    int differ = 0, finite = 0;
    for (index h = 0; h < 3; ++h)
      for (index i = 0; i < 2; ++i)
        for (index c = 0; c < 64; ++c) {
          float const was = clean(0, h, i, c), is = out(0, h, i, c);
          if (poisoned(h, i))
            finite += std::isfinite(is);
          else
            differ += std::bit_cast<std::uint32_t>(was) != std::bit_cast<std::uint32_t>(is);
        }
    CHECK(differ == 0);
    return finite;
  };
  call(clean);
  q(0, 1, 0, 7) = nan;
  call(out);
  CHECK(others([](index h, index i) { return h == 1 && i == 0; }) == 0);
  q(0, 1, 0, 7) = 1;
  call(clean);
  for (bytes* x : {&k, &v})
    for (float bad : {nan, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
      float const was = std::exchange(x->scales(0, 0, len - 1, 0), bad);  // of the key that the last query alone sees
      call(out);
      int const finite = others([](index, index i) { return i == 1; });
      CHECK((finite == 0 || (x == &k && std::isinf(bad))));  // a score of −inf weighs nothing
      x->scales(0, 0, len - 1, 0) = was;
    }
}

TEST_CASE("On tiles scales of any size, and none at all", "[edges][reference]") {
  if (!has_amx())
    return;
  generator random(96);
  auto const q = normal_tensor<float, 4>({1, 4, 1, 64}, random);
  for (float factor : {0.0f, 0x1p-110f, 1e-30f, 1e20f}) {
    bytes const k({1, 1, 150, 64}, random);
    bytes v({1, 1, 150, 64}, random);
    for (index i = 0; i < v.scales.size(); ++i)
      v.scales.data()[i] *= factor;
    check("AMX tiles, int8", q, k.view(), v.view());
  }
  bytes k({1, 1, 150, 64}, random), v({1, 1, 150, 64}, random);
  for (index j = 0; j < 150; j += 3)
    k.scales(0, 0, j, 0) = v.scales(0, 0, j, 0) = 0;
  check("AMX tiles, int8", q, k.view(), v.view());
}

TEST_CASE("Tiles read no code before the first key or behind the last", "[resources]") {
  generator random(98);
  auto const q = normal_tensor<float, 4>({1, 4, 1, 64}, random);
  for (index len : {32, 33, 50, 63, 64})
    for (bool front : {true, false}) {
      bytes const k({1, 1, len, 64}, random), v({1, 1, len, 64}, random);
      guard_pages const pages[2];
      auto const moved = [&](bytes const& x, guard_pages const& to) {
        int8* const at = front ? to.front<int8>() : to.back<int8>(len * 64);
        std::copy_n(x.codes.data(), len * 64, at);
        return quantized_view(view<int8 const, 4>(at, x.extents, x.strides), x.scales);
      };
      tensor<float, 4> out(q.extents()), expected(q.extents());
      attention(q, k.view(), v.view(), expected, on_tiles());
      attention(q, moved(k, pages[0]), moved(v, pages[1]), out, on_tiles());
      CHECK(same_bits(out, expected));
    }
}

TEST_CASE("On tiles few rows come out alike on every executor, within the workspace", "[resources]") {
  generator random(97);
  bytes const k({2, 3, 4500, 64}, random), v({2, 3, 4500, 64}, random);
  auto const q = normal_tensor<float, 4>({2, 12, 1, 64}, random);
  tensor<float, 4> alone(q.extents()), shared(q.extents()), plain(q.extents()), refused(q.extents());
  Eigen::ThreadPool threads(3);
  thread_pool pool(threads);
  attention(q, k.view(), v.view(), alone, on_tiles());
  workspace room(explain(q, k.view(), v.view(), on_tiles(), on{pool}).workspace_bytes);
  attention(q, k.view(), v.view(), shared, on_tiles(), on{pool}, with{room});
  CHECK(same_bits(alone, shared));
  attention(q, k.view(), v.view(), plain);
  attention(q, k.view(), v.view(), refused, with_amx{amx_permit{}});
  CHECK(same_bits(plain, refused));
}

}  // namespace heed::test
