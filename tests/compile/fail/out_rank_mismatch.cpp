// expect: heed: out must have the rank of q, k and v
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out,
            heed::view<float, 3> out3) {
  heed::attention(q, k, v, out3);
  (void)out;
}
