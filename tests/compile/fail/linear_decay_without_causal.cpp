// expect: heed: decay, log_decay and delta need causal
#include <heed/gated/linear.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  std::vector<double> const gamma{0.9};
  heed::linear_attention(x, x, x, out, heed::decay{gamma});
}
