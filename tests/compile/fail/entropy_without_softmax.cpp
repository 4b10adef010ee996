// expect: heed: lse, entropy and sink_logits belong to softmax
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out,
            heed::view<float, 1> h) {
  heed::attention(q, k, v, out, heed::l2_softmax{}, heed::entropy{h});
}
