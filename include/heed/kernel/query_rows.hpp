#pragma once

#include <heed/kernel/load.hpp>
#include <heed/kernel/problem.hpp>
#include <heed/kernel/rotate.hpp>

#include <algorithm>
#include <optional>

namespace heed {
HEED_ISA_BEGIN

/// Loads query rows one by one, turned for one product of the position code. Rows of one position share its angles, which
/// take as long as reading 20 keys.
template <real T>
class query_rows {
 public:
  /// @param turning scratch of a rotator, where positions turn queries
  query_rows(problem<T> const& p, position_code::product which, std::byte* turning)
      : call_(p), which_(which), room_(turning) {}

  /// Row i of a head, which stands at `position`, and 0 up to `padded` channels.
  void load(index batch, index head, index i, index position, T* row, index padded) {
    operand const& q = call_.q;
    load_rows(q.at(batch, head, i, 0), q.kind, q.strides[2], q.strides[3], 1, call_.dim, row, padded);
    if (call_.position.rotates()) {
      if (!turning_)
        turning_.emplace(call_.position.query_rotation(which_), room_);
      turning_->seek(call_.position.query_turn(which_, position));
      turning_->rotate(row);
    }
    std::fill(row + call_.dim, row + padded, T(0));
  }

 private:
  problem<T> const& call_;
  position_code::product which_;
  std::byte* room_;
  std::optional<rotator<T>> turning_;
};

HEED_ISA_END
}  // namespace heed
