// expect: vq keys take no window and no sink_tokens
#include <heed/vq/state.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out, heed::codebook<float> const& book) {
  heed::vq_attention(x, x, x, out, book, 2, heed::sink_tokens{4});
}
