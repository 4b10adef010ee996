#pragma once

#include <heed/core/simd.hpp>
#include <heed/core/view.hpp>

#include <algorithm>

namespace heed {
HEED_ISA_BEGIN

/// The register tile of the products: `rows × vectors` accumulators, vectors running along the lanes.
///
/// Rule: rows·vectors accumulators + vectors operands + 1 broadcast (+ 1 temporary without FMA) fit the register file;
/// at least 8 accumulators, to cover two FMA pipes of latency 4; loads per FMA, 1/rows + 1/vectors, as few as possible.
/// Measured by `heed_bench_attention --benchmark_filter=prefill`: AVX-512 6×4 equals 8×3 and beats 12×2 by 4–13 %;
/// AVX2 6×2 beats 4×3 by 4 %; SSE2 2×4 beats 4×2 by 8 %.
template <real T>
struct register_tile {
#if defined(__AVX512F__) || defined(__aarch64__)
  static constexpr int rows = 6, vectors = 4, side_by_side = 1;
#elif defined(__AVX__)
  static constexpr int rows = 6, vectors = 2, side_by_side = 2;
#else
  static constexpr int rows = 2, vectors = 4, side_by_side = 1;
#endif
};

/// Lanes across it: queries, or channels (value_rows.hpp).
template <real T>
inline constexpr int tile_lanes{register_tile<T>::vectors * lanes<T>};

/// Lane vectors of a block. Under AVX2 two register tiles stand side by side: keys and values, which come from the
/// second-level cache, then serve 32 queries instead of 16, a gain of 3 to 5 %. With four of them 256 channels lose
/// 3 %, since their queries no longer fit the first-level cache.
template <real T>
inline constexpr int block_vectors{register_tile<T>::vectors * register_tile<T>::side_by_side};

/// Queries of a block: one per lane.
template <real T>
inline constexpr int block_lanes{block_vectors<T> * lanes<T>};

/// Keys of a block. Under AVX-512, 128 gain 1 to 2 % over 96, and 112 to 168 are equal: with 64 lanes the score tile is
/// 32 KiB, which leaves room for the keys in the first-level cache; with the narrower blocks of the others 96 are best.
/// Blocks start at absolute multiples of it, so that a row's rounding does not depend on where its neighbours' windows
/// begin.
#if defined(__AVX512F__)
inline constexpr index key_block = 128;
#else
inline constexpr index key_block = 96;
#endif
/// The same where there are no more than two of them: with up to 64 channels the scratch of a short prompt then fits
/// the stack.
inline constexpr index short_key_block = 96;
/// The same on AMX tiles, whose products are so fast that loading and storing the accumulators shows: 256 keys take a
/// sixth off the whole (`heed_bench_attention --benchmark_filter=amx`).
inline constexpr index key_block_on_tiles = 256;
/// The most keys that stand in one tile where a call has no more (value_rows.hpp): with up to 64 channels the scratch of
/// 128 rows still fits the stack. They then take, causal, 16 % less time, full 3 to 4 %; under AVX2 9 and 3 %
/// (`heed_bench_attention --benchmark_filter=prefill/dim64_128`, with and without in turns).
inline constexpr index keys_in_one_tile = 128;
inline constexpr index most_keys = std::max({key_block, keys_in_one_tile, key_block_on_tiles});

/// Sums over very many keys lose digits to rounding: beyond this many, what has been summed so far is set aside and
/// joined in the end. With 16 blocks the copies are below 0.3 % of the products, and the error of 100 000 keys falls to
/// that of a few thousand. A multiple of the key blocks, so that a row's rounding does not depend on its neighbours.
inline constexpr index era_keys = 16 * key_block;
static_assert(era_keys % key_block_on_tiles == 0);

/// Query blocks that walk over the keys together (`pass_shape` may double them), sharing what is made of a key block.
/// One copy per 256 queries costs under 5 %, per 64 queries 8–11 %.
template <real T>
inline constexpr int most_blocks = 256 / block_lanes<T> < 1 ? 1 : 256 / block_lanes<T>;

/// The same where biases or masks are read beside keys and values of at most `near_bytes`, which stay in a second-level
/// cache of 2 MiB: the rows of 64 queries pass through without driving those out, the rows of 256 do
/// (`heed_bench_attention --benchmark_filter=modifier/bias`: 1–3 % of the call; at 8192 keys of dim 128 it loses 4 %).
/// Beyond `near_bytes`, heads of a group gain by walking over their keys together (`pass_shape::join_sets`).
template <real T>
inline constexpr int most_blocks_on_planes = 64 / block_lanes<T> < 1 ? 1 : 64 / block_lanes<T>;
inline constexpr index near_bytes = index{1} << 20;

/// Rows that the few-queries pass takes at once; from about this many on, queries in lanes are faster.
inline constexpr index few_rows = 8;
/// Keys of a block in the few-queries pass: whole words of one visibility bit each. Between the products the core waits
/// for a row's maximum and its exponentials, and memory for the core; the more keys a block has, the less that shows.
/// Against blocks of 32 KiB of keys, 512 keys take 3 to 11 % off the call; 1024 gain no more
/// (`heed_bench_attention --benchmark_filter=decode`).
inline constexpr index few_keys = 512;
/// The same where rows are converted, so that the room for them fits the stack.
inline constexpr index few_converted_keys = 64;
/// A row's keys are cut into pieces of at least this many, at most `most_splits` of them.
inline constexpr index split_keys = 2048;
inline constexpr index most_splits = 16;

/// Keys and values of up to so many bytes are taken to lie in a cache that cores share, and are then not fetched from
/// further ahead (row_products.hpp): 32 MiB lose by that on Emerald Rapids, 64 MiB gain.
inline constexpr index cached_bytes = index{32} << 20;

/// The most scratch a worker may have.
inline constexpr std::size_t scratch_limit = std::size_t{1} << 20;

template <class Int>
constexpr Int round_up(Int value, Int step) {
  return (value + step - 1) / step * step;
}

/// Hands out aligned pieces of a worker's scratch; without memory it only counts.
class arena {
 public:
  arena() = default;
  explicit arena(std::byte* memory) : memory_(memory) {}

  template <class T>
  T* take(index count) {
    auto* piece = reinterpret_cast<T*>(memory_ + used_);
    used_ += round_up(static_cast<std::size_t>(count) * sizeof(T), std::size_t{64});
    return piece;
  }
  std::size_t used() const { return used_; }
  explicit operator bool() const { return memory_ != nullptr; }

 private:
  std::byte* memory_ = nullptr;
  std::size_t used_ = 0;
};

HEED_ISA_END
}  // namespace heed
