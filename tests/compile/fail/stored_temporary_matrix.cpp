// expect: heed: a stored set of modifiers must not refer to a temporary container
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out) {
  auto const set = heed::modifiers(heed::bias{Eigen::MatrixXf(3, 4)});
  heed::attention(q, k, v, out, set);
}
