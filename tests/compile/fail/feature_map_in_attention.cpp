// expect: heed: this argument is neither a tensor nor a modifier
#include <heed/gated/linear.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  heed::attention(x, x, x, out, heed::elu_plus_one{});
}
