// expect: heed: normalized and unnormalized in one call
#include <heed/gated/linear.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  heed::linear_attention(x, x, x, out, heed::normalized{}, heed::unnormalized{});
}
