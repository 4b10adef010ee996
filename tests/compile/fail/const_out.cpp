// expect: heed: out must not be const
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out) {
  Eigen::MatrixXf const& fixed = out;
  heed::attention(q, k, v, fixed);
}
