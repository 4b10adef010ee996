#pragma once

#include <heed/attention/scores.hpp>
#include <heed/attention/state.hpp>

/// Softmax states form a monoid, and a monoid can be scanned in parallel.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// Keys of a block. By shape alone, so that bits do not depend on the executor; a state of dim_v + 2 numbers for every
/// 128 keys is little beside their values.
inline constexpr index scan_block = 128;

template <class... Ms>
constexpr void check_scan_modifiers(std::tuple<Ms const&...> const*) {
  static_assert(((family_of<Ms>() != family::row_scale) && ...),
                "heed: attention_scan takes no row scale: log_n would change every score with every prefix");
  static_assert(((family_of<Ms>() != family::normalizer) && ...), "heed: attention_scan knows softmax alone");
  static_assert(((family_of<Ms>() != family::gate && family_of<Ms>() != family::workspace) && ...),
                "heed: attention_scan takes no gate{…} or with{…}");
  static_assert(((family_of<Ms>() != family::amx) && ...), "heed: attention_scan takes no with_amx: it has one query");
}

/// What enters the scores: all but what belongs to the softmax.
template <class M>
auto score_modifier(M const& m) {
  if constexpr (family_of<M>() == family::lse || family_of<M>() == family::entropy ||
                family_of<M>() == family::sink_logits)
    return std::tuple<>();
  else
    return std::tuple<M const&>(m);
}

/// The scan over one call's scores: states of blocks, their exclusive prefixes, then every prefix within its block.
template <real T, bool Entropy>
class prefix_scan {
 public:
  prefix_scan(description const& d, view<T const, 4> const& scores, operand const& v, row_sink const& out, int workers)
      : said_(d), scores_(scores), v_(v), out_(out), n_(scores.extent(3)), dim_v_(v.extents[3]),
        blocks_((n_ + scan_block - 1) / scan_block), numbers_(softmax_state<T>::numbers(dim_v_, Entropy)),
        states_({rows(), blocks_, numbers_}), scratch_({workers, 2 * dim_v_ + numbers_}) {}

  template <class Executor>
  void run(Executor& place) {
    place.run(rows() * blocks_, [this](index task, int worker) { sum_block(task / blocks_, task % blocks_, worker); });
    place.run(rows(), [this](index row, int worker) { make_exclusive(row, worker); });
    place.run(rows() * blocks_,
              [this](index task, int worker) { finish_block(task / blocks_, task % blocks_, worker); });
  }

 private:
  index heads() const { return scores_.extent(1); }
  index rows() const { return scores_.extent(0) * heads(); }

  softmax_state<T> state(T* memory) const { return {{memory, static_cast<std::size_t>(numbers_)}, dim_v_, Entropy}; }
  T* state_at(index row, index block) { return states_.data() + (row * blocks_ + block) * numbers_; }
  T* own(int worker) { return scratch_.data() + worker * scratch_.stride(0); }

  /// Calls f(key) after each key of the block has gone into the state; a hidden one leaves it as it is.
  template <class F>
  void push_keys(index row, index block, softmax_state<T> into, T* room, F f) {
    index const b = row / heads(), h = row % heads(), g = h / (heads() / v_.extents[1]);
    for (index j = block * scan_block; j < std::min(n_, (block + 1) * scan_block); ++j) {
      T const s = scores_(b, h, 0, j);
      if (s != -std::numeric_limits<T>::infinity()) {
        load_rows(v_.at(b, g, j, 0), v_.kind, 0, v_.strides[3], 1, dim_v_, room, dim_v_);
        into.push(s, room);
      }
      f(j);
    }
  }

  void sum_block(index row, index block, int worker) {
    auto sum = state(state_at(row, block));
    sum.clear();
    push_keys(row, block, sum, own(worker), [](index) {});
  }

  /// In place of each block's state, that of everything before it; the sink stands before the first.
  void make_exclusive(index row, int worker) {
    T* const room = own(worker);
    auto running = state(room + 2 * dim_v_);
    running.clear();
    if (said_.sink_logits) {
      std::fill_n(room, dim_v_, T(0));
      running.push(static_cast<T>(said_.sink_logits.real(row % heads())), room);
    }
    std::vector<T> before(static_cast<std::size_t>(numbers_));
    for (index block = 0; block < blocks_; ++block) {
      std::copy_n(room + 2 * dim_v_, numbers_, before.begin());
      running.merge(state(state_at(row, block)));
      std::copy(before.begin(), before.end(), state_at(row, block));
    }
  }

  void finish_block(index row, index block, int worker) {
    T *const room = own(worker), *const result = room + dim_v_;
    auto running = state(state_at(row, block));
    index const b = row / heads(), h = row % heads();
    push_keys(row, block, running, room, [&](index j) {
      running.finish(result);
      store_row(result, dim_v_, out_.row(b, h, j), out_.kind, out_.strides[3]);
      if (said_.lse)
        said_.lse.store(b, h, j, static_cast<double>(running.lse()));
      if constexpr (Entropy)
        said_.entropy.store(b, h, j, static_cast<double>(running.entropy()));
    });
  }

  description const& said_;
  view<T const, 4> scores_;
  operand v_;
  row_sink out_;
  index n_, dim_v_, blocks_, numbers_;
  tensor<T, 3> states_;   // [batch · heads_q][block][numbers]
  tensor<T, 2> scratch_;  // a worker: value, result, state
};

}  // namespace impl

/// For one query, its attention over **all prefixes** of the keys,
/// by a parallel scan over the monoid of softmax states:
///
///     out[j] = Σ_{t ≤ j} e^{s_t} v_t / Σ_{t ≤ j} e^{s_t},     s_t = scale · q·k_t and what the modifiers make of it
///
/// | argument | shape |
/// |---|---|
/// | q | [batch, heads_q, 1, dim] |
/// | k, v | [batch, heads_kv, n, dim], [batch, heads_kv, n, dim_v] |
/// | out | [batch, heads_q, n, dim_v]: row j over keys 0…j |
///
/// - Rank 2 to 4, any storage, any strides. The query's position is that of `attention`: n − 1 unless `offset` says
///   otherwise; the last row of out is `attention(q, k, v, …)` itself, to rounding.
/// - Every modifier whose scores do not depend on the prefix: scale, softcap, biases, masks, windows, functors,
///   position codes, `sink_logits`, `on`; `lse` and `entropy` as `[batch, heads_q, n]`. A score of −inf hides its key.
///   Refused at compile time: row scales, other normalisers, gate, with.
/// - A prefix in which nothing is visible: 0, −inf (or the sink), 0.
/// - Bit-identical for every executor: blocks are cut by shape.
/// - Memory: n scores and n/128 states of dim_v + 2 numbers a head, allocated in the call.
/// @throws argument_error naming the argument, before anything is written
/// @see Rabe and Staats 2021, arXiv 2112.05682; formulas A1, C7
template <class Q, class K, class V, class Out, class... Ms>
  requires(tensor_like<K> && tensor_like<Out>)
void attention_scan(Q const& q, K const& k, V const& v, Out&& out, Ms const&... ms) {
  impl::check_types<Q const&, K const&, V const&>();
  using T = arithmetic_t<impl::element_of<Q const&>>;
  using read_type = impl::read_modifiers<Ms...>;
  impl::check_scan_modifiers(static_cast<typename read_type::flat_type const*>(nullptr));
  read_type const read(ms...);
  auto const results = as_view(std::forward<Out>(out));
  static_assert(std::same_as<arithmetic_t<typename decltype(results)::value_type>, T>,
                "heed: double goes with double only: out must be double exactly if q, k and v are");
  operand const queries = impl::tensor_operand(as_view(q)), keys = impl::tensor_operand(as_view(k)),
                values = impl::tensor_operand(as_view(v)), written = impl::tensor_operand(results);
  impl::check_tensors(queries, keys, values);
  index const batch = queries.extents[0], heads = queries.extents[1], n = keys.extents[2];
  impl::expect_extent("q", "len", queries.extents[2], 1, "attention_scan's");
  impl::expect_extent("out", "batch", written.extents[0], batch, "q's");
  impl::expect_extent("out", "heads", written.extents[1], heads, "q's");
  impl::expect_extent("out", "len", written.extents[2], n, "k's");
  impl::expect_extent("out", "dim_v", written.extents[3], values.extents[3], "v's");
  impl::check_result("out", written.data, written.extents, written.strides);
  impl::check_heads(read.said, heads);
  auto const bytes = [](operand const& x) { return impl::bytes_of(x.data, x.kind, x.extents, x.strides); };
  for (operand const* x : {&queries, &keys, &values})
    detail::expect(!bytes(written).overlaps(bytes(*x)), "attention: out must not share memory with q, k or v");
  description said = read.said;
  said.lse = impl::fold_rows(said.lse, "lse", batch, heads, n);
  said.entropy = impl::fold_rows(said.entropy, "entropy", batch, heads, n);
  if (batch == 0 || heads == 0 || n == 0)
    return;

  tensor<T, 4> s({batch, heads, 1, n});
  constexpr int rank = decltype(results)::rank;
  index_array<rank> extents{}, strides{};
  std::copy_n(s.extents().end() - rank, rank, extents.begin());
  std::copy_n(s.strides().end() - rank, rank, strides.begin());
  view<T, rank> const score_rows(s.data(), extents, strides);
  std::apply(
      [&](auto const&... each) {
        std::apply([&](auto const&... kept) { scores(q, k, score_rows, kept...); },
                   std::tuple_cat(impl::score_modifier(each)...));
      },
      read.flat);

  inline_executor here;
  auto& place = impl::executor_of(read, here);
  row_sink const sink{const_cast<std::byte*>(written.data), written.kind, written.strides};
  impl::prefix_scan<T, read_type::types::entropy>(said, s.view(), values, sink, place.concurrency()).run(place);
}

HEED_ISA_END
}  // namespace heed
