// expect: heed: two row scales in one call
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out) {
  auto const set = heed::modifiers(heed::causal{}, heed::log_n{512});
  heed::attention(q, k, v, out, set, heed::log_n_clamped{512, 16});
}
