// expect: heed: tensors hold float, double, Eigen::half or Eigen::bfloat16
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out,
            heed::view<short const, 2> whole) {
  heed::attention(whole, k, v, out);
  (void)q;
}
