// expect: heed: codes are int32
#include <heed/vq/attention.hpp>

void f(heed::tensor<float, 2> const& x, heed::tensor<std::int64_t, 1> const& codes, heed::tensor<float, 2>& out,
       heed::codebook<float> const& book) {
  heed::vq_attention(x, codes, x, out, book, 2);
}
