// expect: heed: two normalisers in one call
#include <heed/gated/gau.hpp>

void f(heed::gau<float> const& layer, heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  layer.forward(x, out, heed::softmax{}, heed::squared_relu{heed::visible{}});
}
