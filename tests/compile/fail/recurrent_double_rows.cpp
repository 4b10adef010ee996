// expect: heed: double goes with double only
#include <heed/recurrent/step.hpp>

void f(heed::recurrent_attention<float>& rnn, double const* row, float* out) {
  rnn.reread(row, 3, [&](heed::index) { return std::pair(row, row); }, out);
}
