// expect: heed: this Eigen expression has no storage to view
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out) {
  heed::attention(q * 2, k, v, out);
}
