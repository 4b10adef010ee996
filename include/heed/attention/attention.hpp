#pragma once

#include <heed/attention/bias.hpp>
#include <heed/attention/mask.hpp>
#include <heed/attention/row_scale.hpp>
#include <heed/attention/run.hpp>
#include <heed/attention/score.hpp>
#include <heed/core/mdspan.hpp>

/// The front door.

namespace heed {
HEED_ISA_BEGIN

/// Anything `as_view` knows: views, tensors, Eigen objects with storage, mdspans.
template <class T>
concept tensor_like = requires(T&& t) { as_view(std::forward<T>(t)); };

namespace impl {

template <class T>
using view_of = decltype(as_view(std::declval<T>()));
template <class T>
using element_of = typename view_of<T>::value_type;

/// A call's modifiers, read: what the types settle, what the values say.
template <class... Ms>
struct read_modifiers {
  using flat_type = decltype(std::tuple_cat(flat_references(std::declval<Ms const&>())...));
  using types = settled<flat_type>;

  flat_type flat;
  description said;

  explicit read_modifiers(Ms const&... ms) : flat(std::tuple_cat(flat_references(ms)...)) {
    check_families<flat_type>();
    std::apply([&](auto const&... each) { (read(each), ...); }, flat);
  }

 private:
  template <class M>
  void read(M const& m) {
    if constexpr (describes<M>)
      m.describe(said);
  }
};

template <class Q, class K, class V>
constexpr void check_types() {
  static_assert(!requires { typename view_of<Q>::code_type; }, "heed: keys and values may be quantised, queries not");
  static_assert(view_of<Q>::rank == view_of<K>::rank && view_of<K>::rank == view_of<V>::rank,
                "heed: q, k and v must have the same rank");
  static_assert(storage_scalar<element_of<Q>> && storage_scalar<element_of<K>> && storage_scalar<element_of<V>>,
                "heed: tensors hold float, double, Eigen::half or Eigen::bfloat16");
  static_assert(std::same_as<arithmetic_t<element_of<Q>>, arithmetic_t<element_of<K>>> &&
                    std::same_as<arithmetic_t<element_of<K>>, arithmetic_t<element_of<V>>>,
                "heed: double goes with double only: q, k and v must be all double or none");
}

/// What `out` must be beside q.
template <class Result, class Q>
constexpr void check_result_type() {
  using element = std::remove_reference_t<decltype(*std::declval<Result const&>().data())>;
  static_assert(!std::is_const_v<element>, "heed: out must not be const");
  static_assert(Result::rank == view_of<Q>::rank, "heed: out must have the rank of q, k and v");
  static_assert(std::same_as<arithmetic_t<typename Result::value_type>, arithmetic_t<element_of<Q>>>,
                "heed: double goes with double only: out must be double exactly if q, k and v are");
}

/// A new tensor for a call's result: q's scalar, rank and extents, but v's channels.
template <class Q, class V>
auto new_result(Q const& q, V const& v) {
  constexpr int rank = Q::rank;
  index_array<rank> extents = q.extents();
  extents.back() = v.extent(rank - 1);
  return tensor<typename Q::value_type, rank>(extents);
}

/// Folds the inputs and calls f(problem, maps, constant rule, constant entropy).
template <class Q, class K, class V, class Read, class F>
decltype(auto) with_problem(Q const& q, K const& k, V const& v, Read const& read, F&& f) {
  using T = arithmetic_t<typename Q::value_type>;
  using types = typename Read::types;
  auto const maps = fold_maps(read.flat);
  using maps_type = std::remove_const_t<decltype(maps)>;
  problem<T> p = fold_inputs<T>(read.said, tensor_operand(q), rows_operand(k), rows_operand(v));
  p.natural = p.natural || maps_type::change_scores;
  p.distinct_heads = maps_type::any;
  p.on_tiles = why_not_tiles(p) == nullptr;
  if constexpr (maps_type::hide_keys) {
    p.maps = &maps;
    p.user_mask = [](void const* all, site<double> const& at) {
      return static_cast<bool>(static_cast<maps_type const*>(all)->visible(true, at));
    };
  }
  return f(p, maps, std::integral_constant<normalizer_rule, types::rule>{}, std::bool_constant<types::entropy>{});
}

template <class Read>
auto& executor_of(Read const& read, inline_executor& here) {
  constexpr bool given = !std::same_as<decltype(find<family::executor>(read.flat)), std::nullptr_t>;
  if constexpr (given)
    return const_cast<std::remove_cvref_t<decltype(find<family::executor>(read.flat)->place)>&>(
        find<family::executor>(read.flat)->place);
  else
    return here;
}

template <class Read>
workspace* workspace_of(Read const& read) {
  if constexpr (std::same_as<decltype(find<family::workspace>(read.flat)), std::nullptr_t>)
    return nullptr;
  else
    return find<family::workspace>(read.flat)->scratch;
}

}  // namespace impl

/// Attention over every batch and head, written to `out`.
///
///     out[b, h, i] = Σ_j softmax_j(scale · q[b, h, i] · k[b, g, j]) · v[b, g, j],   g = h / (heads_q / heads_kv)
///
/// and whatever the modifiers make of it: order never matters, each at most once (mask and bias excepted).
///
/// | argument | shape | strides |
/// |---|---|---|
/// | q | [batch, heads_q, q_len, dim] | any, 0 too |
/// | k | [batch, heads_kv, kv_len, dim] | any, 0 too; a unit last stride is the fast path |
/// | v | [batch, heads_kv, kv_len, dim_v] | the same |
/// | out | [batch, heads_q, q_len, dim_v] | any but 0 |
///
/// - Rank 3 drops batch, rank 2 heads too. Scalars mix freely but double with others; arithmetic is float, or double.
/// - A row that sees no key is 0. What is hidden from a row, NaN included, does not reach it.
/// - Memory: up to 64 KiB on the stack, beyond that one allocation, or none with `with{workspace}`; at most 1 MiB a
///   worker for dim + dim_v up to about 2500, whatever the lengths. Bits do not depend on the executor.
/// - `out`, lse and entropy must not overlap q, k, v or each other; `gate{u}` may be out itself.
/// @throws argument_error naming the argument, before anything is written
/// @see Vaswani et al. 2017, arXiv 1706.03762; Rabe and Staats 2021, arXiv 2112.05682;
/// Dao et al. 2022, arXiv 2205.14135
template <class Q, class K, class V, class Out, class... Ms>
  requires(tensor_like<K> && tensor_like<Out>)
void attention(Q&& q, K&& k, V&& v, Out&& out, Ms const&... ms) {
  impl::check_types<Q, K, V>();
  auto const results = as_view(std::forward<Out>(out));
  impl::check_result_type<std::remove_const_t<decltype(results)>, Q>();
  impl::read_modifiers<Ms...> const read(ms...);
  impl::with_problem(as_view(q), as_view(k), as_view(v), read, [&](auto& p, auto const& maps, auto rule, auto entropy) {
    impl::fold_results(p, impl::tensor_operand(results), "dim", p.dim_v, "v's");
    inline_executor here;
    impl::run_call<rule(), entropy()>(p, maps, impl::executor_of(read, here), impl::workspace_of(read));
  });
}

/// The same, into a new tensor of q's scalar and rank.
template <class Q, class K, class V, class... Ms>
  requires(tensor_like<K> && (modifier<std::remove_cvref_t<Ms>> && ...))
auto attention(Q&& q, K&& k, V&& v, Ms const&... ms) {
  auto out = impl::new_result(as_view(q), as_view(v));
  attention(q, k, v, out, ms...);
  return out;
}

/// How a call with these inputs and modifiers will be done: path, tiles, splits, scratch, conversions.
/// @throws argument_error as the call would
template <class Q, class K, class V, class... Ms>
plan explain(Q const& q, K const& k, V const& v, Ms const&... ms) {
  impl::check_types<Q const&, K const&, V const&>();
  impl::read_modifiers<Ms...> const read(ms...);
  return impl::with_problem(
      as_view(q), as_view(k), as_view(v), read, [&](auto& p, auto const& maps, auto rule, auto entropy) {
        inline_executor here;
        return impl::plan_of<rule(), entropy()>(p, maps, impl::executor_of(read, here).concurrency());
      });
}

/// How many bytes of workspace a call with these inputs and modifiers wants, its executor's workers counted.
/// @throws argument_error as the call would
template <class Q, class K, class V, class... Ms>
std::size_t workspace_bytes(Q const& q, K const& k, V const& v, Ms const&... ms) {
  return explain(q, k, v, ms...).workspace_bytes;
}

HEED_ISA_END
}  // namespace heed
