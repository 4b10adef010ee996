// expect: heed: causal named twice in one call
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out) {
  heed::attention(q, k, v, out, heed::causal{}, heed::modifiers(heed::causal{}));
}
