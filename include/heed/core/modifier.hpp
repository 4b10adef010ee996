#pragma once

/// The plain names by which modifiers sort themselves: what a header below attention/ needs to be one.

namespace heed {

/// When a score map acts. Within a stage, maps act in the alphabetical order of their types' names.
enum class score_stage { softcap, bias, function, mask };

/// At most one modifier of a family in a call; `mask`, `bias` and `user` are free.
enum class family {
  offset,
  causal,
  window,
  sink_tokens,
  lengths,
  segments,
  mask,
  scale,
  row_scale,
  softcap,
  bias,
  alibi,
  relative_bias,
  score,
  position,
  normalizer,
  sink_logits,
  gate,
  lse,
  entropy,
  executor,
  workspace,
  amx,
  user
};

// Whether a modifier refers to memory that lasts (a variable, a view) or dies with the full expression (a temporary
// container): the latter must not be stored in a set.
struct borrowed {};
struct temporary {};

}  // namespace heed
