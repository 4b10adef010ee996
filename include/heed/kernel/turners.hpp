#pragma once

#include <heed/kernel/load.hpp>
#include <heed/kernel/problem.hpp>
#include <heed/kernel/rotate.hpp>

#include <algorithm>
#include <memory>
#include <optional>
#include <type_traits>

namespace heed {
HEED_ISA_BEGIN

/// The rotators of a worker, first in its scratch and kept from task to task: all heads turn by the same angles, and to begin
/// a rotator takes as long as to read 20 keys. Where keys stand at few positions all angles are kept.
template <real T>
class turners {
 public:
  /// Makes those of a worker, before its first task.
  static void begin(arena memory, problem<T> const& p) {
    static_assert(std::is_trivially_destructible_v<turners>);  // nobody would
    if (!p.position.rotates())
      return;
    auto* const place = memory.take<turners>(1);
    std::construct_at(place, turners(memory, p));
  }

  /// Where `begin` has made them; null where positions turn nothing.
  static turners* in(arena& memory, problem<T> const& p) {
    if (!p.position.rotates())
      return nullptr;
    auto* const place = memory.take<turners>(1);
    turners(memory, p);  // passes over the room of its rotators
    return place;
  }

  rotator<T>& queries(position_code::product which) {
    return at(which == position_code::near ? near : far_queries, call_->position.query_rotation(which));
  }
  rotator<T>& keys(position_code::product which) {
    return at(slot_of_keys(which), call_->position.key_rotation(which));
  }

 private:
  enum slot { near, far_queries, far_keys, near_of_far_keys, slots };

  turners(arena& memory, problem<T> const& p) : call_(&p) {
    take(memory, near, kept(p));
    if (!p.position.has_far())
      return;
    take(memory, far_queries, 0);
    for (position_code::product which : {position_code::near, position_code::far})
      if (slot const of = slot_of_keys(which); of != near && p.position.turns_keys(which))
        take(memory, of, 0);
  }

  /// Keys turn as queries do, unless a cache keeps them turned as far keys.
  slot slot_of_keys(position_code::product which) const {
    if (which != position_code::near)
      return far_keys;
    return call_->position.keys_turned ? near_of_far_keys : near;
  }

  /// How many positions are kept: all that keys have, if those are few and each is asked for by several heads.
  static index kept(problem<T> const& p) {
    index const positions = round_up<index>(p.kv_len, 16);
    index const asked = p.heads_q * p.q_len + (p.position.turns_keys(position_code::near) ? p.heads_kv * p.kv_len : 0);
    bool const few = rotator<T>::kept_bytes(p.position.turn, positions) <= most_kept_bytes;
    return few && p.batch * asked >= fewest_heads * positions ? positions : 0;
  }
  /// 128 positions of 64 pairs: 64 rows of eight heads then take 8 % less time with 128 channels, 3 % with 64; twice as many
  /// positions gain nothing, walking over them in registers takes no longer than reading them.
  static constexpr std::size_t most_kept_bytes = std::size_t{1} << 16;
  /// Four lose 2 %, eight gain (programs of both in turns, `heed_bench_rerope --benchmark_filter=prompt`).
  static constexpr index fewest_heads = 6;

  void take(arena& memory, slot which, index kept) {
    room_[which] = memory.take<std::byte>(static_cast<index>(rotator<T>::scratch_bytes(call_->position.turn, kept)));
    kept_[which] = kept;
  }

  rotator<T>& at(slot which, rotation const& by) {
    if (!rotators_[which])
      rotators_[which].emplace(by, room_[which], kept_[which]);
    return *rotators_[which];
  }

  problem<T> const* call_;
  std::byte* room_[slots] = {};
  index kept_[slots] = {};
  std::optional<rotator<T>> rotators_[slots];
};

/// Turns n rows of `dim` channels on their way to another place, or where they are.
template <real T, class Positions>
void turn_into(rotator<T>& by, index n, Positions const& position, tile_rows_at<T> from, T* to, index to_ld,
               index dim) {
  by.rotate_rows(n, position, from.data, from.ld, to, to_ld);
  index const turned = 2 * by.pairs();
  if (from.data != to && turned < dim)
    for (index i = 0; i < n; ++i)
      std::copy(from.data + i * from.ld + turned, from.data + i * from.ld + dim, to + i * to_ld + turned);
}

/// Row i of a head of q, which stands at `position`, turned for a product, and 0 up to `padded` channels.
template <real T>
void load_query(problem<T> const& p, turners<T>* turning, position_code::product which, index batch, index head,
                index i, index position, T* row, index padded) {
  load_rows(p.q.at(batch, head, i, 0), p.q.kind, p.q.strides[2], p.q.strides[3], 1, p.dim, row, padded);
  if (p.position.rotates()) {
    rotator<T>& by = turning->queries(which);
    by.seek(p.position.query_turn(which, position));
    by.rotate(row);
  }
  std::fill(row + p.dim, row + padded, T(0));
}

HEED_ISA_END
}  // namespace heed
