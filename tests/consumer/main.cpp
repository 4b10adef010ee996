#include <heed/version.hpp>

#if __has_include(<heed/attention/attention.hpp>)
#include <heed/attention/attention.hpp>
#endif

#include <Eigen/Core>

#include <cstdio>

int main() {
  Eigen::MatrixXf const q = Eigen::MatrixXf::Ones(4, 8);
  Eigen::MatrixXf const k = Eigen::MatrixXf::Ones(4, 8);
  Eigen::MatrixXf v(4, 8);
  for (int key = 0; key < 4; ++key) {
    v.row(key).setConstant(static_cast<float>(key));
  }
  Eigen::MatrixXf out = Eigen::MatrixXf::Zero(4, 8);
  std::printf("heed %d.%d.%d\n", HEED_VERSION_MAJOR, HEED_VERSION_MINOR, HEED_VERSION_PATCH);
#if __has_include(<heed/attention/attention.hpp>)
  // Equal scores: row i is the mean of the values 0 … i.
  heed::attention(q, k, v, out, heed::causal{});
  for (int query = 0; query < 4; ++query) {
    std::printf("%g\n", static_cast<double>(out(query, 0)));
    if (!(out.row(query).array() - 0.5f * static_cast<float>(query)).isZero(1e-6f)) {
      return 1;
    }
  }
#endif
  return 0;
}
