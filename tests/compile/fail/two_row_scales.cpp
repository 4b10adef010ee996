// expect: heed: two row scales in one call
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out) {
  heed::attention(q, k, v, out, heed::log_n{512}, heed::log_n_beyond{512});
}
