#pragma once

#include <heed/core/eigen.hpp>
#include <heed/core/operand.hpp>
#include <heed/core/tensor.hpp>
#include <heed/kernel/load.hpp>
#include <heed/kernel/online.hpp>

#include <span>

/// The running softmax as a type, and the merging of finished results: one row's attention over disjoint sets of keys,
/// computed in pieces, on other threads or other machines, put together exactly.

namespace heed {
HEED_ISA_BEGIN

/// The state of one row over the keys pushed so far, in the caller's memory:
///
///     m = max s,   l = Σ e^(s − m),   acc = Σ e^(s − m) v,   with entropy also u = Σ e^(s − m) (s − m)
///
/// - `numbers(dim_v)` scalars: m, l, acc[dim_v], and u where the entropy is wanted. Copying a state copies the view.
/// - The empty state (`clear()`) is a true identity: it merges with anything and finishes to zeros and −inf.
/// - `merge` is exactly commutative, and associative to rounding. Scores are natural logits; a score of −inf has weight
///   0, NaN makes the row NaN.
/// @see Rabe and Staats 2021, arXiv 2112.05682; formulas A1
template <real T>
class softmax_state {
 public:
  static constexpr index numbers(index dim_v, bool entropy = false) { return dim_v + 2 + (entropy ? 1 : 0); }

  /// A state in `memory`, as it lies there: call `clear` on new memory.
  /// @throws argument_error if memory has fewer than `numbers(dim_v, entropy)` scalars
  softmax_state(std::span<T> memory, index dim_v, bool entropy = false)
      : data_(memory.data()), dim_v_(dim_v), entropy_(entropy) {
    detail::expect(static_cast<index>(memory.size()) >= numbers(dim_v, entropy), "softmax_state: memory must hold ",
                   numbers(dim_v, entropy), " numbers, got ", memory.size());
  }

  void clear() {
    std::fill_n(data_, numbers(dim_v_, entropy_), T(0));
    data_[0] = -std::numeric_limits<T>::infinity();
  }

  index dim_v() const { return dim_v_; }
  T maximum() const { return data_[0]; }
  T sum() const { return data_[1]; }
  std::span<T const> accumulated() const { return {data_ + 2, static_cast<std::size_t>(dim_v_)}; }

  /// Takes in one key: its score and its value of dim_v channels.
  void push(T score, T const* value) {
    T const old = data_[0], top = heed::max(score, old);
    T const r = rescale_factor<T>(old, top, log2_e<T>);
    T const w = exp2_weight((score - safe_maximum<T>(top)) * log2_e<T>);
    if (entropy_) {
      T const spread = w == T(0) ? T(0) : w * (score - top);
      spread_sum() = rescaled_entropy_sum<T>(spread_sum(), data_[1], old, top, r) + spread;
    }
    data_[0] = top;
    data_[1] = data_[1] * r + w;
    for (index c = 0; c < dim_v_; ++c)
      data_[2 + c] = heed::fma(value[c], w, data_[2 + c] * r);
  }

  /// Takes in `count` keys; value j stands at values + j · stride.
  void push_block(T const* scores, T const* values, index count, index stride) {
    for (index j = 0; j < count; ++j)
      push(scores[j], values + j * stride);
  }

  /// Takes in another state over other keys.
  /// @throws argument_error if dim_v or entropy differ
  void merge(softmax_state const& other) {
    detail::expect(other.dim_v_ == dim_v_ && other.entropy_ == entropy_,
                   "softmax_state: merge must be with a state of the same shape, dim_v ", dim_v_, ", got ",
                   other.dim_v_);
    T none = T(0), other_none = T(0);
    merge_states(data_[0], data_[1], entropy_ ? spread_sum() : none, data_ + 2, other.data_[0], other.data_[1],
                 entropy_ ? other.spread_sum() : other_none, other.data_ + 2, dim_v_, log2_e<T>);
  }

  /// out = acc / l, zeros for a row that saw nothing.
  void finish(T* out) const {
    T const l = data_[1];
    for (index c = 0; c < dim_v_; ++c)
      out[c] = l == T(0) ? T(0) : data_[2 + c] / l;
  }

  /// ln Σ e^s; −inf for a row that saw nothing.
  T lse() const { return data_[0] + std::log(data_[1]); }

  /// In nats, never below 0; 0 for a row that saw nothing. Only where the state was made with entropy.
  /// @throws argument_error otherwise
  T entropy() const {
    detail::expect(entropy_, "softmax_state: entropy must be asked for when the state is made");
    return finished_entropy<T>(data_[1], spread_sum(), T(1));
  }

 private:
  T& spread_sum() const { return data_[2 + dim_v_]; }

  T* data_;
  index dim_v_;
  bool entropy_;
};

namespace impl {

/// One element of a tensor of up to four dimensions, by its row-major number.
inline index_array<4> place_of(index_array<4> const& extents, index number) {
  index_array<4> at{};
  for (std::size_t r = 4; r-- > 0;) {
    at[r] = number % extents[r];
    number /= extents[r];
  }
  return at;
}

inline void expect_same(char const* what, index_array<4> const& got, index_array<4> const& expected) {
  for (std::size_t r = 0; r < 4; ++r)
    detail::expect(got[r] == expected[r], "merge: ", what, " must have out_a's extents, ", expected[r],
                   " at dimension ", r, ", got ", got[r]);
}

/// The shares of two finished rows in their union, by their lse.
template <real T>
struct joined_row {
  bool first_is_greater;
  T greater, less;  // shares; both 0 where neither row saw anything
  double lse;

  joined_row(double lse_a, double lse_b) : first_is_greater(!(lse_a < lse_b)) {
    double const top = first_is_greater ? lse_a : lse_b, safe = safe_maximum<double>(top);
    double const e = std::exp(top - safe), rest = std::exp((first_is_greater ? lse_b : lse_a) - safe), sum = e + rest;
    greater = static_cast<T>(sum == 0 ? 0 : e / sum);
    less = static_cast<T>(sum == 0 ? 0 : rest / sum);
    lse = sum == 0 ? top : top + std::log(sum);
  }

  /// One fixed form for both orders; a row without a share is not even looked at.
  T operator()(T a, T b) const {
    T const great = first_is_greater ? a : b, small = first_is_greater ? b : a;
    if (greater == T(0))
      return T(0);
    return less == T(0) ? great : heed::fma(small, less, great * greater);
  }
};

}  // namespace impl

/// Joins the finished results of two calls over disjoint keys of the same queries:
///
///     lse = ln(e^lse_a + e^lse_b),   out = e^(lse_a − lse) out_a + e^(lse_b − lse) out_b
///
/// - out_a, out_b, out: rank 2 to 4 `[…, q_len, dim_v]`, any storage, any strides; lse_a, lse_b, lse: one rank less,
///   float or double (for rank 2 an Eigen vector will do). `out` and `lse` may be out_a and lse_a, or out_b and lse_b.
/// - A row that saw nothing on one side (lse −inf) takes the other's result bit for bit; on both, it is 0 and −inf.
/// - Give `sink_logits` in exactly one of the calls.
/// @throws argument_error for extents that differ
/// @see formulas A1
template <class OutA, class LseA, class OutB, class LseB, class Out, class Lse>
void merge(OutA const& out_a, LseA const& lse_a, OutB const& out_b, LseB const& lse_b, Out&& out, Lse&& lse) {
  operand const a = make_operand(as_view(out_a)), b = make_operand(as_view(out_b));
  auto const results = as_view(std::forward<Out>(out));
  using T = arithmetic_t<typename decltype(results)::value_type>;
  operand const to = make_operand(results);
  impl::expect_same("out_b", b.extents, a.extents);
  impl::expect_same("out", to.extents, a.extents);
  index const rows = a.extents[0] * a.extents[1] * a.extents[2], n = a.extents[3];
  auto const per_row = [&](operand x, char const* what) {
    if (x.extents[2] == a.extents[2] && x.extents[3] == 1) {  // an Eigen column
      std::swap(x.extents[2], x.extents[3]);
      std::swap(x.strides[2], x.strides[3]);
    }
    impl::expect_same(what, {1, x.extents[1], x.extents[2], x.extents[3]},
                      {1, a.extents[0], a.extents[1], a.extents[2]});
    return x;
  };
  operand const la = per_row(make_operand(as_view(lse_a)), "lse_a"),
                lb = per_row(make_operand(as_view(lse_b)), "lse_b");
  row_output const sums = make_row_output(as_view(std::forward<Lse>(lse)));
  operand const ls = per_row(make_operand(as_view(lse)), "lse");
  for (index row = 0; row < rows; ++row) {
    auto const at = impl::place_of({1, a.extents[0], a.extents[1], a.extents[2]}, row);
    impl::joined_row<T> const joined(la(0, at[1], at[2], at[3]), lb(0, at[1], at[2], at[3]));
    for (index c = 0; c < n; ++c) {
      T const value = joined(static_cast<T>(a(at[1], at[2], at[3], c)), static_cast<T>(b(at[1], at[2], at[3], c)));
      store_row(&value, 1, const_cast<std::byte*>(to.at(at[1], at[2], at[3], c)), to.kind, 1);
    }
    row_output place = sums;
    place.data += (at[1] * ls.strides[1] + at[2] * ls.strides[2] + at[3] * ls.strides[3]) * size_of(sums.kind);
    place.store(0, 0, 0, joined.lse);
  }
}

HEED_ISA_END
}  // namespace heed
