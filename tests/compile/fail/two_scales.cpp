// expect: heed: two scales in one call
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out) {
  heed::attention(q, k, v, out, heed::scale{0.5}, heed::causal{}, heed::scale{2});
}
