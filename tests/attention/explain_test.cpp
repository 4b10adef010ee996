#include "support/catch.hpp"

#include <heed/attention/attention.hpp>
#include <heed/core/thread_pool.hpp>
#include <heed/position/rerope.hpp>
#include <heed/position/rotary.hpp>

#include "attention/call.hpp"
#include "support/compare.hpp"
#include "support/counting_allocator.hpp"

#include <cstring>
#include <sstream>
#include <tuple>

// explain, workspace_bytes, and what a call asks of the heap.

namespace heed::test {

TEST_CASE("explain tells the path, the tiles and the splits", "[resources][contract]") {
  example<float> lanes({2, 4, 2, 300, 300, 64, 32}, 81);
  plan const p = explain(lanes.q, lanes.k, lanes.v, causal{});
  CHECK(p.path == path::queries_in_lanes);
  CHECK(p.instruction_set == HEED_ISA_NAME);
  CHECK(p.query_block == block_lanes<float>);
  CHECK(p.key_block == key_block);
  CHECK(p.tile_rows == register_tile<float>::rows);
  CHECK(p.tile_vectors == register_tile<float>::vectors);
  CHECK(p.splits == 1);
  CHECK(p.tasks >= 4);
  CHECK(p.offset == 0);
  CHECK(p.queries == "in place");
  CHECK(p.keys == "in place");
  CHECK(p.values == "in place");

  CHECK(!p.one_tile);

  example<float> brief({1, 2, 2, 40, 100, 64, tile_lanes<float>}, 82);
  CHECK(explain(brief.q, brief.k, brief.v, causal{}).one_tile);
  CHECK(explain(brief.q, brief.k, brief.v).key_block == keys_in_one_tile);
  CHECK(!explain(brief.q, brief.k, brief.v, window{9, 0}).one_tile);
  example<float> narrow({1, 2, 2, 40, 100, 64, heed::lanes<float> - 1}, 83);
  CHECK(!explain(narrow.q, narrow.k, narrow.v, causal{}).one_tile);
  CHECK(!explain(brief.q, brief.k, brief.v, window{unbounded, 0}, sink_tokens{2}).one_tile);

  example<float> few({1, 8, 2, 1, 9000, 64, 32}, 82);
  plan const d = explain(few.q, few.k, few.v, causal{});
  CHECK(d.path == path::few_rows);
  CHECK(d.query_block == 4);
  CHECK(d.key_block == few_keys);
  CHECK(explain(few.q, few.k, few.v, rotary{frequencies::standard(64), layout::half}).key_block == few_converted_keys);
  CHECK(d.splits > 1);
  CHECK(d.splits <= 16);
  CHECK(d.offset == 8999);
  CHECK(explain(few.q, few.k, few.v, causal{}, window{100, 0}).splits == 1);
  CHECK(explain(few.q, few.k, few.v, offset{-3}).offset == -3);
  std::vector<index> const lens{50};
  CHECK(explain(few.q, few.k, few.v, lengths{lens}).offset == 49);

  example<float> nothing({1, 2, 1, 0, 5, 4, 4}, 83);
  CHECK(explain(nothing.q, nothing.k, nothing.v).path == path::nothing);
  CHECK(workspace_bytes(nothing.q, nothing.k, nothing.v) == 0);
}

TEST_CASE("explain tells what is converted", "[resources][contract]") {
  generator random(84);
  auto const q = normal_tensor<Eigen::half, 4>({1, 2, 40, 16}, random);
  auto const k = normal_tensor<float, 4>({1, 1, 16, 50}, random);
  auto const v = normal_tensor<Eigen::bfloat16, 4>({1, 1, 50, 8}, random);
  view<float const, 4> const columns(k.data(), {1, 1, 50, 16}, {800, 800, 1, 50});
  plan const p = explain(q, columns, v);
  CHECK(p.queries == "half widened, a block at a time");
  CHECK(p.keys == "channel stride 50 gathered, a block at a time");
  CHECK(p.values == "bfloat16 widened, a block at a time");
  rotary const rope{frequencies::standard(16), layout::half};
  CHECK_THAT(explain(q, columns, v, rope).keys, ContainsSubstring("rotated"));
  std::ostringstream text;
  text << p;
  CHECK_THAT(text.str(), ContainsSubstring("path: queries in lanes (") && ContainsSubstring("q: half widened") &&
                             ContainsSubstring("bytes a worker") && ContainsSubstring("offset: 10"));
}

TEST_CASE("A worker's scratch stays within 1 MiB", "[resources][contract]") {
  float const one = 1;
  // Zero strides: lengths as long as one likes without memory.
  auto const input = [&](index_array<4> const& e) { return view<float const, 4>(&one, e, {0, 0, 0, 0}); };
  rotary const rope{frequencies::standard(64), layout::half};
  for (index dim : {1, 64, 128, 256})
    for (index q_len : {index{1}, index{9}, index{5000}, index{1} << 40})
      for (index kv_len : {index{1}, index{5000}, index{1} << 30}) {
        auto const q = input({1, 4, q_len, dim}), k = input({1, 2, kv_len, dim}), v = input({1, 2, kv_len, dim});
        CHECK(explain(q, k, v, causal{}).scratch_bytes <= 1 << 20);
        CHECK(explain(q, k, v, causal{}).splits <= 16);
        if (dim >= 64)
          CHECK(explain(q, k, v, rope).scratch_bytes <= 1 << 20);
      }
}

TEST_CASE("With a workspace of workspace_bytes a call touches no heap", "[resources][contract]") {
  std::vector<index> const lens{290, 123};
  tensor<bool, 2> const shown({300, 300});
  tensor<float, 2> const added({300, 300});
  tensor<Eigen::half, 2> const u({1, 8});
  for (auto const& e :
       {std::array<index, 7>{2, 4, 2, 300, 300, 64, 8}, {2, 4, 2, 1, 9000, 64, 8}, {2, 4, 2, 12, 300, 64, 8}}) {
    example<float> in(e, 85);
    tensor<float, 3> l({2, 4, e[3]}), h({2, 4, e[3]});
    Eigen::ThreadPool threads(2);
    thread_pool const pool{threads};
    rotary const rope{frequencies::standard(64), layout::half};
    auto const check = [&](auto const&... ms) {
      auto const run = [&](auto const& place) {
        workspace scratch(workspace_bytes(in.q, in.k, in.v, on{place}, ms...));
        attention(in.q, in.k, in.v, in.out, on{place}, with{scratch}, ms...);  // a pool's queues may grow once
        allocation_count const heap;
        attention(in.q, in.k, in.v, in.out, on{place}, with{scratch}, ms...);
        CHECK(heap.count() == 0);
      };
      inline_executor const here;
      run(here);
      run(pool);
    };
    check();
    check(causal{}, window{100, 0}, rope, lse{l}, gate{u});
    if (e[3] == 300)
      check(mask{shown}, bias{added}, log_n{512}, lengths{lens}, entropy{h});
  }
}

TEST_CASE("Without a workspace a call allocates at most once, and not for little scratch", "[resources][contract]") {
  for (auto const& e :
       {std::array<index, 7>{2, 4, 2, 300, 300, 64, 8}, {2, 4, 2, 1, 9000, 64, 8}, {1, 1, 1, 1, 50, 8, 8}}) {
    example<float> in(e, 86);
    std::size_t const bytes = workspace_bytes(in.q, in.k, in.v, causal{});
    allocation_count const heap;
    attention(in.q, in.k, in.v, in.out, causal{});
    CHECK(heap.count() == (bytes > HEED_STACK_SCRATCH_BYTES ? 1 : 0));
  }
  example<float> in({1, 1, 1, 1, 50, 8, 8}, 86);
  CHECK(workspace_bytes(in.q, in.k, in.v, causal{}) <= HEED_STACK_SCRATCH_BYTES);
}

TEST_CASE("The workspace counts the executor's workers, and changes no bit", "[resources][identities]") {
  example<float> in({2, 4, 2, 300, 300, 64, 8}, 87);
  Eigen::ThreadPool threads(3);
  thread_pool const pool{threads};
  std::size_t const alone = workspace_bytes(in.q, in.k, in.v, causal{});
  CHECK(workspace_bytes(in.q, in.k, in.v, causal{}, on{pool}) == 4 * alone);
  auto const expected = in.attend(causal{});
  workspace scratch(4 * alone);
  attention(in.q, in.k, in.v, in.out, causal{}, on{pool}, with{scratch});
  CHECK(same_bits(in.out, expected));
  // Borrowed memory of any alignment will do.
  std::vector<char> bytes(4 * alone + 127);
  workspace borrowed_scratch(bytes.data() + 1, bytes.size() - 1);
  fill(in.out.view(), [] { return 9.0; });
  attention(in.q, in.k, in.v, in.out, causal{}, on{pool}, with{borrowed_scratch});
  CHECK(same_bits(in.out, expected));
}

TEST_CASE("What a workspace held before reaches no result", "[resources][edges]") {
  std::vector<index> const lens{0, 150};
  std::vector<float> const sinks{1, 2, 3, 4};
  rotary const rope{frequencies::standard(8), layout::half};
  for (index q_len : {1, 12, 70, 130})
    for (index kv_len : {300, 2200}) {  // the second are too many for one sum
      example<float> in({2, 4, 2, q_len, kv_len, 8, 24}, 88);
      tensor<float, 3> l({2, 4, q_len}), h({2, 4, q_len});
      tensor<bool, 2> shown({q_len, kv_len});
      for (index i = 0; i < q_len; ++i)
        for (index j = 0; j < kv_len; ++j)
          shown(i, j) = i % 5 != 0 && (i * j) % 7 < 3;
      auto const check = [&](auto const&... ms) {
        auto const results = [&](int byte) {
          workspace scratch(workspace_bytes(in.q, in.k, in.v, ms...));
          std::memset(scratch.data(), byte, scratch.size());
          fill(in.out.view(), [] { return 7.0; });
          attention(in.q, in.k, in.v, in.out, with{scratch}, ms...);
          return std::tuple(in.out, l, h);
        };
        auto const clean = results(0), dirty = results(0xff);  // all ones are NaN
        return same_bits(std::get<0>(clean), std::get<0>(dirty)) && same_bits(std::get<1>(clean), std::get<1>(dirty)) &&
               same_bits(std::get<2>(clean), std::get<2>(dirty));
      };
      CAPTURE(q_len, kv_len);
      CHECK(check());
      CHECK(check(causal{}, lse{l}, entropy{h}));
      CHECK(check(window{40, 3}, offset{20}));
      CHECK(check(window{40, 3}, offset{-50}, sink_logits{sinks}, lse{l}));
      CHECK(check(window{40, 3}, offset{20}, squared_relu{row_sum{}}));
      CHECK(check(window{40, 3}, offset{20}, l2_softmax{}));
      CHECK(check(causal{}, lengths{lens}, sink_logits{sinks}, entropy{h}));
      CHECK(check(mask{shown}, log_n{512}, lse{l}));
      CHECK(check(causal{}, rerope{rope, 30}));
    }
}

}  // namespace heed::test
