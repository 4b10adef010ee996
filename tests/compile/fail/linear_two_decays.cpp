// expect: heed: two decays in one call
#include <heed/gated/linear.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  std::vector<double> const gamma{0.9};
  heed::tensor<float, 1> const gates({4});
  heed::linear_attention(x, x, x, out, heed::causal{}, heed::decay{gamma}, heed::log_decay(gates));
}
