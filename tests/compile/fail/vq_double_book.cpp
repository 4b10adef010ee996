// expect: double goes with double only
#include <heed/vq/state.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out, heed::codebook<float> const& book) {
  heed::codebook<double> const wide(1, 2, 4);
  heed::vq_attention(x, x, x, out, wide, 2);
  (void)book;
}
