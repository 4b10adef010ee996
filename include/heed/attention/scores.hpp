#pragma once

#include <heed/attention/attention.hpp>

#include <memory>

/// The score stage alone: what enters the normaliser, without softmax and values.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// Says that scores are wanted as they are.
struct bare_scores {
  static constexpr auto kind = family::normalizer;
  static constexpr auto rule = normalizer_rule::none;
  void describe(description& d) const { d.normalizer = rule; }
};

template <class... Ms>
constexpr void check_score_modifiers(std::tuple<Ms const&...> const*) {
  [[maybe_unused]] constexpr auto allowed = [](family f) {
    return f != family::normalizer && f != family::lse && f != family::entropy && f != family::sink_logits &&
           f != family::gate;
  };
  static_assert((allowed(family_of<Ms>()) && ...),
                "heed: scores take no normaliser, lse, entropy, sink_logits or gate: nothing is normalised");
}

/// Folds q and k alone, and calls f(problem, maps, constant rule, constant entropy).
template <class Q, class K, class Read, class F>
decltype(auto) with_score_problem(Q const& q, K const& k, Read const& read, F&& f) {
  check_types<Q const&, K const&, K const&>();
  return with_problem(as_view(q), as_view(k), as_view(k), read,
                      [&](auto& p, auto const& maps, auto rule, auto entropy) {
                        p.dim_v = 0;
                        return f(p, maps, rule, entropy);
                      });
}

}  // namespace impl

/// Scores as they would enter the normaliser, masks included:
///
///     out[b, h, i, j] = scale · row scale · q_i·k_j, then softcap, biases, functor; −inf where j is hidden from i
///
/// - q `[batch, heads_q, q_len, dim]`, k `[batch, heads_kv, kv_len, dim]`, out `[batch, heads_q, q_len, kv_len]`, of
///   rank 2, 3 or 4; any storage, any strides (out's not 0). Modifiers as for `attention`, but nothing that normalises.
/// - GlobalPointer's scores are those of `rotary{…}` and `window{0, unbounded}` with `offset{0}`: i ≤ j.
/// @throws argument_error naming the argument, before anything is written
/// @see GlobalPointer, arXiv 2208.03054; formulas E1
template <class Q, class K, class Out, class... Ms>
  requires tensor_like<Out>
void scores(Q const& q, K const& k, Out&& out, Ms const&... ms) {
  impl::bare_scores const bare;
  impl::read_modifiers<Ms..., impl::bare_scores> const read(ms..., bare);
  impl::check_score_modifiers(static_cast<decltype(impl::read_modifiers<Ms...>::flat) const*>(nullptr));
  auto const results = as_view(std::forward<Out>(out));
  static_assert(std::remove_const_t<decltype(results)>::rank == impl::view_of<Q const&>::rank,
                "heed: out must have the rank of q and k");
  impl::with_score_problem(q, k, read, [&](auto& p, auto const& maps, auto rule, auto entropy) {
    impl::fold_results(p, impl::tensor_operand(results), "kv_len", p.kv_len, "k's");
    inline_executor here;
    impl::run_call<rule(), entropy()>(p, maps, impl::executor_of(read, here), impl::workspace_of(read));
  });
}

/// Every score above `threshold`, handed to `sink(batch, head, i, j, score)` in row order: batch, head, i, then j.
///
/// - The sparse output of GlobalPointer and its relatives: what one wants of n² scores is the few that are positive.
/// - Memory: one block of query rows, 64 · kv_len scores at most; never q_len × kv_len. Runs on the calling thread.
/// @throws argument_error naming the argument, before the first call of `sink`
/// @see GlobalPointer, arXiv 2208.03054; formulas E1
template <class Q, class K, class Sink, class... Ms>
void scores_above(Q const& q, K const& k, double threshold, Sink&& sink, Ms const&... ms) {
  impl::bare_scores const bare;
  impl::read_modifiers<Ms..., impl::bare_scores> const read(ms..., bare);
  impl::check_score_modifiers(static_cast<decltype(impl::read_modifiers<Ms...>::flat) const*>(nullptr));
  impl::with_score_problem(q, k, read, [&](auto& p, auto const& maps, auto rule, auto entropy) {
    using T = std::remove_cvref_t<decltype(p.unit())>;
    using driver = pass<T, std::remove_cvref_t<decltype(maps)>, rule(), entropy()>;
    if (p.batch == 0 || p.heads_q == 0 || p.q_len == 0 || p.kv_len == 0)
      return;
    pass_shape<T> shape = pass_shape<T>::one_block(p);
    index const rows = block_lanes<T>;
    workspace memory(shape.scratch), buffer(static_cast<std::size_t>(rows * p.kv_len) * sizeof(T));
    T* const scores = reinterpret_cast<T*>(buffer.data());
    turners<T>::begin(arena(memory.data()), p);
    for (index task = 0; task < shape.tasks(p); ++task) {
      index const head = task / shape.super_blocks % p.heads_q, b = task / shape.super_blocks / p.heads_q;
      index const first = task % shape.super_blocks * rows, last = std::min(p.q_len, first + rows);
      p.out = {reinterpret_cast<std::byte*>(scores - first * p.kv_len), kind_of<T>(), {0, 0, p.kv_len, 1}};
      driver(p, maps, shape, arena(memory.data())).run(task);
      for (index i = first; i < last; ++i)
        for (index j = 0; j < p.kv_len; ++j)
          if (T const s = scores[(i - first) * p.kv_len + j]; s > static_cast<T>(threshold))
            sink(b, head, i, j, s);
    }
  });
}

HEED_ISA_END
}  // namespace heed
