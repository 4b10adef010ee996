#include "support/catch.hpp"

#include "vq/calls.hpp"

#include <heed/core/thread_pool.hpp>

#include "support/counting_allocator.hpp"

#include <vector>

namespace heed::test {

TEST_CASE("VQ attention allocates once, or not at all with a workspace", "[resources][vq]") {
  generator random(401);
  INFO(random);
  std::vector<index> const ends{13, 190};
  rerope const code{rotary{frequencies::standard(6), layout::half}, 4};
  // Few rows a block, many rows a block, a last block of few rows.
  for (index block : {1, 2, 50, 64, 300}) {
    INFO("block " << block);
    vq_inputs<> const in({2, 4, 2, 200, 200, 6, 5, 9, block}, random);
    tensor<double, 4> out(in.out_extents()), again(in.out_extents());
    auto const check = [&](auto const&... ms) {
      allocation_count const once;
      vq_attention(in.q, in.codes, in.v, out, in.book, in.block, ms...);
      CHECK(once.count() == 1);
      workspace scratch(vq_workspace_bytes(in.q, in.codes, in.v, in.book, in.block, ms...));
      allocation_count const none;
      vq_attention(in.q, in.codes, in.v, again, in.book, in.block, with{scratch}, ms...);
      CHECK(none.count() == 0);
      CHECK(same_bits(out, again));
    };
    check();
    check(causal{});
    check(causal{}, lengths{ends}, log_n{9}, softcap{2});
    check(code);
    check(causal{}, code);
  }
}

TEST_CASE("VQ attention's memory does not grow with the length", "[resources][vq]") {
  generator random(402);
  vq_inputs<float> const in({1, 2, 1, 4096, 4096, 8, 8, 16, 64}, random);
  rerope const code{rotary{frequencies::standard(8), layout::half}, 20};
  auto const bytes = [&](index n, auto const&... ms) {
    auto const first = [&](auto const& x) {
      return view<float const, 4>(x.data(), {1, x.extent(1), n, x.extent(3)}, x.strides());
    };
    return vq_workspace_bytes(first(in.q), first(in.k), first(in.v), in.book, in.block, ms...);
  };
  CHECK(bytes(512, causal{}) == bytes(4096, causal{}));
  CHECK(bytes(512, causal{}, code) == bytes(4096, causal{}, code));
  CHECK(bytes(512, code) == bytes(4096, code));
  CHECK(bytes(4096, causal{}) < 400000);
}

TEST_CASE("VQ attention's bits do not depend on executor or batch", "[contract][vq]") {
  generator random(403);
  INFO(random);
  vq_inputs<float> const in({3, 4, 2, 150, 150, 16, 8, 20, 32}, random);
  rerope const code{rotary{frequencies::standard(16), layout::half}, 9};
  std::vector<index> const ends{150, 31, 77}, last{77};
  Eigen::ThreadPool threads(3);
  thread_pool pool{threads};
  tensor<float, 4> out(in.out_extents()), shared(in.out_extents()), one({1, 4, 150, 8});
  auto const check = [&](auto const&... ms) {
    vq_attention(in.q, in.k, in.v, out, in.book, in.block, lengths{ends}, offset{0}, ms...);
    vq_attention(in.q, in.k, in.v, shared, in.book, in.block, lengths{ends}, offset{0}, on{pool}, ms...);
    CHECK(same_bits(out, shared));
    workspace scratch(
        vq_workspace_bytes(in.q, in.k, in.v, in.book, in.block, lengths{ends}, offset{0}, on{pool}, ms...));
    vq_attention(in.q, in.k, in.v, shared, in.book, in.block, lengths{ends}, offset{0}, on{pool}, with{scratch}, ms...);
    CHECK(same_bits(out, shared));
    auto const third = [](tensor<float, 4> const& x) {
      return view<float const, 4>(&x(2, 0, 0, 0), {1, x.extent(1), x.extent(2), x.extent(3)}, x.strides());
    };
    vq_attention(third(in.q), third(in.k), third(in.v), one, in.book, in.block, lengths{last}, offset{0}, ms...);
    CHECK(std::equal(one.data(), one.data() + one.size(), &out(2, 0, 0, 0)));
  };
  check();
  check(causal{});
  check(causal{}, code, log_n{30});
  check(code);
}

TEST_CASE("A step of vq_state allocates nothing that it could keep", "[resources][vq]") {
  generator random(404);
  vq_inputs<float> const in({1, 2, 1, 100, 100, 8, 8, 9, 16}, random);
  vq_state<float> state(in.book, 8, 4);
  tensor<float, 4> out({1, 2, 1, 8});
  auto const step = [&](index i) {
    auto const row = [&](auto const& x) {
      return view<float const, 3>(&x(0, 0, i, 0), {x.extent(1), 1, 8}, {x.stride(1), x.stride(2), 1});
    };
    state.step(row(in.q), view<std::int32_t const, 2>(&in.codes(0, 0, i), {1, 1}), row(in.v),
               view<float, 3>(out.data(), {2, 1, 8}));
  };
  step(0);
  allocation_count const none;
  for (index i = 1; i < 100; ++i)
    step(i);
  CHECK(none.count() == 0);
}

}  // namespace heed::test
