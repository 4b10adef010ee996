#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/random.hpp"

#include <heed/gated/layers.hpp>

namespace heed::test {

TEST_CASE("rms_norm divides a row by its root mean square", "[contract]") {
  generator random(3);
  auto const x = normal_tensor<float, 3>({2, 5, 37}, random);
  tensor<float, 3> out(x.extents());
  rms_norm(x, out);
  for (index b = 0; b < 2; ++b)
    for (index i = 0; i < 5; ++i) {
      double const mean = x.matrix(b).row(i).cast<double>().squaredNorm() / 37;
      for (index c = 0; c < 37; ++c)
        CHECK(static_cast<double>(out(b, i, c)) == Approx(x(b, i, c) / std::sqrt(mean + 1e-7)).epsilon(1e-6));
    }
  // The same for every positive multiple, eps aside.
  tensor<float, 3> larger = x, again(x.extents());
  for (index i = 0; i < x.size(); ++i)
    larger.data()[i] *= 4;
  rms_norm(x, out, 0);
  rms_norm(larger, again, 0);
  CHECK(same_bits(again, out));
  rms_norm(larger, larger, 0);
  CHECK(same_bits(larger, out));  // in place
}

TEST_CASE("rms_norm leaves a row of zeros alone", "[edges]") {
  for (double eps : {1e-7, 0.0}) {
    Eigen::MatrixXd x = Eigen::MatrixXd::Zero(2, 3);
    x.row(1) << 3, 4, 0;
    rms_norm(x, x, eps);
    CHECK(x.row(0).isZero(0));
    CHECK(x(1, 1) == Approx(4 / std::sqrt(25.0 / 3 + eps)));
  }
}

TEST_CASE("post_norm_residual is rms_norm(x + y)", "[contract]") {
  generator random(5);
  auto const x = normal_tensor<double, 2>({4, 19}, random);
  auto y = normal_tensor<double, 2>({4, 19}, random);
  tensor<double, 2> sum(x.extents()), expected(x.extents());
  for (index i = 0; i < x.size(); ++i)
    sum.data()[i] = x.data()[i] + y.data()[i];
  rms_norm(sum, expected, 1e-3);
  post_norm_residual(x, y, y, 1e-3);
  CHECK(same_bits(y, expected));
}

TEST_CASE("scale_offset and storage", "[contract]") {
  Eigen::MatrixXf z = Eigen::MatrixXf::Random(6, 3);
  Eigen::VectorXf const gamma = Eigen::VectorXf::Random(3), beta = Eigen::VectorXf::Random(3);
  tensor<Eigen::bfloat16, 2> out({6, 3});
  scale_offset(z, gamma, std::vector<float>{}, out);
  CHECK(static_cast<float>(out(2, 1)) == static_cast<float>(round_to<Eigen::bfloat16>(z(2, 1) * gamma(1))));
  float const before = z(5, 2);
  scale_offset(z, gamma, beta, z);
  CHECK(z(5, 2) == Approx(before * gamma(2) + beta(2)));
}

TEST_CASE("The small layers refuse what does not fit", "[errors]") {
  Eigen::MatrixXf x(2, 3), y(2, 4);
  std::vector<float> const four(4);
  CHECK_THROWS_WITH(rms_norm(x, y), "rms_norm: out.extent(1) must equal x's 3, got 4");
  CHECK_THROWS_WITH(rms_norm(x, x, -1.0), "rms_norm: eps must not be negative, got -1");
  CHECK_THROWS_WITH(post_norm_residual(x, y, x), "post_norm_residual: y.extent(1) must equal x's 3, got 4");
  CHECK_THROWS_WITH(scale_offset(x, four, four, x), "scale_offset: gamma must have one number per channel, 3, got 4");
}

}  // namespace heed::test
