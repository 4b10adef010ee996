#pragma once

#include <heed/kernel/key_tiles.hpp>
#include <heed/kernel/query_block.hpp>
#include <heed/kernel/tile_products.hpp>

#include <memory>
#include <type_traits>

/// What the pass with queries in lanes is given to work in.

namespace heed {
HEED_ISA_BEGIN

/// Everything a worker needs for one task, laid out in its scratch.
template <real T>
struct pass_scratch {
  query_block<T>* blocks = nullptr;
  query_packer<T> packer;
  row_writer<T> writer;
  key_tiles<T> tiles;
  tile_products products;         // where the call is on tiles
  weighed_keys<T> weighed;        // where one tile holds all keys
  T* s = nullptr;                 // [key][lane] scores, then weights
  T* far_s = nullptr;             // a second product of a part
  T* maximum = nullptr;           // [lane] of the tile
  T* rescale = nullptr;           // [lane]
  std::uint64_t* seen = nullptr;  // [tile][key]
  T* strip = nullptr;
  T* square = nullptr;

  pass_scratch(arena& memory, problem<T> const& p, index count) {
    constexpr index width = block_lanes<T>;
    index const most = std::min(p.keys_at_once(), std::max<index>(p.kv_len, 1));
    static_assert(std::is_trivially_destructible_v<query_block<T>>);  // nobody would
    turners<T>* const turning = turners<T>::in(memory, p);
    blocks = memory.take<query_block<T>>(count);
    for (index i = 0; i < count; ++i) {
      query_block<T> const block(memory, p);
      if (memory)
        std::construct_at(blocks + i, block);
    }
    if (!p.on_tiles)
      tiles = key_tiles<T>(memory, p, turning, most);
    index const rows = p.on_tiles ? round_up(most, impl::tile_pairs) : most;
    s = memory.take<T>(std::max(rows * width, rows_at_once(p)));  // before and after the scores, rows pass through
    packer = query_packer<T>(p, turning, s);
    writer = p.in_one_tile() ? row_writer<T>(memory, p) : row_writer<T>(memory, p, s);
    if constexpr (has_tiles<T>)
      if (p.on_tiles)
        products = tile_products(memory, p, turning, most);
    if (p.position.has_far())
      far_s = memory.take<T>((p.on_tiles ? impl::tile_pairs : most) * width);
    seen = memory.take<std::uint64_t>(most * register_tile<T>::side_by_side);
    if (p.additive()) {
      strip = memory.take<T>(lanes<T> * lanes<T>);
      square = memory.take<T>(lanes<T> * (lanes<T> + 1));
    }
    maximum = memory.take<T>(width);
    rescale = memory.take<T>(width);
  }

  static std::size_t bytes(problem<T> const& p, index count) {
    arena counting;
    pass_scratch(counting, p, count);
    return counting.used();
  }
};

HEED_ISA_END
}  // namespace heed
