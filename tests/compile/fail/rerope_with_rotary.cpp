// expect: heed: two position encodings in one call
#include <heed/attention/attention.hpp>
#include <heed/position/rerope.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  heed::rotary const code{heed::frequencies::standard(4), heed::layout::half};
  heed::attention(x, x, x, out, code, heed::rerope{code, 4});
}
