// expect: no matching (function|constructor)
#include <Eigen/Core>
#include <heed/attention/attention.hpp>
#include <heed/position/rotary.hpp>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out) {
  heed::attention(q, k, v, out, heed::rotary{heed::frequencies::standard(8)});
}
