#pragma once

#include <heed/kernel/load.hpp>
#include <heed/kernel/prefetch.hpp>
#include <heed/kernel/turners.hpp>

namespace heed {
HEED_ISA_BEGIN

/// How the rows of a key block are read: every query of a block reads them again, or few rows read them once.
enum class widening { once, as_read };

/// The keys and values of one key block as rows: in the user's memory where its storage allows, else converted (and
/// turned) once into the worker's scratch, on first use, for every query that walks over the block. Storage that is
/// narrower than the arithmetic is converted for queries in lanes, and left to registers for few rows. Rows that lie far
/// apart are copied where many queries read them.
template <real T>
class key_tiles {
 public:
  key_tiles() = default;

  /// @param most the most keys of a block
  key_tiles(arena& scratch, problem<T> const& p, turners<T>* turning, index most, widening how = widening::once)
      : call_(&p), turning_(turning), how_(how) {
    for (int far = 0; far < (p.position.has_far() ? 2 : 1); ++far)
      if (converts_keys(p, far != 0, how))
        keys_[far].room = scratch.take<T>(most * padded(p.dim));
    if (!direct(p, p.v, how))
      values_.room = scratch.take<T>(most * padded(p.dim_v));
  }

  /// Points at keys [block.begin, block.end) of one key head; nothing is converted yet.
  void open(index batch, index head, key_range block) {
    batch_ = batch;
    head_ = head;
    block_ = block;
    keys_[0].ready = keys_[1].ready = values_.ready = false;
    finite_ = -1;
  }

  /// Row 0 is key block.begin; only keys from `used` on will be read.
  stored_rows_at stored_keys(position_code::product which, index used) {
    bool const far = which != position_code::near;
    piece& tile = keys_[far];
    position_code const& code = call_->position;
    if (!far && code.near_keys && used >= code.near_begin && direct(*call_, code.near_keys, how_))
      return ring_rows(used);
    if (!converts_keys(*call_, far, how_))
      return user_rows(call_->k);
    if (!tile.ready) {
      if (!call_->position.turns_keys(which)) {
        convert(call_->k, call_->dim, tile);
      } else if (in_place<T>(call_->k)) {
        turn(arithmetic(user_rows(call_->k)), tile, which);
      } else {
        convert(call_->k, call_->dim, tile);
        turn(arithmetic(converted(tile, call_->dim)), tile, which);
      }
    }
    return converted(tile, call_->dim);
  }
  stored_rows_at stored_values() {
    if (direct(*call_, call_->v, how_))
      return user_rows(call_->v);
    if (!values_.ready)
      convert(call_->v, call_->dim_v, values_);
    return converted(values_, call_->dim_v);
  }

  /// The same as arithmetic rows, for queries in lanes.
  tile_rows_at<T> keys(position_code::product which, index used) { return arithmetic(stored_keys(which, used)); }
  tile_rows_at<T> values() { return arithmetic(stored_values()); }

  /// The values of the `count` keys behind the block, as they lie in memory.
  lines_ahead values_behind(index count) const {
    operand const& v = call_->v;
    if (v.strides[3] != 1)
      return {};
    return {v.at(batch_, head_, block_.end, 0), v.strides[2] * size_of(v.kind), call_->dim_v * size_of(v.kind), count};
  }

  /// Whether all values of the block are finite; looked at once.
  bool values_finite() {
    if (finite_ < 0)
      finite_ = values_finite(0, block_.end - block_.begin) ? 1 : 0;
    return finite_ == 1;
  }

  /// The same for keys [begin, end) of the block.
  bool values_finite(index begin, index end) {
    stored_rows_at const v = stored_values().from(begin);
    if (v.scales != nullptr)  // codes are finite
      return all_finite(v.scales, v.scale_stride, end - begin);
    bool finite = true;
    with_stored<T>(v.data, v.kind, [&](auto const* p) { finite = all_finite(p, v.ld, end - begin, call_->dim_v); });
    return finite;
  }

  /// Whether rows are read where they lie.
  static bool direct(problem<T> const& p, operand const& x, widening how) {
    return how == widening::as_read ? in_registers<T>(x) : in_place<T>(x) && !copies(p, x);
  }
  /// Whether rows are only copied: heads side by side, 4 KiB or more from row to row, then cost 512 queries 12 to 20 % instead
  /// of 18 to 32, 2048 queries 8 to 13 % instead of 20 to 24; 128 queries, or rows of 2 KiB, lose 5 to 10 % by it
  /// (`heed_bench_attention --benchmark_filter=side_by_side`, old and new in turns).
  static bool copies(problem<T> const& p, operand const& x) {
    return p.q_len * p.group() >= 512 && in_place<T>(x) && far_apart(x);
  }
  static bool converts_keys(problem<T> const& p, bool far, widening how) {
    return !direct(p, p.k, how) || p.position.turns_keys(far ? position_code::far : position_code::near);
  }

 private:
  struct piece {
    T* room = nullptr;
    bool ready = false;
  };

  static index padded(index n) { return round_up<index>(n, lanes<T>); }

  static tile_rows_at<T> arithmetic(stored_rows_at const& x) { return {reinterpret_cast<T const*>(x.data), x.ld}; }

  stored_rows_at user_rows(operand const& x) const {
    stored_rows_at rows{x.at(batch_, head_, block_.begin, 0), x.strides[2], x.kind};
    if (x.scales != nullptr) {
      rows.scales = x.scale_at(batch_, head_, block_.begin, 0);
      rows.scale_stride = x.scale_strides[2];
    }
    rows.in_memory = call_->bytes_read() > cached_bytes;
    return rows;
  }
  static stored_rows_at converted(piece const& tile, index n) {
    return {reinterpret_cast<std::byte const*>(tile.room), padded(n), kind_of<T>()};
  }

  /// The ring holds every row twice, so that rows from any key on lie in a run.
  stored_rows_at ring_rows(index used) const {
    operand const& ring = call_->position.near_keys;
    index const row = used % call_->position.near_rows - (used - block_.begin);
    return {ring.at(batch_, head_, row, 0), ring.strides[2], ring.kind};
  }

  void convert(operand const& x, index n, piece& tile) {
    load_rows(x, batch_, head_, block_.begin, block_.end - block_.begin, n, tile.room, padded(n));
    tile.ready = true;
  }

  /// Turned rows, from where they are into the tile's room, which may be the same.
  void turn(tile_rows_at<T> from, piece& tile, position_code::product which) {
    auto const position = [&](index j) { return call_->position.key_turn(which, block_.begin + j); };
    turn_into(turning_->keys(which), block_.end - block_.begin, position, from, tile.room, padded(call_->dim),
              call_->dim);
    tile.ready = true;
  }

  problem<T> const* call_ = nullptr;
  turners<T>* turning_ = nullptr;
  widening how_ = widening::once;
  index batch_ = 0, head_ = 0;
  key_range block_;
  piece keys_[2], values_;
  int finite_ = -1;
};

HEED_ISA_END
}  // namespace heed
