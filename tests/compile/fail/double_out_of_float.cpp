// expect: heed: double goes with double only: out
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out,
            Eigen::MatrixXd& d) {
  heed::attention(q, k, v, d);
  (void)out;
}
