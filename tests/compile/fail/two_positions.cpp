// expect: heed: two position encodings in one call
#include <Eigen/Core>
#include <heed/attention/attention.hpp>
#include <heed/position/rotary.hpp>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out) {
  heed::rotary const rope{heed::frequencies::standard(8), heed::layout::half};
  heed::attention(q, k, v, out, rope, rope);
}
