// One idea: longer contexts blur attention, and one can watch it. Entropy of rows against length, plain beside log-n, on
// random queries and keys. `13_diagnostics entropy.csv` writes the table for plot_diagnostics.py.

#include <heed/attention/attention.hpp>
#include <heed/diagnostics/sparsity.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdio>

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct summary {
  double entropy, support;  // mean over the last rows
};

/// The last 64 queries over all keys: entropy from the kernel, support from the weights (with the identity for values).
template <class... Modifiers>
summary look(matrix const& q, matrix const& k, Modifiers const&... modifiers) {
  Eigen::Index const rows = 64, n = k.rows();
  matrix const identity = matrix::Identity(n, n);
  matrix weights(rows, n);
  Eigen::VectorXf entropies(rows);
  heed::attention(q.bottomRows(rows), k, identity, weights, heed::causal{}, heed::entropy{entropies}, modifiers...);
  double support = 0;
  for (Eigen::Index i = 0; i < rows; ++i)
    support += heed::sparsity::effective_support(weights.row(i));
  return {static_cast<double>(entropies.mean()), support / static_cast<double>(rows)};
}

int main(int count, char** arguments) {
  std::FILE* const csv = count > 1 ? std::fopen(arguments[1], "w") : nullptr;
  if (count > 1 && csv == nullptr) {
    std::fprintf(stderr, "13_diagnostics: cannot write %s\n", arguments[1]);
    return 1;
  }
  if (csv)
    std::fprintf(csv, "length,plain,log_n,ceiling\n");
  Eigen::Index const dim = 64;
  std::srand(5);
  std::printf(
      "            entropy in nats             keys that share the row\nlength    plain   log_n   ln n            "
      "plain   log_n\n");
  for (Eigen::Index n = 64; n <= 4096; n *= 2) {
    // Gaussian-like scores of deviation 1.9: sums of 64 products.
    matrix const q = 2.4f * matrix::Random(n, dim), k = 2.4f * matrix::Random(n, dim);
    summary const plain = look(q, k), scaled = look(q, k, heed::log_n{512});
    double const ceiling = std::log(static_cast<double>(n));
    std::printf("%6td   %6.2f  %6.2f  %5.2f           %6.0f  %6.0f\n", n, plain.entropy, scaled.entropy, ceiling,
                plain.support, scaled.support);
    if (csv)
      std::fprintf(csv, "%td,%.4f,%.4f,%.4f\n", n, plain.entropy, scaled.entropy, ceiling);
  }
  if (csv)
    std::fclose(csv);
  std::printf("\nPlain attention gains ln 2 = 0.69 nats with every doubling; scores times ln n / ln 512 gain less.\n");
}
