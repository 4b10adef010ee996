#pragma once

#include <heed/core/amx.hpp>
#include <heed/kernel/load.hpp>
#include <heed/kernel/tile.hpp>
#include <heed/kernel/turners.hpp>

/// Keys as tiles take them: rows of bfloat16, sixteen at a time.

namespace heed {
HEED_ISA_BEGIN

/// Whether keys are made in float for a product before tiles take them, and rounded.
template <real T>
bool rounds_keys(problem<T> const& p, position_code::product which) {
  return p.position.turns_keys(which) || p.k.kind != scalar_kind::bfloat16;
}
template <real T>
bool rounds_keys(problem<T> const& p) {
  return rounds_keys(p, position_code::near) || (p.position.has_far() && rounds_keys(p, position_code::far));
}

#if defined(HEED_HAS_AMX)

namespace impl {

/// n floats rounded to bfloat16, to nearest even, and 0 up to the end of a step of 32 channels.
inline Eigen::bfloat16 const* rounded_row(float const* row, index n, Eigen::bfloat16* to) {
  for (index c = 0; c < n; c += tile_pairs) {
    batch<float> const first = load_or_zero(row + c, n - c),
                       second = load_or_zero(row + c + tile_size, n - c - tile_size);
    _mm512_storeu_si512(to + c, std::bit_cast<__m512i>(_mm512_cvtne2ps_pbh(second.data, first.data)));
  }
  return to;
}

}  // namespace impl

/// The keys of one block in groups of 16, for each product of the position code: where they lie, if they are whole groups of
/// bfloat16s that tiles can read there, else turned as the product asks, and rounded, all groups of the block on first use.
class tile_keys {
 public:
  /// 16 rows of `padded_dim` bfloat16s, `stride` bytes apart.
  struct group {
    std::byte const* data;
    index stride;
  };

  tile_keys() = default;

  /// @param most the most keys of a block, in whole steps
  /// @param wide room for 16 rows of `padded_dim` floats, used while a block is taken only
  tile_keys(arena& scratch, problem<float> const& p, turners<float>* turning, index most, float* wide)
      : call_(&p), turning_(turning), wide_(wide) {
    for (position_code::product which : {position_code::near, position_code::far}) {
      if (which == position_code::far && !p.position.has_far())
        break;
      piece& to = pieces_[which];
      to.rows = readable(p.k) && !rounds_keys(p, which) ? impl::tile_pairs : most;
      to.data = scratch.take<Eigen::bfloat16>(to.rows * padded_dim(p));
    }
  }

  static index padded_dim(problem<float> const& p) { return round_up(p.dim, impl::tile_pairs); }

  /// Points at keys [block.begin, block.end) of one key head.
  void open(index batch, index head, key_range block) {
    batch_ = batch;
    head_ = head;
    block_ = block;
    pieces_[0].ready = pieces_[1].ready = false;
  }

  /// Keys 16 g and on of the block, 0 behind its end. Good until the next block is opened.
  HEED_ALWAYS_INLINE group at(position_code::product which, index g) {
    piece& x = pieces_[which != position_code::near];
    if (!std::exchange(x.ready, true))
      take(x, which);
    return x.groups[g];
  }

 private:
  struct piece {
    group groups[static_cast<std::size_t>(key_block_on_tiles / impl::tile_size)];
    bool ready = false;
    Eigen::bfloat16* data = nullptr;  // [rows][padded dim] of those that are not read in place
    index rows = 0;                   // of a block, or of its last step only
  };

  /// Where the rows of a group come from: the call's keys, or a cache's ring of near keys, which are turned already.
  struct source {
    operand const* rows;
    index row, count;
    bool turns;
  };

  source source_of(position_code::product which, index g) const {
    position_code const& code = call_->position;
    index const first = std::min(block_.begin + g * impl::tile_size, block_.end);
    index const count = std::min(impl::tile_size, block_.end - first);
    if (which == position_code::near && code.near_keys && first >= code.near_begin)
      return {&code.near_keys, first % code.near_rows, count, false};
    return {&call_->k, first, count, code.turns_keys(which)};
  }

  /// Whether tiles can read rows of this storage where they lie.
  bool readable(operand const& x) const {
    return x.kind == scalar_kind::bfloat16 && x.strides[3] == 1 && call_->dim % impl::tile_pairs == 0;
  }
  bool in_place(source const& from) const {
    return from.count == impl::tile_size && !from.turns && readable(*from.rows);
  }

  HEED_NOINLINE void take(piece& x, position_code::product which) {
    index const ld = padded_dim(*call_),
                groups = round_up(block_.end - block_.begin, impl::tile_pairs) / impl::tile_size;
    for (index g = 0; g < groups; ++g) {
      source const from = source_of(which, g);
      if (in_place(from)) {
        x.groups[g] = {from.rows->at(batch_, head_, from.row, 0), 2 * from.rows->strides[2]};
      } else {
        Eigen::bfloat16* const to = x.data + g * impl::tile_size % x.rows * ld;
        copy(which, from, to);
        x.groups[g] = {reinterpret_cast<std::byte const*>(to), 2 * ld};
      }
    }
  }

  /// One group, so that what lies between reading and rounding stays in the first-level cache.
  void copy(position_code::product which, source const& from, Eigen::bfloat16* to) {
    index const ld = padded_dim(*call_), count = from.count;
    load_rows(*from.rows, batch_, head_, from.row, count, call_->dim, wide_, ld);
    if (from.turns) {
      auto const position = [&](index i) { return call_->position.key_turn(which, from.row + i); };
      turning_->keys(which).rotate_rows(count, position, wide_, ld, wide_, ld);
    }
    for (index i = 0; i < count; ++i)
      impl::rounded_row(wide_ + i * ld, call_->dim, to + i * ld);
    std::fill_n(to + count * ld, (impl::tile_size - count) * ld, Eigen::bfloat16{});
  }

  problem<float> const* call_ = nullptr;
  turners<float>* turning_ = nullptr;
  float* wide_ = nullptr;
  index batch_ = 0, head_ = 0;
  key_range block_;
  piece pieces_[2];
};

#endif

HEED_ISA_END
}  // namespace heed
