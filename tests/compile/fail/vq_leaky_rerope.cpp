// expect: vq keys take no position code but rerope
#include <heed/vq/state.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out, heed::codebook<float> const& book) {
  heed::rotary const code{heed::frequencies::standard(4), heed::layout::half};
  heed::vq_attention(x, x, x, out, book, 2, heed::leaky_rerope{code, 4, 2});
}
