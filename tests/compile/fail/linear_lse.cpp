// expect: heed: linear_attention takes a feature map
#include <heed/attention/outputs.hpp>
#include <heed/gated/linear.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  heed::tensor<float, 1> rows({4});
  heed::linear_attention(x, x, x, out, heed::lse{rows});
}
