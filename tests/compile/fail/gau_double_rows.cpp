// expect: heed: double goes with double only
#include <heed/gated/gau.hpp>

void f(heed::gau<float> const& layer, heed::tensor<double, 2> const& x, heed::tensor<double, 2>& out) {
  layer.forward(x, out);
}
