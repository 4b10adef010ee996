// One include, one instantiation: what heed costs a translation unit.
#include <heed/attention/attention.hpp>

#include <Eigen/Core>

void attend(Eigen::Ref<Eigen::MatrixXf const> q, Eigen::Ref<Eigen::MatrixXf const> k,
            Eigen::Ref<Eigen::MatrixXf const> v, Eigen::Ref<Eigen::MatrixXf> out) {
  heed::attention(q, k, v, out, heed::causal{});
}
