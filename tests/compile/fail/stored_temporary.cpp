// expect: heed: a stored set of modifiers must not refer to a temporary container
#include <Eigen/Core>
#include <heed/attention/attention.hpp>
#include <vector>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out) {
  auto const set = heed::modifiers(heed::causal{}, heed::lengths{std::vector<heed::index>{3}});
  heed::attention(q, k, v, out, set);
}
