#include "support/catch.hpp"

#include <heed/kernel/tile.hpp>
#include <heed/position/rotary.hpp>

#include "attention/call.hpp"
#include "support/compare.hpp"

#include <set>
#include <vector>

// Every pair of kinds of modifiers in one call or another (a covering array), and ten triples that meet in one stage.

namespace heed::test {
namespace {

struct shape {
  index q_len, kv_len, dim_v;
};

/// Queries in lanes, keys and values in blocks or all in one tile; and few rows.
shape const shapes[] = {{70, 131, 24}, {70, 117, tile_lanes<float>}, {2, 131, 24}};

/// What the modifiers of a call refer to: made once for a shape.
struct material {
  index q_len, kv_len;
  generator random{101};
  std::vector<index> lens{kv_len, 90}, starts{-3, 50};
  std::vector<double> per_head{0.3, 0.4, 0.25, 0.2}, sinks{0.5, -3, 4, 1};
  tensor<std::int32_t, 2> q_ids, k_ids;
  tensor<bool, 2> shown;
  tensor<float, 3> added;
  tensor<float, 2> table, factors;

  explicit material(shape const& of) : q_len(of.q_len), kv_len(of.kv_len), q_ids({2, q_len}), k_ids({2, kv_len}) {
    fill(q_ids.view(), [&] { return static_cast<double>(random.whole(0, 1)); });
    fill(k_ids.view(), [&] { return static_cast<double>(random.whole(0, 1)); });
    shown = mask_tensor<2>({q_len, kv_len}, random, 0.7);
    added = normal_tensor<float, 3>({4, q_len, kv_len}, random);
    table = normal_tensor<float, 2>({4, 20}, random);
    factors = normal_tensor<float, 2>({q_len, of.dim_v}, random);
    for (index j = 0; j < kv_len; j += 9)
      added(0, 0, j) = -std::numeric_limits<float>::infinity();
  }
};

/// The kinds of modifiers, and what may stand in each place of a call; 0 is always "nothing".
struct kind {
  char const* name;
  int choices;
  void (*add)(request&, material const&, int);
};

kind const kinds[] = {
    {"offset", 3, [](request& r, material const& m, int c) { c == 1 ? r.add(offset{7}) : r.add(offset{m.starts}); }},
    {"causal", 2, [](request& r, material const&, int) { r.add(causal{}); }},
    {"window", 3,
     [](request& r, material const&, int c) {
       c == 1 ? r.add(window{40, 9}) : r.add(window{30, 0}).add(sink_tokens{3});
     }},
    {"lengths", 2, [](request& r, material const& m, int) { r.add(lengths{m.lens}); }},
    {"segments", 2, [](request& r, material const& m, int) { r.add(segments{m.q_ids, m.k_ids}); }},
    {"mask", 2, [](request& r, material const& m, int) { r.add(mask{m.shown}); }},
    {"bias", 3,
     [](request& r, material const& m, int c) { c == 1 ? r.add(bias{m.added}) : r.add(relative_bias{m.table, -4}); }},
    {"alibi", 2, [](request& r, material const&, int) { r.add(alibi::standard(4)); }},
    {"scale", 2, [](request& r, material const&, int) { r.add(scale{-0.2}); }},
    {"row scale", 5,
     [](request& r, material const& m, int c) {
       c == 1   ? r.add(log_n{60})
       : c == 2 ? r.add(log_n_clamped{60, 16})
       : c == 3 ? r.add(log_n_beyond{40})
                : r.add(scalable{m.per_head});
     }},
    {"softcap", 2, [](request& r, material const&, int) { r.add(softcap{2}); }},
    {"score", 2, [](request& r, material const&, int) { r.add(score{bend{}}); }},
    {"position", 3,
     [](request& r, material const&, int c) {
       r.add(rotary{frequencies::standard(c == 1 ? 16 : 8), c == 1 ? layout::half : layout::interleaved});
     }},
    {"sink logits", 2, [](request& r, material const& m, int) { r.add(sink_logits{m.sinks}); }},
    {"gate", 2, [](request& r, material const& m, int) { r.add(gate{m.factors}); }},
    {"entropy", 2, [](request& r, material const&, int) { r.entropy = true; }},
};
constexpr std::size_t kind_count = std::size(kinds);
using row = std::array<int, kind_count>;

/// Greedy: each call takes, of many random ones, the one with the most pairs of choices not met yet.
std::vector<row> covering_array() {
  using pair = std::array<int, 4>;
  std::set<pair> open;
  for (std::size_t a = 0; a < kind_count; ++a)
    for (std::size_t b = a + 1; b < kind_count; ++b)
      for (int x = 0; x < kinds[a].choices; ++x)
        for (int y = 0; y < kinds[b].choices; ++y)
          open.insert({static_cast<int>(a), x, static_cast<int>(b), y});
  auto const pairs_of = [](row const& r, auto const& visit) {
    for (std::size_t a = 0; a < kind_count; ++a)
      for (std::size_t b = a + 1; b < kind_count; ++b)
        visit(pair{static_cast<int>(a), r[a], static_cast<int>(b), r[b]});
  };
  generator random(102);
  std::vector<row> calls;
  while (!open.empty()) {
    row best{};
    std::size_t most = 0;
    for (int attempt = 0; attempt < 200; ++attempt) {
      row r;
      for (std::size_t i = 0; i < kind_count; ++i)
        r[i] = static_cast<int>(random.whole(0, kinds[i].choices - 1));
      // One pair that is still missing is always taken.
      pair const& wanted = *open.begin();
      r[static_cast<std::size_t>(wanted[0])] = wanted[1];
      r[static_cast<std::size_t>(wanted[2])] = wanted[3];
      std::size_t met = 0;
      pairs_of(r, [&](pair const& p) { met += open.count(p); });
      if (met > most) {
        most = met;
        best = r;
      }
    }
    pairs_of(best, [&](pair const& p) { open.erase(p); });
    calls.push_back(best);
  }
  return calls;
}

void check_row(row const& choices, shape const& of) {
  material const m(of);
  request r;
  std::string name;
  for (std::size_t i = 0; i < kind_count; ++i)
    if (choices[i] > 0) {
      kinds[i].add(r, m, choices[i]);
      name += std::string(kinds[i].name) + " " + std::to_string(choices[i]) + ", ";
    }
  example<float> in({2, 4, 2, of.q_len, of.kv_len, 16, of.dim_v}, 103);
  check_call(in, r, name + "all together");
}

}  // namespace

TEST_CASE("Every pair of kinds of modifiers agrees with the reference", "[reference][contract]") {
  auto const calls = covering_array();
  INFO(calls.size() << " calls");
  CHECK(calls.size() <= 48);
  for (row const& each : calls)
    for (shape const& of : shapes)
      check_row(each, of);
}

TEST_CASE("Ten triples that meet in one stage agree with the reference", "[reference][contract]") {
  for (shape const& of : shapes) {
    material const m(of);
    example<float> in({2, 4, 2, of.q_len, of.kv_len, 16, of.dim_v}, 104);
    rotary const rope{frequencies::standard(16), layout::half};
    check_call(in, request(causal{}, window{20, 0}, sink_tokens{4}), "causal, window, sink_tokens");
    check_call(in, request(lengths{m.lens}, offset{0}, causal{}), "lengths, offset, causal");
    check_call(in, request(mask{m.shown}, segments{m.q_ids, m.k_ids}, log_n{60}), "mask, segments, log_n");
    check_call(in, request(bias{m.added}, relative_bias{m.table}, alibi::standard(4)), "three biases");
    check_call(in, request(softcap{2}, bias{m.added}, score{bend{}}), "softcap, bias, score");
    check_call(in, request(rope, causal{}, log_n_beyond{30}), "rotary, causal, log_n_beyond");
    check_call(in, request(rope, lengths{m.lens}, window{25, 0}), "rotary, lengths, window");
    check_call(in, request(sink_logits{m.sinks}, mask{m.shown}, gate{m.factors}), "sink_logits, mask, gate");
    check_call(in, request(scalable{m.per_head}, scale{0.5}, bias{m.added}), "scalable, scale, bias");
    request all(sink_logits{m.sinks}, softcap{2}, causal{});
    all.entropy = true;
    check_call(in, all, "entropy, sink_logits, softcap");
  }
}

}  // namespace heed::test
