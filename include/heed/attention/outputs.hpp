#pragma once

#include <heed/attention/modifiers.hpp>
#include <heed/core/amx.hpp>
#include <heed/core/executor.hpp>
#include <heed/core/workspace.hpp>

/// What leaves a call besides `out`, and where it runs.

namespace heed {
HEED_ISA_BEGIN

/// One extra logit per query head in the softmax denominator only.
template <class Held = borrowed>
struct sink_logits {
  static constexpr auto kind = family::sink_logits;

  template <class Range>
    requires(!std::same_as<std::remove_cvref_t<Range>, sink_logits>)
  explicit sink_logits(Range&& per_head) : heads(per_head) {}

  void describe(description& d) const { d.sink_logits = heads; }

  number_list heads;
};
template <class Range>
sink_logits(Range&&) -> sink_logits<impl::lifetime_of<Range>>;

/// `out = u ⊙ result`, u broadcast to out's shape `[batch, heads_q, q_len, dim_v]`; u may be out itself. An empty row
/// is 0 even where u is not finite.
template <class Held = borrowed>
struct gate {
  static constexpr auto kind = family::gate;

  template <class Tensor>
    requires(!std::same_as<std::remove_cvref_t<Tensor>, gate>)
  explicit gate(Tensor&& factors) : values(make_operand(as_view(factors))) {
    static_assert(storage_scalar<typename decltype(as_view(factors))::value_type>,
                  "heed: a gate holds float, double, Eigen::half or Eigen::bfloat16");
  }

  void describe(description& d) const { d.gate = values; }

  operand values;
};
template <class Tensor>
gate(Tensor&&) -> gate<impl::lifetime_of<Tensor>>;

/// Writes `ln Σ e^s` of every row, the sink included, as the scores enter the softmax; −inf for an empty row.
/// float or double, `[batch, heads_q, q_len]`; leading dimensions of 1 may be left out.
template <class Held = borrowed>
struct lse {
  static constexpr auto kind = family::lse;

  template <class Tensor>
    requires(!std::same_as<std::remove_cvref_t<Tensor>, lse>)
  explicit lse(Tensor&& rows) : values(make_row_output(as_view(std::forward<Tensor>(rows)))) {}

  void describe(description& d) const { d.lse = values; }

  row_output values;
};
template <class Tensor>
lse(Tensor&&) -> lse<impl::lifetime_of<Tensor>>;

/// Writes the entropy, in nats, of every row's distribution over visible keys and the sink; 0 for an empty row.
/// Shape as for `lse`.
template <class Held = borrowed>
struct entropy {
  static constexpr auto kind = family::entropy;

  template <class Tensor>
    requires(!std::same_as<std::remove_cvref_t<Tensor>, entropy>)
  explicit entropy(Tensor&& rows) : values(make_row_output(as_view(std::forward<Tensor>(rows)))) {}

  void describe(description& d) const { d.entropy = values; }

  row_output values;
};
template <class Tensor>
entropy(Tensor&&) -> entropy<impl::lifetime_of<Tensor>>;

/// Where to run: any `executor`, kept by reference if it is a variable, by value if it is a temporary.
template <class E>
struct on {
  static constexpr auto kind = family::executor;

  static_assert(executor<std::remove_cvref_t<E>>, "heed: on{…} takes an executor (concurrency() and run(n, f))");

  explicit on(E e) : place(static_cast<E>(e)) {}

  E place;
};
template <class E>
on(E&) -> on<E&>;
template <class E>
  requires(!std::is_lvalue_reference_v<E>)
on(E&&) -> on<E>;

/// Scratch to reuse; see `workspace_bytes`. It must outlive the call.
struct with {
  static constexpr auto kind = family::workspace;

  explicit with(workspace& w) : scratch(&w) {}

  workspace* scratch;
};

/// Lets the products of a call run on AMX tiles, where the build has them and `enable_amx` got the system's permission;
/// else the call runs as it would without, and `explain` says why.
///
///     auto const permit = heed::enable_amx();
///     heed::attention(q, k, v, out, heed::with_amx{permit});
///
/// A key head has rows = q_len · heads_q / heads_kv.
///
/// - rows > 8, q of bfloat16, k and v of bfloat16 or int8: both products. Weights are rounded to bfloat16 as they enter value
///   product and row sum, and so are queries and keys that a position code turns, and int8 codes times their scales; tiles
///   take subnormal numbers as 0.
/// - 2 ≤ rows ≤ 8 and keys or values of int8, with a scale a row, a multiple of 64 channels and 32 keys or more: the
///   product with each of them. Queries and weights are held to 2⁻²² of the greatest in their row, which keeps the bound of
///   float products; a row that is not finite is multiplied in float, alone.
/// - Scores, softmax and sums are float.
struct with_amx {
  static constexpr auto kind = family::amx;

  explicit with_amx(amx_permit p) : permit(p) {}

  void describe(description& d) const {
    d.amx = true;
    d.amx_granted = static_cast<bool>(permit);
  }

  amx_permit permit;
};

HEED_ISA_END
}  // namespace heed
