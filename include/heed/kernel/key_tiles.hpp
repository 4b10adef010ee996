#pragma once

#include <heed/kernel/load.hpp>
#include <heed/kernel/problem.hpp>

#include <optional>

namespace heed {
HEED_ISA_BEGIN

/// Rows of numbers that a product can read: where, and how far apart.
template <real T>
struct tile_rows_at {
  T const* data = nullptr;
  index ld = 0;
};

/// The keys and values of one key block as arithmetic rows: in the user's memory where its storage allows, else
/// converted (and turned) once into the worker's scratch, on first use, for every query that walks over the block.
template <real T>
class key_tiles {
 public:
  key_tiles() = default;

  /// @param most the most keys of a block
  key_tiles(arena& scratch, problem<T> const& p, index most) : call_(&p) {
    for (int far = 0; far < (p.position.has_far() ? 2 : 1); ++far)
      if (converts_keys(p, far != 0)) keys_[far].room = scratch.take<T>(most * padded(p.dim));
    if (!in_place<T>(p.v)) values_.room = scratch.take<T>(most * padded(p.dim_v));
    for (int far = 0; far < (p.position.has_far() ? 2 : 1); ++far)
      if (p.position.turns_keys(far != 0 ? position_code::far : position_code::near))
        turning_[far] = scratch.take<std::byte>(static_cast<index>(rotator<T>::scratch_bytes(p.position.turn.pairs)));
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
  tile_rows_at<T> keys(position_code::product which, index used) {
    bool const far = which != position_code::near;
    piece& tile = keys_[far];
    position_code const& code = call_->position;
    if (!far && code.near_keys && used >= code.near_begin && in_place<T>(code.near_keys)) return ring_rows(used);
    if (!converts_keys(*call_, far)) return user_rows(call_->k);
    if (!tile.ready) {
      convert(call_->k, call_->dim, tile);
      if (call_->position.turns_keys(which)) turn(tile, which);
    }
    return {tile.room, padded(call_->dim)};
  }

  tile_rows_at<T> values() {
    if (in_place<T>(call_->v)) return user_rows(call_->v);
    if (!values_.ready) convert(call_->v, call_->dim_v, values_);
    return {values_.room, padded(call_->dim_v)};
  }

  /// Whether all values of the block are finite; looked at once.
  bool values_finite() {
    if (finite_ < 0) {
      tile_rows_at<T> const v = values();
      finite_ = all_finite(v.data, v.ld, block_.end - block_.begin, call_->dim_v) ? 1 : 0;
    }
    return finite_ == 1;
  }

  static bool converts_keys(problem<T> const& p, bool far) {
    return !in_place<T>(p.k) || p.position.turns_keys(far ? position_code::far : position_code::near);
  }

 private:
  struct piece {
    T* room = nullptr;
    bool ready = false;
  };

  static index padded(index n) { return round_up<index>(n, lanes<T>); }

  tile_rows_at<T> user_rows(operand const& x) const {
    return {reinterpret_cast<T const*>(x.at(batch_, head_, block_.begin, 0)), x.strides[2]};
  }

  /// The ring holds every row twice, so that rows from any key on lie in a run.
  tile_rows_at<T> ring_rows(index used) const {
    position_code const& code = call_->position;
    index const ld = code.near_keys.strides[2], row = used % code.near_rows - (used - block_.begin);
    return {reinterpret_cast<T const*>(code.near_keys.at(batch_, head_, 0, 0)) + row * ld, ld};
  }

  void convert(operand const& x, index n, piece& tile) {
    load_rows(x.at(batch_, head_, block_.begin, 0), x.kind, x.strides[2], x.strides[3], block_.end - block_.begin, n,
              tile.room, padded(n));
    tile.ready = true;
  }

  void turn(piece& tile, position_code::product which) {
    bool const far = which != position_code::near;
    std::optional<rotator<T>>& turning = rotators_[far];
    if (!turning) turning.emplace(call_->position.key_rotation(), turning_[far]);
    index const ld = padded(call_->dim);
    for (index j = block_.begin; j < block_.end; ++j) {
      turning->seek(call_->position.key_turn(which, j));
      turning->rotate(tile.room + (j - block_.begin) * ld);
    }
  }

  problem<T> const* call_ = nullptr;
  index batch_ = 0, head_ = 0;
  key_range block_;
  piece keys_[2], values_;
  std::byte* turning_[2] = {};
  std::optional<rotator<T>> rotators_[2];
  int finite_ = -1;
};

HEED_ISA_END
}  // namespace heed
