// expect: vq keys take no bias.*a relative_bias will do
#include <heed/vq/state.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out, heed::codebook<float> const& book) {
  heed::vq_attention(x, x, x, out, book, 2, heed::bias{x});
}
