// expect: vq keys take no mask
#include <heed/vq/state.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out, heed::codebook<float> const& book) {
  heed::tensor<bool, 2> const seen({4, 4});
  heed::vq_attention(x, x, x, out, book, 2, heed::mask{seen});
}
