#pragma once

#include <heed/vq/accept.hpp>
#include <heed/vq/codebook.hpp>
#include <heed/vq/walk.hpp>

/// Softmax attention over vector-quantised keys, in time linear in the length.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

template <class T, int Rank>
view<T, 4> as_rank_4(view<T, Rank> const& v) {
  index_array<4> extents{1, 1, 1, 1}, strides{};
  std::copy(v.extents().begin(), v.extents().end(), extents.begin() + (4 - Rank));
  std::copy(v.strides().begin(), v.strides().end(), strides.begin() + (4 - Rank));
  return {v.data(), extents, strides};
}

template <class T>
view<T, 4> some_rows(view<T, 4> const& v, index first, index count) {
  return {v.data() + first * v.stride(2), {v.extent(0), v.extent(1), count, v.extent(3)}, v.strides()};
}

/// The keys of a call: as they are, or as codes already; and the shape of both.
template <class Q, class K, real T>
struct vq_keys {
  static constexpr bool coded = std::same_as<stored_in<K>, std::int32_t>;
  static constexpr int rank = rank_of<Q>;

  operand rows{};                       // [batch, heads_kv, kv_len, dim]
  view<std::int32_t const, 3> codes{};  // [batch, heads_kv, kv_len]

  vq_keys(Q const& q, K const& k, codebook<T> const& book) {
    index const batch = rank == 4 ? as_view(q).extent(0) : 1;
    if constexpr (coded) {
      static_assert(
          rank_of<K> == rank - 1 || (rank == 2 && rank_of<K> == 2),
          "heed: codes are [batch, heads, len] beside q of rank 4, with one dimension less for each one q lacks");
      codes = codes_view(view<std::int32_t const, rank_of<K>>(as_view(k)), rank == 2);
      expect_codes("vq_attention", codes, {batch, book.heads(), codes.extent(2)});
    } else {
      static_assert(!std::integral<stored_in<K>>, "heed: codes are int32");
      static_assert(rank_of<K> == rank, "heed: q and k must have the same rank");
      static_assert(std::same_as<arithmetic_t<stored_in<K>>, T>,
                    "heed: double goes with double only: the codebook must be double exactly if the tensors are");
      rows = key_rows(k);
      expect_keys("vq_attention", rows, book.heads(), book.dim());
    }
  }

  index batch() const { return coded ? codes.extent(0) : rows.extents[0]; }
  index len() const { return coded ? codes.extent(2) : rows.extents[2]; }

  /// Something of the keys' shape that attention can check a call against.
  view<T const, 4> stand_in(codebook<T> const& book) const {
    return {book.vectors().data(), {batch(), book.heads(), len(), book.dim()}, {0, 0, 0, 1}};
  }
  byte_range bytes() const {
    if (!coded)
      return bytes_of(rows.data, rows.kind, rows.extents, rows.strides);
    static_assert(sizeof(std::int32_t) == sizeof(float));
    return bytes_of(reinterpret_cast<std::byte const*>(codes.data()), scalar_kind::float32, codes.extents(),
                    codes.strides());
  }
};

template <class Q, class V, real T, class... Ms>
constexpr void check_vq_types() {
  using flat = typename read_modifiers<Ms...>::flat_type;
  check_vq_modifiers(static_cast<flat const*>(nullptr));
  static_assert(rank_of<Q> == rank_of<V>, "heed: q and v must have the same rank");
  static_assert(std::same_as<arithmetic_t<stored_in<Q>>, T> && std::same_as<arithmetic_t<stored_in<V>>, T>,
                "heed: double goes with double only: the codebook must be double exactly if the tensors are");
}

/// Checks a call and calls f(problem of the call, walk, read modifiers).
template <class Q, class K, class V, real T, class F, class... Ms>
decltype(auto) with_walk(Q const& q, K const& k, V const& v, codebook<T> const& book, index block, F&& f,
                         Ms const&... ms) {
  check_vq_types<Q, V, T, Ms...>();
  detail::expect(block >= 1, "vq_attention: block must be at least 1, got ", block);
  vq_keys<Q, K, T> const keys(q, k, book);
  read_modifiers<Ms...> const read(ms...);
  return with_problem(as_view(q), keys.stand_in(book), as_rank_4(as_view(v)), read,
                      [&](problem<T>& p, auto const&, auto, auto) {
                        inline_executor here;
                        vq_walk<T> walk(p, book, keys.rows, keys.codes, block, executor_of(read, here).concurrency());
                        return f(p, walk, read, keys);
                      });
}

/// The attention call of one block of rows, handed to f(problem, maps, rule, entropy) unfinished.
template <class Q, real T, class Read, class F>
decltype(auto) with_block(Q const& q, problem<T> const& p, vq_walk<T> const& walk, Read const& whole, row_range rows,
                          F&& f) {
  Read read = whole;
  walk.describe(rows, p.said, read.said);
  return with_problem(some_rows(as_rank_4(as_view(q)), rows.first, rows.count), walk.keys(), walk.values(), read,
                      std::forward<F>(f));
}

/// The most scratch that the attention call of any block takes: of a block in the middle, and of the last.
template <class Q, real T, class Read>
std::size_t block_scratch(Q const& q, problem<T> const& p, vq_walk<T> const& walk, Read const& whole, int concurrency) {
  std::size_t most = 0;
  for (index count : {walk.block_rows(), p.q_len % std::max<index>(walk.block_rows(), 1)}) {
    if (count == 0)
      continue;
    Read read = whole;
    walk.describe_largest(p.said, read.said);
    std::size_t const bytes =
        with_problem(some_rows(as_rank_4(as_view(q)), 0, count), walk.keys(), walk.values(), read,
                     [&]<class Maps, class Rule, class Entropy>(problem<T>& block, Maps const&, Rule, Entropy) {
                       call_shape<T, Maps, Rule::value, Entropy::value> const shape(block, concurrency);
                       std::size_t const own = static_cast<std::size_t>(shape.workers) * shape.scratch;
                       // Fewer splits than here may let more partial states fit the room for them.
                       std::size_t const room = static_cast<std::size_t>(shape.workers) * (scratch_limit / 2);
                       return own + (shape.rows_shape.partial == 0 ? 0 : std::max(room, shape.rows_shape.partial));
                     });
    most = std::max(most, bytes);
  }
  return round_up(most, std::size_t{64});
}

}  // namespace impl

/// Causal or bidirectional attention in which each key counts as the nearest vector of its head's codebook: equal, to
/// rounding, to `attention(q, book.decode(book.encode(k)), v, out, modifiers…)`, in time linear in the length.
///
///     out_i = Σ_c n_c e^(q_i·C_c) v̄_c / Σ_c n_c e^(q_i·C_c)     over the codes c: n_c keys whose values' mean is v̄_c
///
/// Row blocks go through the sequence one after the other; keys that every row of a block sees alike are counted in n
/// and v̄, the others stay single beside them, all in one softmax.
///
/// | argument | shape |
/// |---|---|
/// | q | [batch, heads_q, q_len, dim] |
/// | k | [batch, heads_kv, kv_len, dim], or int32 codes [batch, heads_kv, kv_len] |
/// | v | [batch, heads_kv, kv_len, dim_v] |
/// | out | [batch, heads_q, q_len, dim_v] |
/// | book | a codebook of heads_kv sets of vectors of dim numbers |
/// | block | rows of a block, at least 1: some hundreds is best |
///
/// - Rank 3 drops batch, rank 2 heads too. Storage mixes as in `attention`.
/// - Modifiers: causal, lengths, offset, scale, the row scales (n_i counts keys, not codes), softcap, lse, sink_logits,
///   rerope, relative_bias, on, with. What would tell far keys of one code apart does not compile. relative_bias is
///   clamped to its ends as always: Transformer-VQ's window bias is a table that ends in 0.
/// - Single keys: those of the block, and beside it those within rerope's window or the table of relative_bias.
/// - A code without keys takes no part. Visible keys must be finite, or codes in range: else argument_error.
/// - Memory: a (batch, key head) takes (codes + single keys) · (dim + dim_v) numbers and codes · dim_v doubles,
///   whatever the length; one allocation, or none with `with{workspace}` of `vq_workspace_bytes(…)` (Eigen's in
///   encoding apart).
/// @throws argument_error as `attention`, before anything is written
/// @see Lingle 2023, arXiv 2309.16354; Su, kexue.fm/archives/9844; formulas C6
template <class Q, class K, class V, class Out, real T, class... Ms>
  requires(tensor_like<K> && tensor_like<Out>)
void vq_attention(Q const& q, K const& k, V const& v, Out&& out, codebook<T> const& book, index block,
                  Ms const&... ms) {
  impl::check_vq_types<Q, V, T, Ms...>();
  auto const results = as_view(std::forward<Out>(out));
  static_assert(impl::rank_of<Out> == impl::rank_of<Q const&>, "heed: out must have the rank of q and v");
  static_assert(!std::is_const_v<std::remove_reference_t<decltype(*results.data())>>, "heed: out must not be const");
  static_assert(std::same_as<arithmetic_t<impl::stored_in<Out>>, T>,
                "heed: double goes with double only: out must be double exactly if the codebook is");
  auto const body = [&](problem<T>& p, impl::vq_walk<T>& walk, auto const& read, auto const& keys) {
    operand const all = impl::tensor_operand(results);
    impl::fold_results(p, all, "dim", p.dim_v, "v's");
    impl::byte_range const written = impl::bytes_of(all.data, all.kind, all.extents, all.strides);
    detail::expect(!written.overlaps(keys.bytes()), "vq_attention: out must not share memory with k");
    if (row_output const& l = p.said.lse)
      detail::expect(!impl::bytes_of(l.data, l.kind, l.extents, l.strides).overlaps(keys.bytes()),
                     "vq_attention: lse must not share memory with k");
    if (p.batch == 0 || p.heads_q == 0 || p.q_len == 0)
      return;
    inline_executor here;
    auto& place = impl::executor_of(read, here);
    std::size_t const own = walk.bytes(), blocks = impl::block_scratch(q, p, walk, read, place.concurrency());
    workspace* const given = impl::workspace_of(read);
    detail::expect(given == nullptr || given->size() >= own + blocks,
                   "vq_attention: with's workspace must have at least ", own + blocks, " bytes, got ",
                   given == nullptr ? 0 : given->size());
    workspace const taken = given == nullptr ? workspace(own + blocks) : workspace(given->data(), given->size());
    workspace scratch(taken.data() + own, blocks);
    walk.open(taken.data(), place);
    for (index r = 0; r < walk.blocks(); ++r) {
      impl::row_range const rows = walk.rows(r);
      walk.load(rows, place);
      impl::with_block(q, p, walk, read, rows, [&](problem<T>& part, auto const& maps, auto rule, auto entropy) {
        operand to = all;
        to.data += rows.first * to.strides[2] * size_of(to.kind);
        to.extents[2] = rows.count;
        impl::fold_results(part, to, "dim", part.dim_v, "v's");
        impl::run_call<rule(), entropy()>(part, maps, place, &scratch);
      });
    }
  };
  impl::with_walk(q, k, v, book, block, body, ms...);
}

/// The same, into a new tensor of q's scalar and rank.
template <class Q, class K, class V, real T, class... Ms>
  requires(tensor_like<K> && (modifier<Ms> && ...))
auto vq_attention(Q const& q, K const& k, V const& v, codebook<T> const& book, index block, Ms const&... ms) {
  constexpr int rank = impl::rank_of<Q const&>;
  index_array<rank> extents = as_view(q).extents();
  extents.back() = as_view(v).extent(rank - 1);
  tensor<impl::stored_in<Q const&>, rank> out(extents);
  vq_attention(q, k, v, out, book, block, ms...);
  return out;
}

/// How many bytes of workspace such a call wants, its executor's workers counted: the same for any length beyond a few
/// blocks.
/// @throws argument_error as the call would
template <class Q, class K, class V, real T, class... Ms>
std::size_t vq_workspace_bytes(Q const& q, K const& k, V const& v, codebook<T> const& book, index block,
                               Ms const&... ms) {
  auto const body = [&](problem<T>& p, impl::vq_walk<T>& walk, auto const& read, auto const&) -> std::size_t {
    if (p.batch == 0 || p.heads_q == 0 || p.q_len == 0)
      return 0;
    inline_executor here;
    return walk.bytes() + impl::block_scratch(q, p, walk, read, impl::executor_of(read, here).concurrency());
  };
  return impl::with_walk(q, k, v, book, block, body, ms...);
}

HEED_ISA_END
}  // namespace heed
