// expect: heed: linear_attention takes a feature map
#include <heed/gated/linear.hpp>
#include <heed/position/rerope.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  heed::rotary const code{heed::frequencies::standard(4), heed::layout::half};
  heed::linear_attention(x, x, x, out, heed::causal{}, heed::rerope{code, 4});
}
