// expect: heed: constant_space_stack takes no lse, entropy or gate
#include <heed/recurrent/constant_space.hpp>

void f(heed::constant_space_stack<float>& stack, float const* row, float* out, heed::tensor<float, 1>& rows) {
  stack.evaluate(3, [&](heed::index) { return row; }, out, heed::lse{rows});
}
