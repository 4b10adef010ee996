#pragma once

#include <heed/core/eigen.hpp>
#include <heed/core/mdspan.hpp>
#include <heed/core/tensor.hpp>
#include <heed/reference/normalizer.hpp>

/// The whole of attention once more, written as the formulas: slow, and obvious. Read it to learn what a call means;
/// the tests compare the kernels with it.
///
///     visibility.hpp   who sees whom, and the counts n_i
///     position.hpp     rotary distances
///     rows.hpp         elements of any storage, as numbers
///     score.hpp        q·k → scale → softcap → biases → functor
///     normalizer.hpp   scores → weights, lse, entropy
///
/// Every element is read by itself, whatever its type and strides, and everything is computed in `Scalar`: double, or
/// long double to judge a computation in double. Score functors and the user's own modifiers are called in double.

namespace heed {
HEED_ISA_BEGIN
namespace reference {

/// @throws argument_error where q and k do not belong together
inline shape shape_of(operand const& q, operand const& k) {
  shape const of{q.extents[0], q.extents[1], k.extents[1], q.extents[2], k.extents[2], q.extents[3]};
  detail::expect(k.extents[0] == of.batch, "reference: k.extent(batch) must equal q's ", of.batch, ", got ",
                 k.extents[0]);
  detail::expect(k.extents[3] == of.dim, "reference: k.extent(dim) must equal q's ", of.dim, ", got ", k.extents[3]);
  detail::expect(of.heads_kv > 0 ? of.heads_q % of.heads_kv == 0 : of.heads_q == 0,
                 "reference: k.extent(heads) must divide q's ", of.heads_q, ", got ", of.heads_kv);
  return of;
}

/// @throws argument_error where the extents of `what` are not the expected ones
template <std::size_t N>
void expect_extents(std::array<index, N> const& got, std::array<index, N> const& expected, char const* what) {
  for (std::size_t r = 0; r < N; ++r)
    detail::expect(got[r] == expected[r], "reference: ", what, " must have extent ", expected[r], " in dimension ", r,
                   " of ", N, ", got ", got[r]);
}

/// Missing dimensions in front, as extents of 1.
template <class T, int Rank>
view<T, 4> as_rank_4(view<T, Rank> const& v) {
  static_assert(Rank >= 2 && Rank <= 4, "heed: attention takes tensors of rank 2 to 4");
  index_array<4> extents{1, 1, 1, 1}, strides{};
  std::copy(v.extents().begin(), v.extents().end(), extents.begin() + (4 - Rank));
  std::copy(v.strides().begin(), v.strides().end(), strides.begin() + (4 - Rank));
  return {v.data(), extents, strides};
}

/// The sum as it is stored.
template <class Stored, class Scalar>
Stored rounded(Scalar sum) {
  if constexpr (storage_scalar<Stored>)
    return round_to<Stored>(sum);
  else
    return static_cast<Stored>(sum);
}

/// Calls `visit(batch, head, query, row)` with the scores of every row.
template <class Scalar, class Visitor, class... Ms>
void for_each_row(operand const& q, operand const& k, instructions<Ms...> const& told, Visitor const& visit) {
  shape const of = shape_of(q, k);
  if (told.data.sink_logits)
    detail::expect(told.data.sink_logits.size() == of.heads_q, "reference: sink_logits must have ", of.heads_q,
                   " entries, got ", told.data.sink_logits.size());
  scorer<Scalar, Ms...> score(q, k, told, of);
  for (index b = 0; b < of.batch; ++b)
    for (index h = 0; h < of.heads_q; ++h)
      for (index i = 0; i < of.q_len; ++i)
        visit(b, h, i, score.row(b, h, i));
}

/// Scores as they enter the normaliser, `[batch, heads_q, q_len, kv_len]`; −inf where the key is hidden.
template <class Scalar = double, class Q, class K, class... Ms>
tensor<double, 4> scores(Q const& q, K const& k, Ms const&... modifiers) {
  operand const queries = make_operand(as_view(q)), keys = make_operand(as_view(k));
  shape const of = shape_of(queries, keys);
  tensor<double, 4> result({of.batch, of.heads_q, of.q_len, of.kv_len});
  std::fill_n(result.data(), result.size(), -std::numeric_limits<double>::infinity());
  instructions<Ms...> const told(modifiers...);
  reference::for_each_row<Scalar>(queries, keys, told, [&](index b, index h, index i, score_row<Scalar> const& row) {
    for (std::size_t n = 0; n < row.keys.size(); ++n)
      result(b, h, i, row.keys[n]) = static_cast<double>(row.scores[n]);
  });
  return result;
}

/// Weights as they leave the normaliser, `[batch, heads_q, q_len, kv_len]`; 0 where the key is hidden. With
/// `sink_logits` a row sums to less than 1.
template <class Scalar = double, class Q, class K, class... Ms>
tensor<double, 4> weights(Q const& q, K const& k, Ms const&... modifiers) {
  operand const queries = make_operand(as_view(q)), keys = make_operand(as_view(k));
  shape const of = shape_of(queries, keys);
  tensor<double, 4> result({of.batch, of.heads_q, of.q_len, of.kv_len});
  instructions<Ms...> const told(modifiers...);
  reference::for_each_row<Scalar>(queries, keys, told, [&](index b, index h, index i, score_row<Scalar> const& row) {
    auto const weighed = reference::normalized(row, told.data, h);
    for (std::size_t n = 0; n < weighed.weights.size(); ++n)
      result(b, h, i, row.keys[n]) = static_cast<double>(weighed.weights[n]);
  });
  return result;
}

/// `out = u ⊙ Σ_j weight_ij v_j`, the same call as `heed::attention`; lse and entropy where they are asked for.
///
/// - q, k, v and out in any storage types, mixed as you like; out is rounded once.
/// - A hidden key's value never enters its row; a visible one with weight 0 is multiplied.
/// - An empty row is 0, whatever v and the gate hold.
///
/// @throws argument_error for extents that do not belong together
template <class Scalar = double, class Q, class K, class V, class Out, class... Ms>
void attention(Q const& q, K const& k, V const& v, Out&& out, Ms const&... modifiers) {
  operand const queries = make_operand(as_view(q)), keys = make_operand(as_view(k)), values = make_operand(as_view(v));
  auto const written = as_view(std::forward<Out>(out));
  using stored = typename decltype(written)::value_type;
  shape const of = shape_of(queries, keys);
  index const dim_v = values.extents[3];
  instructions<Ms...> const told(modifiers...);
  description const& said = told.data;

  view<stored, 4> const result = reference::as_rank_4(written);
  expect_extents<4>(values.extents, {of.batch, of.heads_kv, of.kv_len, dim_v}, "v");
  expect_extents<4>(result.extents(), {of.batch, of.heads_q, of.q_len, dim_v}, "out");
  if (said.lse)
    expect_extents<3>(said.lse.extents, {of.batch, of.heads_q, of.q_len}, "lse");
  if (said.entropy)
    expect_extents<3>(said.entropy.extents, {of.batch, of.heads_q, of.q_len}, "entropy");
  head_rows<Scalar> value_rows(values);
  operand const gate = said.gate ? broadcast(said.gate, result.extents(), "reference", "gate") : operand{};

  reference::for_each_row<Scalar>(queries, keys, told, [&](index b, index h, index i, score_row<Scalar> const& row) {
    auto const weighed = reference::normalized(row, said, h);
    if (said.lse)
      said.lse.store(b, h, i, static_cast<double>(weighed.lse));
    if (said.entropy)
      said.entropy.store(b, h, i, static_cast<double>(weighed.entropy));
    std::vector<Scalar> sum(static_cast<std::size_t>(dim_v));
    for (std::size_t n = 0; n < weighed.weights.size(); ++n) {
      Scalar const* value = value_rows(b, of.key_head(h), row.keys[n]);
      for (Scalar& x : sum)
        x += weighed.weights[n] * *value++;
    }
    for (index c = 0; c < dim_v; ++c) {
      Scalar x = sum[static_cast<std::size_t>(c)];
      if (gate && !weighed.weights.empty())
        x *= static_cast<Scalar>(gate(b, h, i, c));
      result(b, h, i, c) = reference::rounded<stored>(x);
    }
  });
}

}  // namespace reference
HEED_ISA_END
}  // namespace heed
