// expect: heed: vq attention takes no gate
#include <heed/vq/attention.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out, heed::codebook<float> const& book) {
  heed::vq_attention(x, x, x, out, book, 2, heed::gate{x});
}
