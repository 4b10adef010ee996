// expect: heed: double goes with double only: q, k and v
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out,
            Eigen::MatrixXd const& d) {
  heed::attention(q, d, v, out);
}
