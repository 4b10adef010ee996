// expect: heed: a bias holds float, double
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out,
            heed::view<bool const, 2> shown) {
  heed::attention(q, k, v, out, heed::bias{shown});
}
