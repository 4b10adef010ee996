// expect: state_out writes to its tensors
#include <heed/gated/linear.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  heed::linear_attention(x, x, x, out, heed::causal{}, heed::unnormalized{}, heed::state_out(x));
}
