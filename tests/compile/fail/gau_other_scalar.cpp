// expect: heed: gau<T> takes weights of rank 2 whose scalar is T
#include <heed/gated/gau.hpp>

void f(heed::tensor<double, 2> const& w_in, heed::tensor<double, 2> const& gamma,
       heed::tensor<double, 2> const& w_out) {
  heed::gau<float> const layer(w_in, gamma, w_out);
}
