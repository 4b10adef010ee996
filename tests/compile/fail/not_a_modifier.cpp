// expect: heed: this argument is neither a tensor nor a modifier
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out) {
  heed::attention(q, k, v, out, 3);
}
