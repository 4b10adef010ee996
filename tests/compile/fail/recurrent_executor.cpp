// expect: heed: recurrent_attention takes no on
#include <heed/recurrent/step.hpp>

void f(heed::recurrent_attention<float>& rnn, float const* row, float* out) {
  heed::inline_executor here;
  rnn.reread(row, 3, [&](heed::index) { return std::pair(row, row); }, out, heed::on{here});
}
