#pragma once

#include <heed/attention/normalizer.hpp>
#include <heed/attention/outputs.hpp>
#include <heed/kernel/problem.hpp>
#include <heed/kernel/score_map.hpp>

#include <algorithm>
#include <string_view>

/// Between the front door and the kernels: tensors become operands, modifiers become numbers, and everything that can
/// be wrong with them is refused here, before anything is written.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// Rank 2 to 4 as [batch, heads, len, channels]: missing leading dimensions have extent 1.
template <class T, int Rank>
operand tensor_operand(view<T, Rank> const& v) {
  static_assert(Rank >= 2 && Rank <= 4,
                "heed: attention reads rank 2 [len, dim], rank 3 [heads, len, dim] or rank 4 [batch, heads, len, dim]");
  static_assert(storage_scalar<std::remove_const_t<T>>,
                "heed: tensors hold float, double, Eigen::half or Eigen::bfloat16");
  return make_operand(v);
}

/// Keys or values: a tensor, or rows that tell themselves how they are stored (quantized_view).
template <class Rows>
operand rows_operand(Rows const& rows) {
  if constexpr (requires {
                  { rows.stored_rows() } -> std::same_as<operand>;
                })
    return rows.stored_rows();
  else
    return tensor_operand(rows);
}

/// First and last byte that an operand of these extents can touch.
struct byte_range {
  std::byte const* begin = nullptr;
  std::byte const* end = nullptr;

  bool overlaps(byte_range const& other) const { return begin < other.end && other.begin < end; }
};

template <std::size_t Rank>
byte_range bytes_of(std::byte const* data, scalar_kind kind, std::array<index, Rank> const& extents,
                    std::array<index, Rank> const& strides) {
  index low = 0, high = 0;
  for (std::size_t r = 0; r < Rank; ++r) {
    if (extents[r] == 0)
      return {};
    (strides[r] < 0 ? low : high) += (extents[r] - 1) * strides[r];
  }
  return {data + low * size_of(kind), data + (high + 1) * size_of(kind)};
}

/// Refuses a result whose elements share memory: sorted by size, each stride must step over all that lies below it.
template <std::size_t Rank>
void check_result(std::string_view what, std::byte const* data, std::array<index, Rank> const& extents,
                  std::array<index, Rank> const& strides) {
  std::array<std::pair<index, index>, Rank> steps{};
  std::size_t count = 0;
  if (std::find(extents.begin(), extents.end(), 0) != extents.end())
    return;
  for (std::size_t r = 0; r < Rank; ++r) {
    if (extents[r] == 1)
      continue;
    detail::expect(strides[r] != 0, "attention: ", what,
                   " must not have a zero stride: its elements would share memory");
    steps[count++] = {std::abs(strides[r]), extents[r]};
  }
  detail::expect(data != nullptr, "attention: ", what, ".data must not be null");
  detail::sort_few(steps.data(), count);
  index below = 1;
  for (std::size_t i = 0; i < count; ++i) {
    detail::expect(steps[i].first >= below, "attention: ", what, " must not overlap itself: stride ", steps[i].first,
                   " is smaller than the ", below, " elements below it");
    below += (steps[i].second - 1) * steps[i].first;
  }
}

inline void expect_extent(char const* what, char const* dimension, index got, index expected, char const* whose) {
  detail::expect(got == expected, "attention: ", what, ".extent(", dimension, ") must equal ", whose, " ", expected,
                 ", got ", got);
}

inline void check_tensors(operand const& q, operand const& k, operand const& v) {
  for (auto const& [x, name] : {std::pair{&q, "q"}, {&k, "k"}, {&v, "v"}}) {
    bool empty = false;
    for (index e : x->extents) {
      detail::expect(e >= 0, "attention: ", name, "'s extents must not be negative, got ", e);
      empty = empty || e == 0;
    }
    detail::expect(empty || x->data != nullptr, "attention: ", name, ".data must not be null");
  }
  expect_extent("k", "batch", k.extents[0], q.extents[0], "q's");
  expect_extent("v", "batch", v.extents[0], q.extents[0], "q's");
  expect_extent("v", "heads", v.extents[1], k.extents[1], "k's");
  expect_extent("k", "dim", k.extents[3], q.extents[3], "q's");
  expect_extent("v", "len", v.extents[2], k.extents[2], "k's");
  detail::expect(q.extents[3] >= 1, "attention: q.extent(dim) must be at least 1, got ", q.extents[3]);
  detail::expect(v.extents[3] >= 1, "attention: v.extent(dim_v) must be at least 1, got ", v.extents[3]);
  detail::expect(k.extents[1] > 0 ? q.extents[1] % k.extents[1] == 0 : q.extents[1] == 0,
                 "attention: q.extent(heads) must be a multiple of k's ", k.extents[1], ", got ", q.extents[1]);
}

inline void check_count(char const* what, char const* of, number_list const& list, index expected) {
  detail::expect(list.size() == expected, "attention: ", what, " must have one number per ", of, ", ", expected,
                 ", got ", list.size());
}

/// Extents of positions and visibility.
inline void check_positions(description& d, index batch, index q_len, index kv_len) {
  constexpr index far = index{1} << 60;
  auto const check_offset = [&](index offset) {
    detail::expect(offset > -far && offset < far, "attention: offset must lie within ±2^60, got ", offset);
  };
  if (d.offset)
    check_offset(*d.offset);
  if (d.offsets) {
    check_count("offset", "batch", d.offsets, batch);
    for (index b = 0; b < batch; ++b)
      check_offset(d.offsets.whole(b));
  }
  if (d.lengths) {
    check_count("lengths", "batch", d.lengths, batch);
    for (index b = 0; b < batch; ++b) {
      index const n = d.lengths.whole(b);
      detail::expect(n >= 0 && n <= kv_len, "attention: lengths[", b, "] must lie in [0, ", kv_len, "], got ", n);
    }
  }
  if (d.query_segments) {
    for (auto* ids : {&d.query_segments, &d.key_segments})
      if ((*ids)->extent(0) == 1 && batch != 1)
        **ids = {(*ids)->data(), {batch, (*ids)->extent(1)}, {0, (*ids)->stride(1)}};
    expect_extent("segments.q_ids", "batch", d.query_segments->extent(0), batch, "q's");
    expect_extent("segments.q_ids", "len", d.query_segments->extent(1), q_len, "q's");
    expect_extent("segments.k_ids", "batch", d.key_segments->extent(0), batch, "q's");
    expect_extent("segments.k_ids", "len", d.key_segments->extent(1), kv_len, "k's");
    for (auto const& [ids, name] : {std::pair{&d.query_segments, "q_ids"}, {&d.key_segments, "k_ids"}})
      detail::expect((*ids)->size() == 0 || (*ids)->data() != nullptr, "attention: segments.", name,
                     ".data must not be null");
  }
}

inline void check_heads(description const& d, index heads_q) {
  if (d.row_scale == row_scale_rule::scalable)
    check_count("scalable", "query head", d.row_scale_heads, heads_q);
  if (d.sink_logits)
    check_count("sink_logits", "query head", d.sink_logits, heads_q);
  if (d.alibi && d.alibi_slopes)
    check_count("alibi", "query head", d.alibi_slopes, heads_q);
  if (d.alibi && !d.alibi_slopes)
    detail::expect(d.alibi_heads == heads_q, "attention: alibi::standard must be made for q's ", heads_q,
                   " heads, got ", d.alibi_heads);
}

inline void check_position_code(position_description const& p, index dim) {
  if (p.rule == position_rule::none)
    return;
  detail::expect(p.pairs >= 1 && 2 * p.pairs <= dim, "attention: rotary's frequencies must turn 1 to ", dim / 2,
                 " pairs of q's ", dim, " channels, got ", p.pairs);
  if (p.rule == position_rule::rotary)
    return;
  detail::expect(p.window >= 1, "attention: rerope's window must be at least 1, got ", p.window);
  detail::expect(p.slope_inverse > 0, "attention: leaky_rerope.k must be positive, got ", p.slope_inverse);
  detail::expect(p.group >= 1, "attention: self_extend.group must be at least 1, got ", p.group);
}

/// The planes of a call: biases in the order of their addresses, so that the order of the arguments leaves no trace in
/// the sums, then everything that hides.
inline planes fold_planes(description const& d, index_array<4> const& pairs) {
  planes all;
  short_list<operand, 8> biases = d.biases;
  detail::sort_few(biases.items.data(), biases.count,
                   [](operand const& a, operand const& b) { return a.data < b.data; });
  for (operand const& b : biases)
    all.add({plane::source::bias, broadcast(b, pairs, "attention", "bias"), {}, {}, 0});
  if (d.relative_bias) {
    operand const& table = *d.relative_bias;
    detail::expect(table.extents[0] == 1 && table.extents[1] == 1 && table.extents[3] >= 1,
                   "attention: relative_bias must be [n] or [heads, n] with n ≥ 1, got n = ", table.extents[3]);
    operand const per_head = broadcast(table, {1, 1, pairs[1], table.extents[3]}, "attention", "relative_bias");
    all.add({plane::source::relative, per_head, {}, {}, d.relative_bias_first});
  }
  for (operand const& m : d.masks)
    all.add({plane::source::mask, broadcast(m, pairs, "attention", "mask"), {}, {}, 0});
  if (d.query_segments)
    all.add({plane::source::segments, {}, *d.query_segments, *d.key_segments, 0});
  return all;
}

/// A row output stretched to [batch, heads, q_len]; for rank-2 tensors an Eigen column [q_len, 1] will do.
inline row_output fold_rows(row_output r, char const* what, index batch, index heads, index q_len) {
  if (!r)
    return r;
  if (r.extents[1] == q_len && r.extents[2] == 1 && heads == 1) {
    std::swap(r.extents[1], r.extents[2]);
    std::swap(r.strides[1], r.strides[2]);
  }
  expect_extent(what, "batch", r.extents[0], batch, "q's");
  expect_extent(what, "heads", r.extents[1], heads, "q's");
  expect_extent(what, "len", r.extents[2], q_len, "q's");
  check_result(what, r.data, r.extents, r.strides);
  return r;
}

/// Everything but the results: extents checked, modifiers as numbers.
template <real T>
problem<T> fold_inputs(description const& d, operand const& q, operand const& k, operand const& v) {
  check_tensors(q, k, v);
  problem<T> p;
  p.batch = q.extents[0];
  p.heads_q = q.extents[1];
  p.q_len = q.extents[2];
  p.dim = q.extents[3];
  p.heads_kv = k.extents[1];
  p.kv_len = k.extents[2];
  p.dim_v = v.extents[3];
  p.q = q;
  p.k = k;
  p.v = v;
  p.said = d;
  check_positions(p.said, p.batch, p.q_len, p.kv_len);
  check_heads(d, p.heads_q);
  check_position_code(d.position, p.dim);
  position_description const& code = d.position;
  p.position = {code.rule,      {code.theta, code.pairs, code.attention_factor, code.interleaved},
                code.window,    code.slope_inverse,
                code.group,     code.keys_turned,
                code.near_keys, code.near_begin,
                code.near_rows, !d.causal && (static_cast<double>(d.right) >= code.window || d.sink_tokens > 0)};
  p.extra = fold_planes(p.said, {p.batch, p.heads_q, p.q_len, p.kv_len});
  bool const biased = !d.biases.empty() || d.relative_bias;
  p.natural = biased || d.normalizer == normalizer_rule::squared_relu || d.normalizer == normalizer_rule::none;
  p.counts_rows = d.row_scale == row_scale_rule::log_n || d.row_scale == row_scale_rule::log_n_clamped ||
                  d.row_scale == row_scale_rule::scalable ||
                  (d.normalizer == normalizer_rule::squared_relu && d.divisor == divisor_rule::visible);
  if (d.gate)
    p.said.gate = broadcast(d.gate, {p.batch, p.heads_q, p.q_len, p.dim_v}, "attention", "gate");
  return p;
}

/// Whether both are the same elements in the same places.
inline bool same_elements(operand const& a, operand const& b) {
  bool same = a.data == b.data && a.kind == b.kind && a.extents == b.extents;
  for (std::size_t r = 0; r < 4; ++r)
    same = same && (a.extents[r] == 1 || a.strides[r] == b.strides[r]);
  return same;
}

/// The results: `out` with rows of `columns` numbers (its `last` dimension), lse and entropy, none of which may overlap
/// an input, each other, or themselves; but the gate may be `out` itself.
template <real T>
void fold_results(problem<T>& p, operand const& out, char const* last, index columns, char const* whose) {
  expect_extent("out", "batch", out.extents[0], p.batch, "q's");
  expect_extent("out", "heads", out.extents[1], p.heads_q, "q's");
  expect_extent("out", "len", out.extents[2], p.q_len, "q's");
  expect_extent("out", last, out.extents[3], columns, whose);
  check_result("out", out.data, out.extents, out.strides);
  p.out = {const_cast<std::byte*>(out.data), out.kind, out.strides};
  p.said.lse = fold_rows(p.said.lse, "lse", p.batch, p.heads_q, p.q_len);
  p.said.entropy = fold_rows(p.said.entropy, "entropy", p.batch, p.heads_q, p.q_len);

  struct named {
    char const* name;
    byte_range bytes;
  };
  auto const of = [](operand const& x) { return bytes_of(x.data, x.kind, x.extents, x.strides); };
  auto const scales = [](operand const& x) {
    index_array<4> extents = x.extents;
    extents[3] = (extents[3] + x.scale_block - 1) / x.scale_block;
    return x.scales == nullptr
               ? byte_range{}
               : bytes_of(reinterpret_cast<std::byte const*>(x.scales), scalar_kind::float32, extents, x.scale_strides);
  };
  auto const rows = [](row_output const& x) {
    return x ? bytes_of(x.data, x.kind, x.extents, x.strides) : byte_range{};
  };
  operand const& factors = p.said.gate;
  named const all[] = {{"out", of(out)},
                       {"lse", rows(p.said.lse)},
                       {"entropy", rows(p.said.entropy)},
                       {"q", of(p.q)},
                       {"k", of(p.k)},
                       {"v", of(p.v)},
                       {"k's scales", scales(p.k)},
                       {"v's scales", scales(p.v)},
                       {"gate", factors && !same_elements(factors, out) ? of(factors) : byte_range{}}};
  for (std::size_t a = 0; a < 3; ++a)
    for (std::size_t b = a + 1; b < std::size(all); ++b)
      detail::expect(!all[a].bytes.overlaps(all[b].bytes), "attention: ", all[a].name, " must not share memory with ",
                     all[b].name);
}

/// The alphabetical rank of a type's name, so that {a, b} and {b, a} are one instantiation and one order of action.
template <class M>
constexpr std::string_view name_of_type() {
  return __PRETTY_FUNCTION__;
}

template <class M>
inline constexpr bool is_map = maps_scores<M> || hides_keys<M>;

/// Which of a call's modifiers are score maps, in the order in which they act.
template <class... Ms>
struct map_order {
  static constexpr std::size_t count = (std::size_t{0} + ... + std::size_t{is_map<Ms>});
  static constexpr std::array<std::string_view, sizeof...(Ms)> names{name_of_type<Ms>()...};
  static constexpr std::array<std::size_t, count + 1> picked = [] {
    std::array<bool, sizeof...(Ms)> wanted{is_map<Ms>...};
    std::array<std::size_t, count + 1> at{};
    std::size_t n = 0;
    for (std::size_t i = 0; i < sizeof...(Ms); ++i)
      if (wanted[i])
        at[n++] = i;
    detail::sort_few(at.data(), n, [](std::size_t a, std::size_t b) { return names[a] < names[b]; });
    return at;
  }();
  static constexpr bool distinct = [] {
    for (std::size_t i = 0; i + 1 < count; ++i)
      if (names[picked[i]] == names[picked[i + 1]])
        return false;
    return true;
  }();
  static_assert(distinct,
                "heed: two score maps of types with one name, whose order cannot be told: compose them into one");
};

/// The score maps among a call's modifiers, sorted.
template <class... Ms>
auto fold_maps(std::tuple<Ms const&...> const& all) {
  using order = map_order<Ms...>;
  return [&]<std::size_t... I>(std::index_sequence<I...>) {
    return score_maps<std::remove_cvref_t<std::tuple_element_t<order::picked[I], std::tuple<Ms...>>>...>{
        {std::get<order::picked[I]>(all)...}};
  }(std::make_index_sequence<order::count>{});
}
inline score_maps<> fold_maps(std::tuple<> const&) { return {}; }

/// The one modifier of a family, or null.
template <family Kind, class... Ms>
constexpr auto find(std::tuple<Ms const&...> const& all) {
  constexpr std::size_t at = [] {
    bool const matches[] = {(family_of<Ms>() == Kind)..., false};
    std::size_t i = 0;
    while (i < sizeof...(Ms) && !matches[i])
      ++i;
    return i;
  }();
  if constexpr (at < sizeof...(Ms))
    return &std::get<at>(all);
  else
    return nullptr;
}

/// What the types of a call's modifiers settle at compile time.
template <class Flat>
struct settled;
template <class... Ms>
struct settled<std::tuple<Ms const&...>> {
  static constexpr normalizer_rule rule = [] {
    normalizer_rule r = normalizer_rule::softmax;
    ((r =
          [](normalizer_rule given) {
            if constexpr (requires { Ms::rule; })
              return Ms::rule;
            else
              return given;
          }(r)),
     ...);
    return r;
  }();
  static constexpr bool entropy = ((family_of<Ms>() == family::entropy) || ...);
  static constexpr bool softmax_only = ((family_of<Ms>() == family::entropy || family_of<Ms>() == family::lse ||
                                         family_of<Ms>() == family::sink_logits) ||
                                        ...);
  static_assert(!softmax_only || rule == normalizer_rule::softmax,
                "heed: lse, entropy and sink_logits belong to softmax, not to another normaliser");
};

}  // namespace impl
HEED_ISA_END
}  // namespace heed
