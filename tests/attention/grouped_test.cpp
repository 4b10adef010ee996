#include "support/catch.hpp"

#include <heed/attention/attention.hpp>
#include <heed/core/thread_pool.hpp>
#include <heed/position/rotary.hpp>

#include "attention/call.hpp"
#include "support/compare.hpp"
#include "support/random.hpp"

// Query heads of a group walk over their keys together where that spares work; no bit of them may tell.

namespace heed::test {
namespace {

template <class T>
view<T const, 4> one_head(tensor<T, 4> const& x, index batch, index head) {
  return {&x(batch, head, 0, 0), {1, 1, x.extent(2), x.extent(3)}, x.strides()};
}

struct grouped {
  index batch, heads_kv, group, q_len, kv_len, dim;
};

/// Every head of a call beside a call of its own; `joins` is whether heads are to share tasks.
template <class T, class... Ms>
void check_alone(char const* name, grouped const& s, bool joins, Ms const&... ms) {
  generator random(131);
  index const heads = s.heads_kv * s.group;
  auto const q = normal_tensor<T, 4>({s.batch, heads, s.q_len, s.dim}, random);
  auto const k = normal_tensor<T, 4>({s.batch, s.heads_kv, s.kv_len, s.dim}, random);
  auto const v = normal_tensor<T, 4>({s.batch, s.heads_kv, s.kv_len, s.dim}, random);
  tensor<T, 4> out(q.extents()), alone(q.extents());
  attention(q, k, v, out, ms...);
  for (index b = 0; b < s.batch; ++b)
    for (index h = 0; h < heads; ++h)
      attention(one_head(q, b, h), one_head(k, b, h / s.group), one_head(v, b, h / s.group),
                view<T, 4>(&alone(b, h, 0, 0), {1, 1, s.q_len, s.dim}, alone.strides()), ms...);
  INFO(name << ": " << s.q_len << " rows, group " << s.group);
  CHECK(same_bits(out, alone));
  index const one = explain(one_head(q, 0, 0), one_head(k, 0, 0), one_head(v, 0, 0), ms...).blocks;
  CHECK((explain(q, k, v, ms...).blocks > one) == joins);
}

}  // namespace

TEST_CASE("Heads that share converted keys keep the bits they have alone", "[identities]") {
  rotary const turn{frequencies::standard(40), layout::half};
  for (index group : {2, 3, 6})
    for (index q_len : {64, 100, 130}) {
      check_alone<Eigen::half>("half", {4, 2, group, q_len, 150, 40}, q_len <= 128);
      check_alone<Eigen::half>("half, causal", {4, 2, group, q_len, 150, 40}, q_len <= 128, causal{});
      check_alone<float>("rotary, window", {4, 2, group, q_len, 150, 40}, q_len <= 128, window{50, 20}, turn);
    }
}

TEST_CASE("Heads that share keys too many for a cache keep the bits they have alone", "[identities]") {
  check_alone<float>("long", {8, 1, 3, 70, 8200, 16}, true, causal{});
  check_alone<float>("short", {8, 1, 3, 70, 300, 16}, false, causal{});
}

TEST_CASE("Every stage acts on heads that walk over their keys together", "[reference]") {
  example<float> in({4, 6, 2, 70, 131, 16, 24}, 133);
  rotary const turn{frequencies::standard(16), layout::half};
  CHECK(explain(in.q, in.k, in.v, turn).tasks < 24);  // of 24 heads
  generator random(134);
  auto const added = normal_tensor<float, 4>({4, 6, 70, 131}, random);
  auto const gates = normal_tensor<float, 4>({4, 6, 70, 24}, random);
  tensor<bool, 4> seen({1, 6, 70, 131});
  for (index i = 0; i < seen.size(); ++i)
    seen.data()[i] = random.chance(0.7);
  int const lengths_of[] = {131, 80, 70, 1};
  std::vector<double> const sinks{0.5, -3, 4, 1, 0, 2};
  auto const check = [&](char const* what, auto const&... ms) { check_call(in, request(turn, ms...), what); };
  check("plain");
  check("causal, window, sink tokens", causal{}, window{30, 0}, sink_tokens{2});
  check("lengths", lengths{lengths_of});
  check("bias", bias{added}, causal{});
  check("mask", mask{seen});
  check("maps", softcap{3}, alibi::standard(6), score{bend{}});
  check("sinks and a gate", sink_logits{sinks}, gate{gates});
  check("row scale", log_n{64}, causal{});
  check("l2", l2_softmax{});
  check("squared relu", squared_relu{row_sum{}}, causal{});
}

TEST_CASE("Heads walk together only as far as workers have enough to do", "[resources]") {
  generator random(132);
  auto const q = normal_tensor<Eigen::half, 4>({1, 16, 64, 40}, random);
  auto const k = normal_tensor<Eigen::half, 4>({1, 2, 150, 40}, random);
  Eigen::ThreadPool threads(3);
  thread_pool pool(threads);
  tensor<Eigen::half, 4> alone(q.extents()), shared(q.extents());
  attention(q, k, k, alone, causal{});
  attention(q, k, k, shared, causal{}, on{pool});
  CHECK(same_bits(alone, shared));
  CHECK(explain(q, k, k, causal{}).tasks <= 4);  // at least four of eight heads a task
  CHECK(explain(q, k, k, causal{}, on{pool}).tasks >= std::min<index>(16, 4 * pool.concurrency()));
}

}  // namespace heed::test
