// expect: vq attention takes no with_amx.*in float
#include <heed/vq/state.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out, heed::codebook<float> const& book) {
  heed::vq_attention(x, x, x, out, book, 2, heed::with_amx{heed::enable_amx()});
}
