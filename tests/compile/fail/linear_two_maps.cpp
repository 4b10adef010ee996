// expect: heed: two feature maps in one call
#include <heed/gated/linear.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  heed::linear_attention(x, x, x, out, heed::exponential{}, heed::elu_plus_one{});
}
