// expect: vq keys know the entropy over codes only
#include <heed/vq/state.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out, heed::codebook<float> const& book) {
  heed::tensor<float, 1> rows({4});
  heed::vq_attention(x, x, x, out, book, 2, heed::entropy{rows});
}
