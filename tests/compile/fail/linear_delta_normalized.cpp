// expect: heed: delta needs unnormalized
#include <heed/gated/linear.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  heed::tensor<float, 1> const rates({4});
  heed::linear_attention(x, x, x, out, heed::causal{}, heed::delta(rates));
}
