#pragma once

#include <heed/attention/attention.hpp>
#include <heed/gated/linear_pass.hpp>
#include <heed/gated/operands.hpp>
#include <heed/position/rotary.hpp>

#include <memory>

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// One modifier as a flat tuple of references: attention's own (sets opened), or linear attention's.
template <class M>
auto linear_references(M const& m) {
  if constexpr (linear_modifier<M>)
    return std::tuple<M const&>(m);
  else
    return flat_references(m);
}

template <class M>
constexpr bool is_linear_part(linear_part wanted) {
  if constexpr (linear_modifier<M>)
    return M::part == wanted;
  else
    return false;
}
template <class M>
inline constexpr bool is_rotary = std::same_as<M, rotary>;

/// Whether linear attention knows what to do with this modifier.
template <class M>
constexpr bool suits_linear() {
  if constexpr (linear_modifier<M> || is_rotary<M>)
    return true;
  else if constexpr (has_family<M>)
    return M::kind == family::causal || M::kind == family::offset || M::kind == family::lengths ||
           M::kind == family::scale || M::kind == family::gate || M::kind == family::executor ||
           M::kind == family::workspace;
  else
    return false;
}

/// A call's modifiers, read.
template <class... Ms>
struct read_linear {
  using flat_type = decltype(std::tuple_cat(linear_references(std::declval<Ms const&>())...));

  flat_type flat;
  description said;
  linear_description linear;

  explicit read_linear(Ms const&... ms) : flat(std::tuple_cat(linear_references(ms)...)) {
    check<flat_type>();
    std::apply([&](auto const&... each) { (read(each), ...); }, flat);
  }

  /// The feature map of the call, or the default.
  auto const& map() const { return find_map<0>(); }

 private:
  template <std::size_t I>
  auto const& find_map() const {
    if constexpr (I == std::tuple_size_v<flat_type>) {
      static constexpr elu_plus_one otherwise;
      return otherwise;
    } else if constexpr (is_linear_part<std::remove_cvref_t<std::tuple_element_t<I, flat_type>>>(linear_part::map)) {
      return std::get<I>(flat);
    } else {
      return find_map<I + 1>();
    }
  }

  template <class M>
  void read(M const& m) {
    if constexpr (linear_modifier<M>)
      m.describe(linear);
    else if constexpr (describes<M>)
      m.describe(said);
  }

  template <class... Each>
  static constexpr int count([[maybe_unused]] linear_part wanted, std::tuple<Each const&...> const*) {
    return (0 + ... + static_cast<int>(is_linear_part<Each>(wanted)));
  }
  template <class... Each>
  static constexpr bool suit(std::tuple<Each const&...> const*) {
    return (suits_linear<Each>() && ...);
  }
  template <class... Each>
  static constexpr bool unnormalized_named(std::tuple<Each const&...> const*) {
    return (false || ... || std::same_as<Each, unnormalized>);
  }
  template <class Flat>
  static constexpr void check() {
    constexpr Flat const* set = nullptr;
    check_families<Flat>();
    static_assert(
        suit(set),
        "heed: linear_attention takes a feature map, normalized/unnormalized, causal, offset, lengths, scale, "
        "decay, log_decay, delta, state_in, state_out, rotary, gate, on and with; scores that pass through a "
        "normaliser, and what hides single pairs, belong to attention");
    static_assert(count(linear_part::map, set) <= 1, "heed: two feature maps in one call");
    static_assert(count(linear_part::normalization, set) <= 1, "heed: normalized and unnormalized in one call");
    static_assert(count(linear_part::decay, set) <= 1, "heed: two decays in one call (decay, log_decay: choose one)");
    static_assert(count(linear_part::delta, set) <= 1, "heed: delta named twice in one call");
    static_assert(count(linear_part::state_in, set) <= 1, "heed: state_in named twice in one call");
    static_assert(count(linear_part::state_out, set) <= 1, "heed: state_out named twice in one call");
    static_assert(count_family(family::causal, set) == 1 ||
                      count(linear_part::decay, set) + count(linear_part::delta, set) == 0,
                  "heed: decay, log_decay and delta need causal{}");
    static_assert(unnormalized_named(set) || count(linear_part::delta, set) == 0, "heed: delta needs unnormalized{}");
  }
};

/// A number per token `[batch, heads, len]` (rank of k less one), or per feature, as
/// [batch, heads, len, features or 1].
inline operand fold_tokens(char const* what, token_numbers const& given, int call_rank, index_array<4> const& extents) {
  operand x = given.values;
  int const rank = given.rank;
  if (!x)
    return x;
  detail::expect(rank == call_rank || rank == call_rank - 1, "linear_attention: ", what, " must have k's ", call_rank,
                 " dimensions or one less, got ", rank);
  if (rank < call_rank) {
    std::rotate(x.extents.begin(), x.extents.begin() + 1, x.extents.end());
    std::rotate(x.strides.begin(), x.strides.begin() + 1, x.strides.end());
    x.extents[3] = 1;
  }
  index_array<4> wanted = extents;
  wanted[3] = x.extents[3] == 1 ? 1 : extents[3];
  detail::expect(x.extents[2] == wanted[2], "linear_attention: ", what, " must have one number per key, ", wanted[2],
                 ", got ", x.extents[2]);
  return broadcast(x, wanted, "linear_attention", what);
}

inline void check_state(char const* what, operand const& x, index_array<4> const& extents) {
  static constexpr char const* names[] = {"batch", "heads", "features", "dim_v"};
  if (x)
    for (std::size_t r = 0; r < 4; ++r)
      expect_equal("linear_attention", what, names[r], x.extents[r], extents[r], "the call's");
}
inline void check_sums(char const* what, operand const& x, index_array<4> const& extents) {
  static constexpr char const* names[] = {"", "batch", "heads", "features"};
  if (x)
    for (std::size_t r = 1; r < 4; ++r)
      expect_equal("linear_attention", what, names[r], x.extents[r], extents[r], "the call's");
}

template <real T>
void check_linear_results(linear_problem<T> const& p, operand const& out, linear_description const& d) {
  constexpr auto function = "linear_attention";
  struct named {
    char const* name;
    operand const* x;
  };
  named const results[] = {{"out", &out}, {"state_out", &d.state_out}, {"state_out's sums", &d.sums_out}};
  named const inputs[] = {{"q", &p.q}, {"k", &p.k}, {"v", &p.v}};
  for (std::size_t i = 0; i < std::size(results); ++i) {
    if (!*results[i].x)
      continue;
    expect_result(function, results[i].name, *results[i].x);
    for (named const& input : inputs)
      expect_apart(function, results[i].name, *results[i].x, input.name, *input.x);
    for (std::size_t j = 0; j < i; ++j)
      expect_apart(function, results[i].name, *results[i].x, results[j].name, *results[j].x);
  }
  expect_apart(function, "out", out, "state_in", d.state_in);
  expect_apart(function, "out", out, "state_in's sums", d.sums_in);
}

/// Everything but the feature count, which is the map's.
template <real T>
linear_problem<T> fold_linear(description const& said, linear_description const& d, int rank, index features,
                              operand const& q, operand const& k, operand const& v, operand const& out) {
  constexpr auto function = "linear_attention";
  linear_problem<T> p;
  for (auto const& [x, name] : {std::pair{&q, "q"}, {&k, "k"}, {&v, "v"}})
    expect_input(function, name, *x);
  expect_equal(function, "k", "batch", k.extents[0], q.extents[0], "q's");
  expect_equal(function, "v", "batch", v.extents[0], q.extents[0], "q's");
  expect_equal(function, "v", "heads", v.extents[1], k.extents[1], "k's");
  expect_equal(function, "v", "len", v.extents[2], k.extents[2], "k's");
  expect_equal(function, "k", "dim", k.extents[3], q.extents[3], "q's");
  detail::expect(q.extents[3] >= 1, "linear_attention: q.extent(dim) must be at least 1, got ", q.extents[3]);
  detail::expect(v.extents[3] >= 1, "linear_attention: v.extent(dim_v) must be at least 1, got ", v.extents[3]);
  detail::expect(k.extents[1] > 0 ? q.extents[1] % k.extents[1] == 0 : q.extents[1] == 0,
                 "linear_attention: q.extent(heads) must be a multiple of k's ", k.extents[1], ", got ", q.extents[1]);
  expect_equal(function, "out", "batch", out.extents[0], q.extents[0], "q's");
  expect_equal(function, "out", "heads", out.extents[1], q.extents[1], "q's");
  expect_equal(function, "out", "len", out.extents[2], q.extents[2], "q's");
  expect_equal(function, "out", "dim", out.extents[3], v.extents[3], "v's");
  expect_positions(function, said, q.extents[0], k.extents[2]);
  p.batch = q.extents[0];
  p.heads_q = q.extents[1];
  p.q_len = q.extents[2];
  p.dim = q.extents[3];
  p.heads_kv = k.extents[1];
  p.kv_len = k.extents[2];
  p.features = features;
  p.dim_v = v.extents[3];
  p.q = q;
  p.k = k;
  p.v = v;
  p.out = sink_of(out);
  p.causal = said.causal;
  p.normalized = d.normalized;
  // A factor of all weights leaves normalised rows alone.
  p.scale = d.normalized ? 1 : said.scale ? *said.scale : 1 / std::sqrt(static_cast<double>(p.dim));
  p.offset = said.offset;
  p.offsets = said.offsets;
  p.lengths = said.lengths;
  if (d.decay) {
    detail::expect(d.decay.size() == p.heads_kv, "linear_attention: decay must have one number per key head, ",
                   p.heads_kv, ", got ", d.decay.size());
    for (index g = 0; g < p.heads_kv; ++g)
      detail::expect(d.decay.real(g) >= 0 && d.decay.real(g) <= 1, "linear_attention: decay[", g,
                     "] must lie in [0, 1], got ", d.decay.real(g));
  }
  p.decay = d.decay;
  p.log_decay = fold_tokens("log_decay", d.log_decay, rank, {p.batch, p.heads_kv, p.kv_len, features});
  p.delta = fold_tokens("delta", d.delta, rank, {p.batch, p.heads_kv, p.kv_len, 1});
  index_array<4> const state{p.batch, p.heads_kv, features, p.dim_v}, sums{1, p.batch, p.heads_kv, features};
  check_state("state_in", d.state_in, state);
  check_state("state_out", d.state_out, state);
  check_sums("state_in's sums", d.sums_in, sums);
  check_sums("state_out's sums", d.sums_out, sums);
  detail::expect(!d.normalized || !d.state_in || d.sums_in, "linear_attention: state_in needs its sums, too, for "
                                                            "normalized rows");
  p.state_in = d.state_in;
  p.sums_in = d.sums_in;
  if (d.state_out)
    p.state_out = sink_of(d.state_out);
  if (d.sums_out && d.normalized)
    p.sums_out = sink_of(d.sums_out);
  p.keys_before = d.keys_before;
  if (said.gate)
    p.gate = broadcast(said.gate, {p.batch, p.heads_q, p.q_len, p.dim_v}, function, "gate");
  position_description const& code = said.position;
  p.turns = code.rule == position_rule::rotary;
  detail::expect(!p.turns || (code.pairs >= 1 && 2 * code.pairs <= features),
                 "linear_attention: rotary must turn 1 to ", features / 2, " pairs of ", features, " features, got ",
                 code.pairs);
  p.turn = {code.theta, code.pairs, code.attention_factor, code.interleaved};
  check_linear_results(p, out, d);
  return p;
}

/// The scratch of a call, its executor's workers counted.
template <real T, class Map, class Executor>
std::size_t linear_bytes(linear_problem<T> const& p, Map const& map, Executor& place) {
  linear_shape const shape = linear_pass<T, Map>::shape(p, map);
  return static_cast<std::size_t>(shape.tasks > 1 ? place.concurrency() : 1) * shape.scratch;
}

template <real T, class Map, class Executor>
void run_linear(char const* function, linear_problem<T> const& p, Map const& map, Executor& place, workspace* given) {
  if (p.batch == 0 || p.heads_kv == 0)
    return;
  linear_shape const shape = linear_pass<T, Map>::shape(p, map);
  with_scratch(function, linear_bytes(p, map, place), given, [&](std::byte* memory) {
    auto const task = [&](index at, int worker) {
      linear_pass<T, Map> pass(p, map, shape, arena(memory + static_cast<std::size_t>(worker) * shape.scratch));
      pass.run(at);
    };
    inline_executor here;
    if (shape.tasks == 1)
      here.run(shape.tasks, task);
    else
      place.run(shape.tasks, task);
  });
}

template <class Q, class K, class V, class Out, class Read, class F>
decltype(auto) with_linear(Q const& q, K const& k, V const& v, Out const& out, Read const& read, F const& f) {
  using T = arithmetic_t<typename Q::value_type>;
  auto const& map = read.map();
  linear_problem<T> const p =
      fold_linear<T>(read.said, read.linear, Q::rank, features_of(map, q.extent(Q::rank - 1)), tensor_operand(q),
                     tensor_operand(k), tensor_operand(v), tensor_operand(out));
  return f(p, map);
}

}  // namespace impl

/// Linear attention: weights are products of feature maps, so that what the keys have said fits a matrix.
///
///     out_i = φ(q_i) S_i / (φ(q_i) · z_i),   S_i = Σ_j φ(k_j) v_jᵀ,   z_i = Σ_j φ(k_j)         normalized{}, the
///     default out_i = scale · φ(q_i) S_i                                                              unnormalized{}
///
/// over all keys, or with `causal{}` over j ≤ position(i), where each key's share may fade: `decay{γ per key head}`
/// (retention), `log_decay{per token}` (gated), `delta{β}`.
///
/// | argument | shape | strides |
/// |---|---|---|
/// | q | [batch, heads_q, q_len, dim] | any, 0 too |
/// | k | [batch, heads_kv, kv_len, dim] | any, 0 too |
/// | v | [batch, heads_kv, kv_len, dim_v] | any, 0 too |
/// | out | [batch, heads_q, q_len, dim_v] | any but 0 |
///
/// - Rank 3 drops batch, rank 2 heads too. Query heads share key heads as in `attention`; scalars mix as there.
/// - Modifiers: a feature map (`elu_plus_one{}` is the default, `exponential{}`, `identity{}`, `feature_map{f}`),
///   normalized/unnormalized, causal, offset, lengths, scale (default 1/√dim; normalised rows do not feel it), gate,
///   the decays, `state_in{S, z}`, `state_out{S, z}`, on, with. `rotary` turns features in the numerator only, so that
///   the divisor stays a sum of positive numbers (kexue.fm/archives/8265).
/// - A row that sees no key and no state is 0, also a row before position 0; one whose weights sum to 0 is 0.
/// - Rows in one chunk do not feel a hidden key or value, NaN included; a NaN that has entered the state stays.
/// - Chunks of `block_lanes` keys; few keys, gates per feature and the delta rule go row by row.
///   Both are the same sums.
/// - Time O(len · features · dim_v). Memory as for `attention`: the stack up to 64 KiB, beyond that one allocation, or
///   none with `with{workspace}`; at most 1 MiB a worker for up to 512 features, none that grows with a length.
/// - Work is cut by batch, key head and, unnormalised, value columns: bits do not depend on the executor.
/// @throws argument_error naming the argument, before anything is written
/// @see Katharopoulos et al. 2020, arXiv 2006.16236; Sun et al. 2023, arXiv 2307.08621; formulas C4
template <class Q, class K, class V, class Out, class... Ms>
  requires(tensor_like<K> && tensor_like<Out>)
void linear_attention(Q&& q, K&& k, V&& v, Out&& out, Ms const&... ms) {
  impl::check_types<Q, K, V>();
  auto const results = as_view(std::forward<Out>(out));
  impl::check_result_type<std::remove_const_t<decltype(results)>, Q>();
  impl::read_linear<Ms...> const read(ms...);
  impl::with_linear(as_view(q), as_view(k), as_view(v), results, read, [&](auto const& p, auto const& map) {
    inline_executor here;
    impl::run_linear("linear_attention", p, map, impl::executor_of(read, here), impl::workspace_of(read));
  });
}

/// The same, into a new tensor of q's scalar and rank.
template <class Q, class K, class V, class... Ms>
  requires(tensor_like<K> && ((modifier<std::remove_cvref_t<Ms>> || linear_modifier<std::remove_cvref_t<Ms>>) && ...))
auto linear_attention(Q&& q, K&& k, V&& v, Ms const&... ms) {
  auto out = impl::new_result(as_view(q), as_view(v));
  linear_attention(q, k, v, out, ms...);
  return out;
}

/// How many bytes `with{workspace}` must have for a call with these inputs and modifiers,
/// its executor's workers counted.
/// @throws argument_error as the call would
template <class Q, class K, class V, class... Ms>
std::size_t linear_workspace_bytes(Q const& q, K const& k, V const& v, Ms const&... ms) {
  impl::check_types<Q const&, K const&, V const&>();
  impl::read_linear<Ms...> const read(ms...);
  auto const queries = as_view(q);
  constexpr int rank = decltype(queries)::rank;
  // Only its extents are read: an address apart from all others.
  alignas(64) static constexpr std::byte nowhere[64]{};
  index_array<rank> extents = queries.extents();
  extents.back() = as_view(v).extent(rank - 1);
  using element = typename std::remove_const_t<decltype(queries)>::value_type;
  view<element const, rank> const out(reinterpret_cast<element const*>(nowhere), extents);
  return impl::with_linear(queries, as_view(k), as_view(v), out, read, [&](auto const& p, auto const& map) {
    inline_executor here;
    return impl::linear_bytes(p, map, impl::executor_of(read, here));
  });
}

/// The sums of linear attention between calls: S `[batch, heads_kv, features, dim_v]`, z `[batch, heads_kv, features]`
/// and how many keys are in them; nothing else grows.
///
///     linear_state<float> state(batch, heads_kv, features, dim_v);
///     state.step(q, k, v, out, elu_plus_one{});       // q_len = kv_len: one token or more, the last of the sequence
///
/// - step(…) is `linear_attention(…, causal{}, state_in{…}, state_out{…})`: equal to one call on the whole sequence, to
///   rounding. Tensors have rank 4, or fewer as there.
/// - Memory: batch · heads_kv · features · (dim_v + 1) numbers, whatever the length.
template <real T>
class linear_state {
 public:
  linear_state(index batch, index heads_kv, index features, index dim_v)
      : s_({checked(batch), checked(heads_kv), checked(features), checked(dim_v)}), z_({batch, heads_kv, features}) {}

  index size() const { return keys_; }
  view<T const, 4> sums_of_products() const { return s_.view(); }
  view<T const, 3> sums() const { return z_.view(); }

  void clear() {
    std::fill_n(s_.data(), s_.size(), T(0));
    std::fill_n(z_.data(), z_.size(), T(0));
    keys_ = 0;
  }

  template <class Q, class K, class V, class Out, class... Ms>
  void step(Q const& q, K const& k, V const& v, Out&& out, Ms const&... ms) {
    linear_attention(q, k, v, std::forward<Out>(out), causal{}, state_in(s_, z_, keys_), state_out(s_, z_), ms...);
    auto const keys = as_view(k);
    keys_ += keys.extent(decltype(keys)::rank - 2);
  }

 private:
  static index checked(index extent) {
    detail::expect(extent >= 1, "linear_state: extents must be at least 1, got ", extent);
    return extent;
  }

  tensor<T, 4> s_;
  tensor<T, 3> z_;
  index keys_ = 0;
};

HEED_ISA_END
}  // namespace heed
