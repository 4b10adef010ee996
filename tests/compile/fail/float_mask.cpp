// expect: heed: a mask holds bool, true = visible
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out,
            heed::view<float const, 2> added) {
  heed::attention(q, k, v, out, heed::mask{added});
}
