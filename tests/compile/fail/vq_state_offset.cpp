// expect: the state knows its length
#include <heed/vq/state.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out, heed::codebook<float> const& book) {
  heed::vq_state<float> state(book, 4);
  state.step(x, x, x, out, heed::offset{3});
}
