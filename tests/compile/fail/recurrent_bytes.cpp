// expect: heed: recurrent_attention rereads rows of float, double, half or bfloat16
#include <heed/recurrent/step.hpp>

void f(heed::recurrent_attention<float>& rnn, heed::view<float const, 2> row, heed::kv_cache<heed::int8>& cache,
       heed::view<float, 2> out) {
  rnn.step(row, row, row, cache, out);
}
