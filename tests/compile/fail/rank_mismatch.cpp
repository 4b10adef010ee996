// expect: heed: q, k and v must have the same rank
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out,
            heed::view<float const, 3> k3) {
  heed::attention(q, k3, v, out);
  (void)k;
}
