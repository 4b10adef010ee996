#pragma once

#include <heed/core/amx.hpp>
#include <heed/kernel/tile.hpp>

/// The product of AMX tiles that lie in memory: the one loop that everything on tiles runs.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

#if defined(HEED_HAS_AMX)

/// Up to two tiles side by side, and how far it is from one step of the inner dimension to the next. Bytes.
struct tile_operand {
  std::byte const* tile[2] = {};
  index stride[2] = {};
  index step = 0;
};

/// sum[r][c] (+)= Σ_t left[r](t) · right[c](t), tiles of 16 × 16 floats, or of int32s for int8; `Ld` of them a row.
struct tile_product {
  tile_operand left, right;
  index steps = 0;
  void* sum = nullptr;
  int rows = 2, columns = 2;  // where they are not constant
};

/// Two by two is the most that eight registers hold: four sums, two of each operand, one load per product.
template <class Stored, index Ld, int Rows, int Columns, bool Accumulate>
HEED_ALWAYS_INLINE inline void multiply_tiles(tile_product const& p) {
  constexpr index stride = Ld * 4;
  auto* const out = static_cast<std::byte*>(p.sum);
  auto const each = [&](auto&& f) HEED_LAMBDA_INLINE {
    unroll_constants<Rows * Columns>([&](auto i) HEED_LAMBDA_INLINE {
      constexpr int r = i / Columns, c = i % Columns;
      f(std::integral_constant<int, r>{}, std::integral_constant<int, c>{}, out + r * tile_size * stride + c * 64);
    });
  };
  each([&](auto r, auto c, std::byte* place) HEED_LAMBDA_INLINE {
    if constexpr (Accumulate)
      tile_load<2 * r + c>(place, stride);
    else
      tile_zero<2 * r + c>();
  });
  for (index t = 0; t < p.steps; ++t) {
    unroll_constants<Rows>(
        [&](auto r) HEED_LAMBDA_INLINE { tile_load<4 + r>(p.left.tile[r] + t * p.left.step, p.left.stride[r]); });
    unroll_constants<Columns>(
        [&](auto c) HEED_LAMBDA_INLINE { tile_load<6 + c>(p.right.tile[c] + t * p.right.step, p.right.stride[c]); });
    each([&](auto r, auto c, std::byte*) HEED_LAMBDA_INLINE { tile_multiply<Stored, 2 * r + c, 4 + r, 6 + c>(); });
  }
  each([&](auto r, auto c, std::byte* place) HEED_LAMBDA_INLINE { tile_store<2 * r + c>(place, stride); });
}

template <class Stored, index Ld, bool Accumulate>
HEED_NOINLINE void multiply_tiles(tile_product const& p) {
  if (p.rows == 2 && p.columns == 2)
    return multiply_tiles<Stored, Ld, 2, 2, Accumulate>(p);
  if (p.rows == 2)
    return multiply_tiles<Stored, Ld, 2, 1, Accumulate>(p);
  if (p.columns == 2)
    return multiply_tiles<Stored, Ld, 1, 2, Accumulate>(p);
  return multiply_tiles<Stored, Ld, 1, 1, Accumulate>(p);
}

#endif

}  // namespace impl
HEED_ISA_END
}  // namespace heed
