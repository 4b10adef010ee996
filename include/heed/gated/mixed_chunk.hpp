#pragma once

#include <heed/gated/linear.hpp>

namespace heed {

/// What the quadratic part of mixed chunk attention is divided by; c the chunk's length, s the keys' dim.
enum class quadratic_norm {
  chunk_and_dim,  // relu(q·k)² / (c s): kexue.fm/archives/8934
  chunk_squared   // relu(q·k / c)²: the paper's appendix
};

/// What the linear part is divided by.
enum class linear_norm {
  tokens,  // the keys it sums: (g − 1) c of the chunks before row's own, counted from 1; bidirectional: all
  chunk,   // c, whatever has been summed: the paper's code
  none
};

/// The chunks of mixed chunk attention and its two normalisers.
struct chunks {
  index length = 256;
  quadratic_norm quadratic = quadratic_norm::chunk_and_dim;
  linear_norm linear = linear_norm::tokens;
};

HEED_ISA_BEGIN
namespace impl {

/// [len, n] or [batch, len, n] as [batch, 1, len, n]: mixed chunk attention has one head.
template <class V>
operand one_head(V const& v) {
  static_assert(V::rank == 2 || V::rank == 3, "heed: mixed_chunk_attention reads [len, …] or [batch, len, …]");
  operand o = tensor_operand(v);
  std::swap(o.extents[0], o.extents[1]);
  std::swap(o.strides[0], o.strides[1]);
  return o;
}

/// Rows [first, first + count · c) of one sequence as `count` sequences of `rows` ≤ c rows.
template <class T>
view<T, 4> as_chunks(operand const& x, index batch, index first, index c, index count, index rows) {
  return {reinterpret_cast<T*>(const_cast<std::byte*>(x.at(batch, 0, first, 0))),
          {count, 1, rows, x.extents[3]},
          {c * x.strides[2], 0, x.strides[2], x.strides[3]}};
}

template <class M>
constexpr bool suits_mixed_chunk() {
  if constexpr (is_rotary<M>)
    return true;
  else if constexpr (has_family<M>)
    return M::kind == family::causal || M::kind == family::lengths || M::kind == family::gate ||
           M::kind == family::executor || M::kind == family::workspace;
  else
    return false;
}
template <class... Ms>
constexpr void check_mixed_chunk(std::tuple<Ms const&...> const*) {
  static_assert((suits_mixed_chunk<Ms>() && ...),
                "heed: mixed_chunk_attention takes causal, lengths, gate, rotary, on and with; its normalisers are in "
                "chunks{…}");
}

/// The six tensors of a call.
struct mixed_operands {
  operand q_quadratic, k_quadratic, q_linear, k_linear, v, out;
};

inline void check_mixed(mixed_operands const& x, chunks const& c, description const& said) {
  constexpr auto function = "mixed_chunk_attention";
  std::pair<char const*, operand const*> const inputs[] = {{"q_quad", &x.q_quadratic},
                                                           {"k_quad", &x.k_quadratic},
                                                           {"q_lin", &x.q_linear},
                                                           {"k_lin", &x.k_linear},
                                                           {"v", &x.v}};
  for (auto const& [name, input] : inputs) {
    expect_input(function, name, *input);
    expect_equal(function, name, "batch", input->extents[0], x.q_quadratic.extents[0], "q_quad's");
    expect_equal(function, name, "len", input->extents[2], x.q_quadratic.extents[2], "q_quad's");
    detail::expect(input->extents[3] >= 1, "mixed_chunk_attention: ", name, " must have at least 1 channel");
    expect_apart(function, "out", x.out, name, *input);
  }
  expect_equal(function, "k_quad", "dim", x.k_quadratic.extents[3], x.q_quadratic.extents[3], "q_quad's");
  expect_equal(function, "k_lin", "dim", x.k_linear.extents[3], x.q_linear.extents[3], "q_lin's");
  expect_equal(function, "out", "batch", x.out.extents[0], x.v.extents[0], "v's");
  expect_equal(function, "out", "len", x.out.extents[2], x.v.extents[2], "v's");
  expect_equal(function, "out", "dim", x.out.extents[3], x.v.extents[3], "v's");
  expect_result(function, "out", x.out);
  detail::expect(c.length >= 1, "mixed_chunk_attention: chunks.length must be at least 1, got ", c.length);
  expect_positions(function, said, x.v.extents[0], x.v.extents[2]);
}

/// The quadratic part: the whole chunks of a sequence as the batch of one call, and the one that ends inside them.
template <class Q, class K, class V, class Out, class... Ms>
void quadratic_part(mixed_operands const& x, chunks const& c, index batch, index keys, Ms const&... ms) {
  index const len = x.v.extents[2], whole = keys / c.length, rest = keys - whole * c.length;
  auto const call = [&](index first, index count, index rows, index seen) {
    if (count == 0 || rows == 0)
      return;
    auto const part = [&]<class T>(T*, operand const& of, index n) {
      return as_chunks<T>(of, batch, first, c.length, count, n);
    };
    double const per_chunk = static_cast<double>(c.length), dim = static_cast<double>(x.q_quadratic.extents[3]);
    bool const paper = c.quadratic == quadratic_norm::chunk_squared;
    heed::attention(part(static_cast<Q const*>(nullptr), x.q_quadratic, rows),
                    part(static_cast<K const*>(nullptr), x.k_quadratic, seen),
                    part(static_cast<V const*>(nullptr), x.v, seen), part(static_cast<Out*>(nullptr), x.out, rows),
                    squared_relu{fixed{paper ? 1 : per_chunk}}, scale{paper ? 1 / per_chunk : 1 / std::sqrt(dim)},
                    offset{0}, ms...);
  };
  call(0, whole, c.length, c.length);
  index const first = whole * c.length;
  if (rest > 0)
    call(first, 1, std::min(c.length, len - first), rest);
  for (index i = rest > 0 ? first + c.length : first; i < len; ++i) {
    view<Out, 4> const row = as_chunks<Out>(x.out, batch, i, 1, 1, 1);
    for (index e = 0; e < x.out.extents[3]; ++e)
      row(0, 0, 0, e) = Out(0);
  }
}

/// Calls f with the modifiers that reach the quadratic part: all but lengths and gate, which act here.
template <class F, class... Ms>
void with_quadratic_modifiers(F const& f, std::tuple<Ms const&...> const& flat) {
  std::apply(f, std::tuple_cat([](auto const& m) {
               using M = std::remove_cvref_t<decltype(m)>;
               if constexpr (family_of<M>() == family::lengths || family_of<M>() == family::gate)
                 return std::tuple<>();
               else
                 return std::tuple<M const&>(m);
             }(std::get<Ms const&>(flat))...));
}

/// The linear part, added to what out holds, and the gate.
template <real T>
linear_problem<T> linear_part_of(mixed_operands const& x, chunks const& c, description const& said) {
  linear_problem<T> p;
  p.batch = x.v.extents[0];
  p.heads_q = p.heads_kv = 1;
  p.q_len = p.kv_len = x.v.extents[2];
  p.dim = p.features = x.q_linear.extents[3];
  p.dim_v = x.v.extents[3];
  p.q = x.q_linear;
  p.k = x.k_linear;
  p.v = x.v;
  p.out = sink_of(x.out);
  p.causal = said.causal;
  p.normalized = false;
  p.offset = 0;
  p.lengths = said.lengths;
  p.chunk = c.length;
  p.per_token = c.linear == linear_norm::tokens;
  p.factor = c.linear == linear_norm::chunk ? 1 / static_cast<double>(c.length) : 1;
  position_description const& code = said.position;
  p.turns = code.rule == position_rule::rotary;
  detail::expect(!p.turns || (code.pairs >= 1 && 2 * code.pairs <= std::min(p.features, x.q_quadratic.extents[3])),
                 "mixed_chunk_attention: rotary must turn 1 to ", std::min(p.features, x.q_quadratic.extents[3]) / 2,
                 " pairs of channels, got ", code.pairs);
  p.turn = {code.theta, code.pairs, code.attention_factor, code.interleaved};
  if (said.gate) {
    operand gate = said.gate;
    if (gate.extents[0] == 1) {  // [batch, len, e], as out is given
      std::swap(gate.extents[0], gate.extents[1]);
      std::swap(gate.strides[0], gate.strides[1]);
    }
    p.gate = broadcast(gate, {p.batch, 1, p.q_len, p.dim_v}, "mixed_chunk_attention", "gate");
    expect_apart("mixed_chunk_attention", "out", x.out, "gate", p.gate);
  }
  return p;
}

}  // namespace impl

/// Mixed chunk attention (FLASH): squared-ReLU attention inside chunks of c rows, linear attention between them.
///
///     out_i = u_i ⊙ (quad_i + lin_i),   row i in chunk g = 1, 2, …
///     quad_i = Σ_j∈g relu(q_quad_i · k_quad_j)² / (c s) · v_j          causal{}: j ≤ i
///     lin_i  = q_lin_i · Σ_j k_lin_j v_jᵀ / (tokens summed)            causal{}: j in chunks before g; else all j
///
/// | argument | shape | strides |
/// |---|---|---|
/// | q_quad, k_quad | [len, s] or [batch, len, s] | any, 0 too |
/// | q_lin, k_lin | [len, s'] or [batch, len, s'] | any, 0 too |
/// | v, out | [len, e] or [batch, len, e] | any; out's not 0 |
///
/// - `chunks{c, quadratic_norm, linear_norm}` names both normalisers. Causal `tokens` is 1 / ((g − 1) c); the
///   1 / ((g − 1) n / c) of kexue.fm/archives/8934 is a slip. The linear part of the first chunk is 0. `chunk_squared`
///   with `chunk` is what the paper's appendix has.
/// - Modifiers: causal, lengths, gate{u}, rotary (turns all four), on, with. Offsets are 0: q and k are the same rows.
///   Keys from `lengths[b]` on are never read, the divisors count the others, and rows from there on are computed like
///   any other. out may not be u.
/// - Time O(len · (c (s + e) + s' e)). Memory: the quadratic part is one call of `attention` a sequence (two where its
///   last chunk is ragged), the linear part one of `linear_attention`, each with its own promises; workspaces must
///   serve the larger.
/// - out in half or bfloat16 rounds the quadratic part on its way to the sum.
/// @throws argument_error naming the argument, before anything is written
/// @see Hua et al. 2022, arXiv 2202.10447; kexue.fm/archives/8934; formulas C3, E4
template <class QQuad, class KQuad, class QLin, class KLin, class V, class Out, class... Ms>
  requires(tensor_like<KLin> && tensor_like<Out>)
void mixed_chunk_attention(QQuad const& q_quad, KQuad const& k_quad, QLin const& q_lin, KLin const& k_lin, V const& v,
                           Out&& out, chunks const& c, Ms const&... ms) {
  impl::check_types<QQuad const&, KQuad const&, V const&>();
  impl::check_types<QLin const&, KLin const&, V const&>();
  auto const results = as_view(std::forward<Out>(out));
  using stored = std::remove_reference_t<decltype(*results.data())>;
  static_assert(!std::is_const_v<stored>, "heed: out must not be const");
  static_assert(std::same_as<arithmetic_t<stored>, arithmetic_t<impl::element_of<V const&>>>,
                "heed: double goes with double only: out must be double exactly if the inputs are");
  impl::read_modifiers<Ms...> const read(ms...);
  impl::check_mixed_chunk(&read.flat);
  impl::mixed_operands const x{impl::one_head(as_view(q_quad)), impl::one_head(as_view(k_quad)),
                               impl::one_head(as_view(q_lin)),  impl::one_head(as_view(k_lin)),
                               impl::one_head(as_view(v)),      impl::one_head(results)};
  impl::check_mixed(x, c, read.said);
  using T = arithmetic_t<stored>;
  auto const linear = impl::linear_part_of<T>(x, c, read.said);
  inline_executor here;
  auto& place = impl::executor_of(read, here);
  workspace* const scratch = impl::workspace_of(read);
  identity const map;
  std::size_t const bytes = impl::linear_bytes(linear, map, place);
  detail::expect(scratch == nullptr || scratch->size() >= bytes,
                 "mixed_chunk_attention: with's workspace must have at least ", bytes,
                 " bytes for the linear part, got ", scratch == nullptr ? 0 : scratch->size());
  impl::with_quadratic_modifiers(
      [&](auto const&... each) {
        for (index b = 0; b < linear.batch; ++b)
          impl::quadratic_part<impl::element_of<QQuad const&>, impl::element_of<KQuad const&>,
                               impl::element_of<V const&>, stored>(x, c, b, linear.keys_of(b), each...);
      },
      read.flat);
  impl::run_linear("mixed_chunk_attention", linear, map, place, scratch);
}

HEED_ISA_END
}  // namespace heed
