// expect: heed: recurrent_attention takes no offset or lengths
#include <heed/recurrent/step.hpp>

void f(heed::recurrent_attention<float>& rnn, float const* row, float* out) {
  rnn.reread(row, 3, [&](heed::index) { return std::pair(row, row); }, out, heed::offset{3});
}
