#pragma once

#include <heed/kernel/pass_scratch.hpp>

namespace heed {
HEED_ISA_BEGIN

/// How a call with queries in lanes is cut into tasks. Lanes of a block hold rows of a set of `heads` query heads; a task has
/// blocks of one set, or of several that share what is made of keys and values. The cut may depend on how many workers there
/// are only where bits do not depend on it: on tiles with a window they would, and there it goes by the call alone.
template <real T>
struct pass_shape {
  index blocks = 1;         // query blocks that walk together
  index heads = 1;          // query heads that share a block: a set
  index head_sets = 1;      // runs of sets that walk together, per key head
  index super_blocks = 1;   // parts of such a run
  std::size_t scratch = 0;  // bytes a worker

  index tasks(problem<T> const& p) const { return p.batch * p.heads_kv * head_sets * super_blocks; }

  /// @param concurrency how many workers want tasks; no bit of a result tells
  static pass_shape of(problem<T> const& p, int concurrency) {
    pass_shape s;
    s.heads = p.q_len < width && !p.distinct_heads ? p.group() : 1;
    s.head_sets = p.group() / s.heads;
    index const rows = p.q_len * s.heads, needed = (rows + width - 1) / width;
    std::size_t const none = pass_scratch<T>::bytes(p, 0), one = pass_scratch<T>::bytes(p, 1) - none;
    auto const fitting = static_cast<index>((scratch_limit - std::min(scratch_limit, none)) / one);
    index const usual = p.on_tiles ? most_blocks_on_tiles : most_blocks<T>;
    bool const converts = p.on_tiles ? rounds_keys(p) : shares(p);
    bool const near = !shares(p) && p.kv_len * (p.dim + p.dim_v) * index{sizeof(T)} <= near_bytes;
    index const most = converts && p.q_len * p.group() >= long_prompt ? 2 * usual : usual;
    s.blocks = std::max<index>(1, std::min({fitting, p.additive() && near ? most_blocks_on_planes<T> : most, needed}));
    // On tiles, steps of 32 keys begin where a task's window does: what shares a task would show in the bits.
    bool const joins = !near && s.head_sets > 1 && !(p.on_tiles && p.said.left != unbounded);
    if (rows <= short_prompt && !shares(p) && !joins && none + one <= HEED_STACK_SCRATCH_BYTES)
      s.blocks = std::min(s.blocks, static_cast<index>((HEED_STACK_SCRATCH_BYTES - none) / one));
    s.super_blocks = (needed + s.blocks - 1) / s.blocks;
    if (s.super_blocks > 1)  // tasks of one length
      s.blocks = (needed + s.super_blocks - 1) / s.super_blocks;
    if (joins && s.super_blocks == 1)
      s.join_sets(p, std::max<index>(1, std::min(fitting, most) / s.blocks), concurrency);
    s.scratch = none + static_cast<std::size_t>(s.blocks) * one;
    return s;
  }

  /// The cut with one block of one head a task, in the order of rows.
  static pass_shape one_block(problem<T> const& p) {
    pass_shape s;
    s.head_sets = p.group();
    s.super_blocks = (p.q_len + width - 1) / width;
    s.scratch = pass_scratch<T>::bytes(p, 1);
    return s;
  }

 private:
  static constexpr index width = block_lanes<T>;
  /// Up to this many rows an allocation shows, at 64 channels 4 % of the call: their blocks walk together only as far
  /// as they fit the stack.
  static constexpr index short_prompt = 128;
  /// From this many on, twice as many blocks walk together where keys or values are converted: rotary then costs 5 %
  /// instead of 7, on tiles with 64 channels 12 to 19 % instead of 18 to 25 (programs of both in turns).
  static constexpr index long_prompt = 2048;
  /// Sets of heads join in a task only as long as each of several workers has so many tasks: whoever ends last then keeps
  /// the others waiting for a quarter of its work at most.
  static constexpr index tasks_a_worker = 4;

  /// Whether blocks that walk together share what is made of keys or values.
  static bool shares(problem<T> const& p) {
    return p.on_tiles || key_tiles<T>::converts_keys(p, false, widening::once) ||
           !key_tiles<T>::direct(p, p.v, widening::once);
  }

  /// Up to `most` sets of a group, each of `blocks` blocks, walk over their keys together: 64 rows of 32 heads on eight, 2048
  /// keys of 128 channels, then take 2 to 7 % less time, beside 8192 keys 20 %; where int8 is widened 17 %, on tiles 45 %
  /// (programs with and without, in turns).
  void join_sets(problem<T> const& p, index most, int concurrency) {
    index const sets = head_sets, pairs = std::max<index>(1, p.batch * p.heads_kv);
    index const wanted = concurrency > 1 ? tasks_a_worker * concurrency : 1;
    index const joined = std::clamp<index>(pairs * sets / wanted, 1, std::min(most, sets));
    head_sets = (sets + joined - 1) / joined;
    blocks *= (sets + head_sets - 1) / head_sets;
  }
};

HEED_ISA_END
}  // namespace heed
