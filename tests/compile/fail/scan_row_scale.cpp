// expect: heed: attention_scan takes no row scale
#include <heed/attention/row_scale.hpp>
#include <heed/recurrent/scan.hpp>

void f(heed::tensor<float, 2> const& q, heed::tensor<float, 2> const& k, heed::tensor<float, 2>& out) {
  heed::attention_scan(q, k, k, out, heed::log_n{512});
}
