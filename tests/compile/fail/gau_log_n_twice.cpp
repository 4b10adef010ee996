// expect: heed: two row scales in one call
#include <heed/attention/row_scale.hpp>
#include <heed/gated/gau.hpp>

void f(heed::gau<float> const& layer, heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  layer.forward(x, out, heed::log_n_clamped{512, 16}, heed::log_n{512});
}
