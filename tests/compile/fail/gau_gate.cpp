// expect: heed: gau gates with its own U
#include <heed/gated/gau.hpp>

void f(heed::gau<float> const& layer, heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  layer.forward(x, out, heed::gate{x});
}
