// expect: heed: lse, entropy and sink_logits belong to softmax
#include <Eigen/Core>
#include <heed/attention/attention.hpp>
#include <vector>

void attend(Eigen::MatrixXf const& q, Eigen::MatrixXf const& k, Eigen::MatrixXf const& v, Eigen::MatrixXf& out,
            std::vector<float> const& sinks) {
  heed::attention(q, k, v, out, heed::squared_relu{heed::row_sum{}}, heed::sink_logits{sinks});
}
