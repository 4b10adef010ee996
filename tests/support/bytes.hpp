#pragma once

#include <heed/cache/quantized.hpp>

#include "support/random.hpp"

/// Random int8 rows with their scales.

namespace heed::test {

enum class layout_of_rows { row_major, gaps, columns };

/// Random rows in 8 bits. Without `block` a row has one scale. Rows with gaps have gaps between their scales, too.
struct bytes {
  tensor<int8, 4> codes;
  tensor<float, 4> scales;
  index_array<4> extents, strides;
  index block;

  bytes(index_array<4> const& e, generator& random, index of_block = 0, layout_of_rows how = layout_of_rows::row_major)
      : codes({e[0], e[1], e[2], e[3] + 3}),
        scales({e[0], e[1], e[2], (of_block == 0 ? 1 : e[3] / of_block) + (how == layout_of_rows::gaps)}), extents(e),
        block(of_block == 0 ? e[3] : of_block) {
    index const ld = how == layout_of_rows::gaps ? e[3] + 3 : e[3], rows = e[2] * ld;
    strides = {e[1] * rows, rows, ld, 1};
    if (how == layout_of_rows::columns)
      strides = {e[1] * rows, rows, 1, e[2]};
    fill(codes.view(), [&] { return random.whole(-127, 127); });
    fill(scales.view(), [&] { return random.uniform(0.001, 0.02); });
  }

  quantized_view<int8, 4> view() const {
    heed::view<float const, 4> const factors(scales.data(), {extents[0], extents[1], extents[2], extents[3] / block},
                                             scales.strides());
    return {heed::view<int8 const, 4>(codes.data(), extents, strides), factors, block};
  }
};

}  // namespace heed::test
