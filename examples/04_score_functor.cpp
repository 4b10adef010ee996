// One idea: a rule of your own for the scores is a lambda, compiled into the kernel. It is written once, for a number
// and for a SIMD batch of them.

#include <heed/attention/attention.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <string>

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

void print_weights(char const* title, matrix const& weights) {
  std::printf("%s\n", title);
  for (Eigen::Index i = 0; i < weights.rows(); i += 5) {
    std::printf("  query %2td ", i);
    for (Eigen::Index j = 0; j < weights.cols(); ++j)
      std::printf("%c", " .:-=+*#%@"[std::min(9, static_cast<int>(weights(i, j) * 40))]);
    std::printf("\n");
  }
}

int main() {
  Eigen::Index const len = 31, dim = 8;
  matrix const q = matrix::Zero(len, dim), k = matrix::Zero(len, dim);  // all scores are 0 before the functor
  matrix const v = matrix::Identity(len, len);                          // so that out is the weights themselves
  matrix out(len, len);

  heed::attention(q, k, v, out);
  print_weights("no rule: every key alike", out);

  // `at` knows where the score stands: query(), key(), distance() = query - key, head(), batch().
  heed::attention(q, k, v, out, heed::score{[](auto s, auto at) {
                    auto const d = at.distance();
                    return s - 0.125f * d * d;
                  }});
  print_weights("a Gaussian around the query: s - distance^2 / 8", out);

  float const favour = 3;  // captures are welcome
  heed::attention(q, k, v, out, heed::causal{}, heed::score{[=](auto s, auto at) {
                    using number = decltype(s);
                    return heed::select(at.distance() < number(4.0f), s + favour, s);
                  }});
  print_weights("the last four keys are favoured, the future is hidden by `causal`", out);
}
