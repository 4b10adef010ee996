// expect: heed: mixed_chunk_attention takes causal, lengths, gate, rotary, on and with
#include <heed/attention/normalizer.hpp>
#include <heed/gated/mixed_chunk.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<float, 2>& out) {
  heed::mixed_chunk_attention(x, x, x, x, x, out, heed::chunks{4}, heed::squared_relu{heed::fixed{4}});
}
