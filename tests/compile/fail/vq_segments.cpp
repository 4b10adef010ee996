// expect: vq keys take no segments
#include <heed/vq/state.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out, heed::codebook<float> const& book) {
  heed::tensor<std::int32_t, 2> const ids({1, 4});
  heed::vq_attention(x, x, x, out, book, 2, heed::segments{ids, ids});
}
