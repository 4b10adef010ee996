#include "support/catch.hpp"

#include <heed/attention/attention.hpp>
#include <heed/cache/kv_cache.hpp>
#include <heed/cache/quantized.hpp>
#include <heed/core/thread_pool.hpp>
#include <heed/position/rerope.hpp>
#include <heed/position/rotary.hpp>
#include <heed/reference/attention.hpp>

#include "core/guard_pages.hpp"
#include "support/compare.hpp"
#include "support/random.hpp"

// bfloat16 products on AMX tiles. Where the build or the machine has none, what is left to test is that calls say so.

namespace heed::test {
namespace {

using brain = Eigen::bfloat16;

bool has_amx() { return has_tiles<float> && static_cast<bool>(enable_amx()); }

struct brains {
  tensor<brain, 4> q, k, v;

  /// extents: batch, heads_q, heads_kv, q_len, kv_len, dim, dim_v
  brains(std::array<index, 7> const& e, std::uint64_t seed) {
    generator random(seed);
    q = normal_tensor<brain, 4>({e[0], e[1], e[3], e[5]}, random);
    k = normal_tensor<brain, 4>({e[0], e[2], e[4], e[5]}, random);
    v = normal_tensor<brain, 4>({e[0], e[2], e[4], e[6]}, random);
  }
  index_array<4> result() const { return {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}; }
};

/// 70 queries, 133 keys and values whose channels lie far apart.
struct columns {
  tensor<brain, 4> q, k, v;

  explicit columns(std::uint64_t seed) {
    generator random(seed);
    q = normal_tensor<brain, 4>({1, 2, 64, 70}, random);
    k = normal_tensor<brain, 4>({1, 2, 64, 133}, random);
    v = normal_tensor<brain, 4>({1, 2, 33, 133}, random);
  }
  static view<brain const, 4> rows(tensor<brain, 4> const& x) {
    return {
        x.data(), {1, x.extent(1), x.extent(3), x.extent(2)}, {x.size(), x.extent(2) * x.extent(3), 1, x.extent(3)}};
  }
};

/// The heads of a batch of one.
view<brain const, 3> rows(tensor<brain, 4> const& t) { return {t.data(), {t.extent(1), t.extent(2), t.extent(3)}}; }

/// Weights are rounded to 8 bits, above and below the fraction line; the rest is float.
template <class Q, class K, class V, class... Ms>
void check_views(char const* name, Q const& q, K const& k, V const& v, Ms const&... ms) {
  with_amx const tiles{enable_amx()};
  tensor<float, 4> out({q.extent(0), q.extent(1), q.extent(2), v.extent(3)});
  tensor<double, 4> expected(out.extents());
  attention(q, k, v, out, tiles, ms...);
  reference::attention(q, k, v, expected, ms...);
  auto const error = difference_of(out, expected, largest(v));
  INFO(name << ": " << error.message());
  CHECK(explain(q, k, v, tiles, ms...).products == "AMX tiles, bfloat16");
  CHECK(error.relative <= 0x1p-8);
}

template <class... Ms>
void check(char const* name, brains const& x, Ms const&... ms) {
  check_views(name, x.q, x.k, x.v, ms...);
}

/// int8 keys and values, a scale a row.
struct coded {
  tensor<int8, 4> codes;
  tensor<float, 3> scales;

  explicit coded(tensor<brain, 4> const& x) : codes(x.extents()), scales({x.extent(0), x.extent(1), x.extent(2)}) {
    quantize(x, codes, scales);
  }
  auto view() const { return quantized_view(codes, scales); }
  tensor<brain, 4> rounded() const {
    tensor<brain, 4> to(codes.extents());
    for (index i = 0; i < to.size(); ++i)
      to.data()[i] = brain(static_cast<float>(codes.data()[i]) * scales.data()[i / codes.extent(3)]);
    return to;
  }
};

}  // namespace

TEST_CASE("On tiles errors are at most twice the naive composition's", "[reference]") {
  if (!has_amx())
    return;
  for (index q_len : {9, 64, 70})
    for (index kv_len : {1, 31, 97, 513})
      for (index dim : {1, 3, 32, 40, 59, 64, 128})
        for (bool triangle : {false, true}) {
          brains const x({1, 2, 1, q_len, kv_len, dim, dim}, 7);
          tensor<brain, 4> out(x.result());
          tensor<double, 4> expected(out.extents());
          window const all{unbounded, triangle ? 0 : unbounded};
          attention(x.q, x.k, x.v, out, all, with_amx{enable_amx()});
          reference::attention(x.q, x.k, x.v, expected, all);
          auto const scores = reference::scores(x.q, x.k, all);
          auto const naive = naive_composition<brain>(x.q.view(), x.k.view(), x.v.view(), scores);
          auto const result = accuracy_of(out, expected, x.v, scores, naive);
          INFO("q_len " << q_len << ", kv_len " << kv_len << ", dim " << dim << ", " << result.message());
          CHECK(result.within_naive());
        }
}

TEST_CASE("Every stage between the products acts on tiles", "[reference]") {
  if (!has_amx())
    return;
  brains const x({2, 4, 2, 83, 299, 64, 48}, 11);
  generator random(12);
  auto const some = normal_tensor<float, 4>({1, 4, 83, 299}, random);
  tensor<bool, 2> seen({83, 299});
  for (index i = 0; i < seen.size(); ++i)
    seen.data()[i] = i % 5 != 0;
  int const lengths_of[] = {299, 130};
  float const sinks[] = {0.5f, -1, 2, 0};
  check("causal", x, causal{});
  check("window and sinks", x, causal{}, window{40, 0}, sink_tokens{3});
  check("window both ways", x, window{20, 7});
  check("lengths", x, lengths{lengths_of}, offset{0});
  check("row scale", x, causal{}, log_n{64}, scale{0.2});
  check("softcap and ALiBi", x, softcap{3}, alibi::standard(4), causal{});
  check("bias", x, bias{some});
  check("mask", x, mask{seen});
  check("sink logits", x, sink_logits{sinks});
  check("l2", x, l2_softmax{});
  check("squared relu", x, squared_relu{row_sum{}}, causal{});
  check("grouped heads in one block", brains({1, 8, 2, 5, 70, 32, 32}, 13));
}

TEST_CASE("On tiles queries and keys are turned, too", "[reference]") {
  if (!has_amx())
    return;
  rotary const half{frequencies::standard(64), layout::half},
      interleaved{frequencies::standard(64), layout::interleaved};
  brains const x({2, 4, 2, 83, 299, 64, 48}, 71);
  generator random(72);
  check("half", x, half, causal{});
  check("interleaved", x, interleaved, causal{}, offset{100});
  check("a window", x, half, window{40, 3});
  auto const some = normal_tensor<float, 4>({1, 4, 83, 299}, random);
  int const lengths_of[] = {299, 130};
  check("lengths and a bias", x, half, lengths{lengths_of}, offset{0}, bias{some});
  check("softcap and row scale", x, half, softcap{5}, log_n{64});
  check("channels that stay", brains({1, 2, 1, 70, 130, 96, 32}, 72), half);
  check("channels that fill no step", brains({1, 2, 2, 33, 65, 72, 40}, 73), interleaved, causal{});
  check("few channels", brains({1, 1, 1, 20, 50, 2, 2}, 74), rotary{frequencies::standard(2), layout::half});
  check("an attention factor", x, rotary{frequencies(std::vector<double>{1, 0.2}, 1.4), layout::half}, causal{});
  check("many keys", brains({1, 1, 1, 70, 2500, 32, 32}, 75), rotary{frequencies::standard(32), layout::half},
        causal{});
  columns const c(76);
  check_views("columns", c.rows(c.q), c.rows(c.k), c.rows(c.v), causal{}, half);
}

TEST_CASE("On tiles turned rows are rows turned before, to the bit", "[identities]") {
  if (!has_amx())
    return;
  with_amx const tiles{enable_amx()};
  for (layout channels : {layout::half, layout::interleaved})
    for (auto const& [q_len, kv_len, dim] : {std::array<index, 3>{70, 300, 64}, {9, 513, 40}, {2100, 257, 96}}) {
      brains const x({1, 2, 1, q_len, kv_len, dim, 32}, 77);
      rotary const turn{frequencies::standard(dim - 8), channels};
      brains turned = x;
      turn.apply(turned.q, kv_len - q_len);
      turn.apply(turned.k, 0);
      tensor<float, 4> within(x.result()), before(x.result());
      attention(x.q, x.k, x.v, within, turn, causal{}, tiles);
      attention(turned.q, turned.k, x.v, before, causal{}, tiles);
      INFO("q_len " << q_len << ", kv_len " << kv_len << ", dim " << dim);
      CHECK(same_bits(within, before));
    }
}

TEST_CASE("On tiles a cache's keys are turned once, by the cache", "[identities]") {
  if (!has_amx())
    return;
  rotary const turn{frequencies::standard(64), layout::half};
  brains const x({1, 4, 2, 80, 80, 64, 64}, 78);
  kv_cache<brain> cache(2, 64, 64, 80, turn);
  cache.append(rows(x.k), rows(x.v));
  tensor<float, 4> out(x.result()), plain(x.result());
  with_amx const tiles{enable_amx()};
  view<float, 3> const result(out.data(), {4, 80, 64});
  attention(rows(x.q), cache, result, causal{}, tiles);
  attention(x.q, x.k, x.v, plain, turn, causal{}, tiles);
  CHECK(same_bits(out, plain));
}

/// The three rectified codes.
template <class Check>
void for_each_code(rotary const& turn, double window, Check const& check) {
  check("rerope", rerope{turn, window});
  check("leaky_rerope", leaky_rerope{turn, window, 5});
  check("self_extend", self_extend{turn, window, 4});
}

TEST_CASE("On tiles each distance of a rectified code has its product", "[reference]") {
  if (!has_amx())
    return;
  brains const x({2, 4, 2, 83, 299, 64, 48}, 91), narrow({1, 2, 2, 70, 130, 72, 40}, 92);
  coded const k(x.k), v(x.v);
  rotary const turn{frequencies::standard(64), layout::half},
      other{frequencies(std::vector<double>{1, 0.2, 0.03}, 1.2), layout::interleaved};
  generator random(93);
  auto const some = normal_tensor<float, 4>({1, 4, 83, 299}, random);
  for (double window : {1.0, 7.5, 40.0, 130.0})
    for_each_code(turn, window, [&](char const* name, auto const& code) {
      INFO("window " << window);
      check(name, x, code, causal{});
      check(name, x, code);  // both ways: far ahead, too
      check(name, x, code, heed::window{60, 9}, offset{100});
      check(name, x, code, heed::window{60, 9}, offset{20}, sink_tokens{270});
      check(name, x, code, causal{}, heed::window{90, 0}, sink_tokens{3}, log_n_beyond{64});
      check(name, x, code, bias{some}, softcap{6});
      check_views(name, x.q, k.view(), v.view(), code, causal{});
    });
  for_each_code(other, 33, [&](char const* name, auto const& code) { check(name, narrow, code, causal{}); });
  columns const c(94);
  for_each_code(turn, 20, [&](char const* name, auto const& code) {
    check_views(name, c.rows(c.q), c.rows(c.k), c.rows(c.v), code);
  });
}

TEST_CASE("On tiles rectified rows where one product is all are rows of that product, to the bit", "[identities]") {
  if (!has_amx())
    return;
  with_amx const tiles{enable_amx()};
  brains const x({1, 4, 2, 70, 300, 64, 48}, 95);
  rotary const turn{frequencies::standard(64), layout::half};
  tensor<float, 4> out(x.result()), expected(x.result());
  for_each_code(turn, 400, [&](char const* name, auto const& code) {
    attention(x.q, x.k, x.v, out, code, causal{}, tiles);
    attention(x.q, x.k, x.v, expected, turn, causal{}, tiles);
    INFO(name);
    CHECK(same_bits(out, expected));
  });
  attention(x.q, x.k, x.v, out, rerope{turn, 50}, offset{350}, tiles);
  brains turned = x;
  turn.apply(turned.q, std::vector<double>(70, 50));
  attention(turned.q, x.k, x.v, expected, tiles);
  CHECK(same_bits(out, expected));
}

TEST_CASE("On tiles a rectified row does not depend on the rows beside it", "[identities]") {
  if (!has_amx())
    return;
  with_amx const tiles{enable_amx()};
  brains const x({1, 2, 1, 300, 500, 64, 32}, 96);
  rotary const turn{frequencies::standard(64), layout::half};
  for_each_code(turn, 77, [&](char const* name, auto const& code) {
    tensor<float, 4> all(x.result()), part({1, 2, 41, 32});
    attention(x.q, x.k, x.v, all, code, causal{}, tiles);
    view<brain const, 4> const some(&x.q(0, 0, 100, 0), {1, 2, 41, 64}, x.q.strides());
    attention(some, x.k, x.v, part, code, causal{}, offset{300}, tiles);
    INFO(name);
    for (index h = 0; h < 2; ++h)
      CHECK(std::equal(&part(0, h, 0, 0), &part(0, h, 0, 0) + 41 * 32, &all(0, h, 100, 0)));
  });
}

TEST_CASE("On tiles a rectified cache's near keys are turned once, by the cache", "[identities]") {
  if (!has_amx())
    return;
  with_amx const tiles{enable_amx()};
  brains const x({1, 4, 2, 40, 200, 64, 64}, 97);
  rotary const turn{frequencies::standard(64), layout::half};
  tensor<float, 4> out(x.result()), plain(x.result());
  for (index window : {90, 30}) {  // the ring keeps so many keys, and 40 rows ask for 40 more
    rerope const code{turn, static_cast<double>(window)};
    kv_cache<brain> cache(2, 64, 64, 200, code);
    cache.append(rows(x.k), rows(x.v));
    attention(rows(x.q), cache, view<float, 3>(out.data(), {4, 40, 64}), causal{}, tiles);
    attention(x.q, x.k, x.v, plain, code, causal{}, tiles);
    INFO("window " << window);
    CHECK(same_bits(out, plain));
  }
}

TEST_CASE("On tiles int8 keys and values are rounded to bfloat16 beside bfloat16 queries", "[reference][identities]") {
  if (!has_amx())
    return;
  with_amx const tiles{enable_amx()};
  rotary const turn{frequencies::standard(32), layout::half};
  for (auto const& [q_len, kv_len, dim, dim_v] :
       {std::array<index, 4>{70, 300, 64, 48}, {9, 513, 40, 33}, {83, 31, 32, 128}, {64, 256, 128, 64}}) {
    brains const x({2, 4, 2, q_len, kv_len, dim, dim_v}, 81);
    coded const k(x.k), v(x.v);
    tensor<brain, 4> const k_rounded = k.rounded(), v_rounded = v.rounded();
    tensor<float, 4> out(x.result()), rounded(x.result());
    auto const check_bits = [&](char const* name, auto const& keys, auto const& values, auto const&... ms) {
      attention(x.q, keys, values, out, tiles, causal{}, ms...);
      attention(x.q, k_rounded, v_rounded, rounded, tiles, causal{}, ms...);
      INFO(name);
      CHECK(same_bits(out, rounded));
    };
    INFO("q_len " << q_len << ", kv_len " << kv_len << ", dim " << dim);
    check_bits("both", k.view(), v.view());
    check_bits("keys", k.view(), v_rounded, softcap{4});
    check_bits("values", k_rounded, v.view(), window{50, 0});
    check_views("int8", x.q, k.view(), v.view());
    check_views("int8, turned", x.q, k.view(), v.view(), causal{}, turn);
  }
}

TEST_CASE("On tiles, too, a hidden scale reaches no row", "[edges]") {
  if (!has_amx())
    return;
  brains const x({1, 1, 1, 80, 96, 64, 32}, 82);
  coded k(x.k), v(x.v);
  tensor<float, 4> clean(x.result()), out(x.result());
  attention(x.q, k.view(), v.view(), clean, causal{}, with_amx{enable_amx()});
  index const poisoned = 50;  // seen by rows from 50 − 16 on
  v.scales(0, 0, poisoned) = k.scales(0, 0, poisoned + 9) = std::numeric_limits<float>::quiet_NaN();
  attention(x.q, k.view(), v.view(), out, causal{}, with_amx{enable_amx()});
  for (index i = 0; i < 80; ++i)
    for (index c = 0; c < 32; ++c) {
      INFO("row " << i << ", channel " << c);
      CHECK((i < poisoned - 16 ? out(0, 0, i, c) == clean(0, 0, i, c) : std::isnan(out(0, 0, i, c))));
    }
}

TEST_CASE("On tiles heads that walk over their keys together keep the bits they have alone", "[identities]") {
  if (!has_amx())
    return;
  with_amx const tiles{enable_amx()};
  for (index q_len : {64, 100, 300}) {
    brains const x({4, 8, 2, q_len, 500, 64, 64}, 83);
    tensor<float, 4> out(x.result()), alone(x.result());
    attention(x.q, x.k, x.v, out, causal{}, tiles);
    auto const head = [](tensor<brain, 4> const& t, index b, index h) {
      return view<brain const, 2>(&t(b, h, 0, 0), {t.extent(2), t.extent(3)});
    };
    for (index b = 0; b < 4; ++b)
      for (index h = 0; h < 8; ++h)
        attention(head(x.q, b, h), head(x.k, b, h / 4), head(x.v, b, h / 4),
                  view<float, 2>(&alone(b, h, 0, 0), {q_len, 64}), causal{}, tiles);
    INFO("q_len " << q_len);
    CHECK(same_bits(out, alone));
    CHECK(explain(x.q, x.k, x.v, causal{}, tiles).tasks == (q_len == 300 ? 32 : 8));
  }
}

TEST_CASE("On tiles a maximum that moves late changes nothing but the sums' unit", "[reference]") {
  if (!has_amx())
    return;
  brains x({1, 2, 1, 70, 600, 64, 48}, 23);
  for (index j = 0; j < 600; ++j)
    for (index c = 0; c < 64; ++c)  // scores up to ±5 at first, ±60 in the end, and a leap that every row takes
      x.k(0, 0, j, c) =
          brain(static_cast<float>(x.k(0, 0, j, c)) * (1 + static_cast<float>(j) / 50) * (j == 333 ? 6 : 1));
  check("growing scores", x);
  check("growing scores, causal", x, causal{});
  check("growing scores, l2", x, l2_softmax{});
  check("natural units", x, softcap{40}, causal{});
  check("negative scale", x, scale{-0.3}, causal{});
  check("no scale", x, scale{0.0});
  tensor<float, 4> out(x.result());
  tensor<float, 3> lse_of[2] = {tensor<float, 3>({1, 2, 70}), tensor<float, 3>({1, 2, 70})};
  tensor<float, 3> entropy_of[2] = {tensor<float, 3>({1, 2, 70}), tensor<float, 3>({1, 2, 70})};
  attention(x.q, x.k, x.v, out, lse{lse_of[0]}, entropy{entropy_of[0]}, causal{});
  attention(x.q, x.k, x.v, out, lse{lse_of[1]}, entropy{entropy_of[1]}, causal{}, with_amx{enable_amx()});
  for (index i = 0; i < lse_of[0].size(); ++i) {
    CHECK(std::fabs(lse_of[1].data()[i] - lse_of[0].data()[i]) <= 0x1p-8f);
    CHECK(std::fabs(entropy_of[1].data()[i] - entropy_of[0].data()[i]) <= 0x1p-5f);
  }
}

TEST_CASE("On tiles the row sum takes weights in as the product does: equal values come back", "[identities]") {
  if (!has_amx())
    return;
  brains x({1, 2, 1, 70, 300, 64, 32}, 17);
  std::fill_n(x.v.data(), x.v.size(), brain(1.5f));
  tensor<float, 4> out(x.result());
  attention(x.q, x.k, x.v, out, causal{}, with_amx{enable_amx()});
  for (index i = 0; i < out.size(); ++i)
    CHECK(std::fabs(out.data()[i] - 1.5f) <= 1e-6f);
}

TEST_CASE("Tiles take any strides", "[contract]") {
  if (!has_amx())
    return;
  columns const c(21);
  check_views("columns", c.rows(c.q), c.rows(c.k), c.rows(c.v), causal{});
}

TEST_CASE("Tiles read no row before the first key or behind the last", "[resources]") {
  if (!has_amx())
    return;
  with_amx const tiles{enable_amx()};
  for (index kv_len : {15, 16, 17, 33, 63})
    for (bool front : {true, false}) {
      brains const x({1, 1, 1, 20, kv_len, 32, 32}, 22);
      guard_pages const pages[2];
      auto const moved = [&](tensor<brain, 4> const& rows, guard_pages const& to) {
        brain* const at = front ? to.front<brain>() : to.back<brain>(rows.size());
        std::copy_n(rows.data(), rows.size(), at);
        return view<brain const, 4>(at, rows.extents(), rows.strides());
      };
      tensor<float, 4> out(x.result()), expected(x.result());
      attention(x.q, x.k, x.v, expected, tiles);
      attention(x.q, moved(x.k, pages[0]), moved(x.v, pages[1]), out, tiles);
      CHECK(same_bits(out, expected));
    }
}

TEST_CASE("On tiles, too, nothing hidden reaches a row", "[edges]") {
  if (!has_amx())
    return;
  rotary const turn{frequencies::standard(64), layout::half};
  tensor<float, 2> const zeros({80, 160});
  // Of 96 keys all rows share none of a step of 32; of 160 the first 64.
  auto const check_rows = [](index kv_len, index poisoned, bool keys_too, auto const&... ms) {
    brains x({1, 1, 1, 80, kv_len, 64, 32}, 31);
    tensor<float, 4> clean(x.result()), out(x.result());
    auto const call = [&](tensor<float, 4>& to) {
      attention(x.q, x.k, x.v, to, causal{}, with_amx{enable_amx()}, ms...);
    };
    call(clean);
    for (index c = 0; c < 32; ++c)
      x.v(0, 0, poisoned, c) = std::numeric_limits<brain>::quiet_NaN();
    for (index c = 0; keys_too && c < 64; ++c)
      x.k(0, 0, poisoned, c) = std::numeric_limits<brain>::infinity();
    call(out);
    for (index i = 0; i < 80; ++i)
      for (index c = 0; c < 32; ++c) {
        INFO("row " << i << ", channel " << c << ", key " << poisoned << " of " << kv_len);
        if (i + kv_len - 80 < poisoned)
          CHECK(out(0, 0, i, c) == clean(0, 0, i, c));
        else
          CHECK(std::isnan(out(0, 0, i, c)));
      }
  };
  for (bool keys_too : {true, false}) {
    for (auto const& [kv_len, poisoned] : {std::pair<index, index>{96, 50}, {160, 10}, {160, 70}, {160, 130}}) {
      check_rows(kv_len, poisoned, keys_too);
      check_rows(kv_len, poisoned, keys_too, turn);
      check_rows(kv_len, poisoned, keys_too, rerope{turn, 20});
      check_rows(kv_len, poisoned, keys_too, alibi::standard(1));
    }
    check_rows(160, 10, keys_too, bias{zeros});
    check_rows(160, 130, keys_too, bias{zeros}, softcap{30});
  }
}

TEST_CASE("On tiles sums of large values are finite while the maximum lags", "[edges][reference]") {
  if (!has_amx())
    return;
  for (index from : {0, 300}) {  // values from this key on are large
    brains x({1, 1, 1, 70, 600, 32, 32}, 43);
    for (index j = 0; j < 600; ++j)
      for (index c = 0; c < 32; ++c) {
        x.k(0, 0, j, c) =
            brain(static_cast<float>(x.k(0, 0, j, c)) * (j < 32 ? 0.1f : 3.0f));  // so that weights outgrow 2^8
        if (j >= from)
          x.v(0, 0, j, c) = brain(std::ldexp(static_cast<float>(x.v(0, 0, j, c)), 108));
      }
    check("large values", x);
    check("large values, causal", x, causal{});
    check("large values, ALiBi", x, alibi::standard(1));
  }
}

TEST_CASE("On tiles a NaN of one query stays in its row", "[edges]") {
  if (!has_amx())
    return;
  brains x({1, 1, 1, 80, 300, 64, 32}, 37);
  tensor<float, 4> clean(x.result()), out(x.result());
  attention(x.q, x.k, x.v, clean, with_amx{enable_amx()});
  x.q(0, 0, 20, 5) = std::numeric_limits<brain>::quiet_NaN();
  attention(x.q, x.k, x.v, out, with_amx{enable_amx()});
  for (index i = 0; i < 80; ++i)
    for (index c = 0; c < 32; ++c) {
      INFO("row " << i << ", channel " << c);
      CHECK((i == 20 ? std::isnan(out(0, 0, i, c)) : out(0, 0, i, c) == clean(0, 0, i, c)));
    }
}

TEST_CASE("explain tells the products, and why not tiles", "[contract]") {
  brains const x({1, 1, 1, 20, 30, 16, 16}, 41);
  generator random(42);
  auto const wide = normal_tensor<float, 4>({1, 1, 20, 16}, random);
  with_amx const asked{enable_amx()}, refused{amx_permit{}};
  auto const products = [&](auto const& q, auto const&... ms) { return explain(q, x.k, x.v, ms...).products; };
  auto const few = view<brain const, 4>(x.q.data(), {1, 1, 2, 16}, x.q.strides());
  CHECK(products(x.q) == "float");
  if (!has_tiles<float>) {
    CHECK(products(x.q, asked) == "float; no AMX tiles: this build has no AMX");
    return;
  }
  CHECK(products(x.q, refused) == "float; no AMX tiles: the permit was not granted");
  if (!has_amx())
    return;
  CHECK(products(x.q, asked) == "AMX tiles, bfloat16");
  CHECK(explain(x.q, x.k, x.v, asked).keys == "bfloat16 on tiles");
  CHECK(products(wide, asked) == "float; no AMX tiles: q must be bfloat16, k and v bfloat16 or int8");
  CHECK(products(few, asked) == "float; no AMX tiles: few rows are limited by memory");
  rotary const turned{frequencies::standard(16), layout::half};
  CHECK(products(x.q, asked, turned) == "AMX tiles, bfloat16");
  CHECK(explain(x.q, x.k, x.v, asked, turned).keys ==
        "bfloat16 widened, rotated, a block at a time, rounded to bfloat16 on tiles");
  coded const codes(x.v);
  CHECK(explain(x.q, x.k, codes.view(), asked).products == "AMX tiles, bfloat16");
  CHECK(explain(x.q, x.k, codes.view(), asked).values ==
        "int8 widened, a scale a row, a block at a time, rounded to bfloat16 on tiles");
  CHECK(products(x.q, asked, rerope{turned, 8}) == "AMX tiles, bfloat16");
}

TEST_CASE("Without a permit a call keeps its bits", "[contract]") {
  brains const x({1, 2, 1, 70, 90, 40, 40}, 51);
  tensor<brain, 4> plain(x.result()), refused(x.result());
  attention(x.q, x.k, x.v, plain, causal{});
  attention(x.q, x.k, x.v, refused, causal{}, with_amx{amx_permit{}});
  CHECK(same_bits(plain, refused));
}

TEST_CASE("On tiles every executor gives the same bits, within the workspace", "[resources]") {
  with_amx const tiles{enable_amx()};
  Eigen::ThreadPool threads(3);
  thread_pool pool(threads);
  for (index q_len : {600, 70})
    for (index seen : {unbounded, index{40}}) {
      brains const x({2, 4, 2, q_len, 300, 64, 64}, 61);
      tensor<brain, 4> alone(x.result()), shared(x.result());
      window const some{seen, 0};
      attention(x.q, x.k, x.v, alone, some, tiles);
      auto const plan = explain(x.q, x.k, x.v, some, tiles, on{pool});
      workspace room(plan.workspace_bytes);
      attention(x.q, x.k, x.v, shared, some, tiles, on{pool}, with{room});
      INFO("q_len " << q_len << ", window " << seen);
      CHECK(same_bits(alone, shared));
      CHECK(plan.scratch_bytes <= std::size_t{1} << 20);
    }
}

}  // namespace heed::test
