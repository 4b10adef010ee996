// expect: heed: double goes with double only
#include <heed/gated/linear.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<double, 2>& out) { heed::linear_attention(x, x, x, out); }
