// expect: heed: lse and entropy are written to a float or double tensor that is not const
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out,
            heed::view<float const, 1> l) {
  heed::attention(q, k, v, out, heed::lse{l});
}
