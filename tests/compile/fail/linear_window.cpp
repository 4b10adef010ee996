// expect: heed: linear_attention takes a feature map
#include <heed/attention/mask.hpp>
#include <heed/gated/linear.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  heed::linear_attention(x, x, x, out, heed::causal{}, heed::window{4, 0});
}
