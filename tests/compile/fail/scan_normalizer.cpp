// expect: heed: attention_scan knows softmax alone
#include <heed/attention/normalizer.hpp>
#include <heed/recurrent/scan.hpp>

void f(heed::tensor<float, 2> const& q, heed::tensor<float, 2> const& k, heed::tensor<float, 2>& out) {
  heed::attention_scan(q, k, k, out, heed::l2_softmax{});
}
