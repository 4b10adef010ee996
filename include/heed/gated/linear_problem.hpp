#pragma once

#include <heed/gated/linear_modifiers.hpp>
#include <heed/kernel/problem.hpp>

/// What the fold hands to linear attention's pass.

namespace heed {
HEED_ISA_BEGIN

/// One call of linear attention, folded.
template <real T>
struct linear_problem {
  index batch = 0, heads_q = 0, heads_kv = 0, q_len = 0, kv_len = 0, dim = 0, features = 0, dim_v = 0;
  operand q, k, v;  // [batch, heads, len, channels]
  row_sink out;
  bool causal = false, normalized = true;
  double scale = 1;
  std::optional<index> offset;
  number_list offsets, lengths;
  number_list decay;  // per key head
  operand log_decay;  // [batch, heads_kv, kv_len, 1 or features]
  operand delta;      // [batch, heads_kv, kv_len, 1]
  operand state_in;   // [batch, heads_kv, features, dim_v]
  operand sums_in;    // [1, batch, heads_kv, features]
  row_sink state_out, sums_out;
  operand gate;  // [batch, heads_q, q_len, dim_v]
  bool turns = false;
  rotation turn{nullptr, 0, 1, false};
  index keys_before = 0;

  // Mixed chunk attention: rows see the chunks before their own, and are added to what out holds.
  index chunk = 0;  // 0: rows see all keys up to themselves
  bool per_token = true;
  double factor = 1;  // where not per token

  bool by_rows() const {
    return delta || (log_decay && log_decay.extents[3] > 1) || (causal && chunk == 0 && kv_len <= few_rows);
  }
  index keys_of(index b) const { return lengths ? lengths.whole(b) : kv_len; }
  index offset_of(index b) const { return offset ? *offset : offsets ? offsets.whole(b) : keys_of(b) - q_len; }
};

/// How a call is cut: by shape alone.
struct linear_shape {
  index panels = 1;  // of a column block
  index column_blocks = 1;
  index tasks = 0;
  std::size_t scratch = 0;  // bytes a worker
};

HEED_ISA_END
}  // namespace heed
