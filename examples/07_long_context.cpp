// One idea: beyond the length a model was trained at, two things drift, and two modifiers hold them. Angles grow past
// all the model has seen (NTK frequencies), and attention spreads over more keys (log-n).

#include <heed/attention/attention.hpp>
#include <heed/position/rotary.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <vector>

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Mean entropy of the attention rows in ranges that end at these rows.
template <class... Modifiers>
std::vector<double> entropies(matrix const& q, matrix const& k, std::vector<Eigen::Index> const& ends,
                              Modifiers const&... modifiers) {
  matrix out(q.rows(), q.cols());
  Eigen::VectorXf entropy(q.rows());
  heed::view<float, 1> const rows(entropy.data(), {entropy.size()});
  heed::attention(q, k, k, out, heed::causal{}, heed::entropy{rows}, modifiers...);
  std::vector<double> means;
  for (Eigen::Index first = 0; Eigen::Index const end : ends) {
    means.push_back(static_cast<double>(entropy.segment(first, end - first).mean()));
    first = end;
  }
  return means;
}

int main() {
  double const train_len = 512, factor = 8;
  Eigen::Index const len = 4096, dim = 64;
  auto const plain = heed::frequencies::standard(dim);
  auto const ntk = heed::frequencies::ntk_aware(dim, {.factor = factor});

  std::printf("How far the slowest pair of channels turns\n");
  std::printf("  in training, at %4.0f     %.3f rad\n", train_len, train_len * plain[dim / 2 - 1]);
  std::printf("  plain, at %4td           %.3f rad: the model has never seen this\n", len, len * plain[dim / 2 - 1]);
  std::printf("  ntk_aware, at %4td       %.3f rad\n\n", len, len * ntk[dim / 2 - 1]);

  matrix const q = 2.4f * matrix::Random(len, dim), k = 2.4f * matrix::Random(len, dim);
  heed::rotary const rotary{ntk, heed::layout::half};
  std::vector<Eigen::Index> const ends{512, 1024, 2048, 4096};
  auto const without = entropies(q, k, ends, rotary);
  auto const with_log_n = entropies(q, k, ends, rotary, heed::log_n_beyond{train_len});

  std::printf("Mean entropy of a row, in nats\n  rows          ntk_aware   ntk_aware + log_n_beyond{512}\n");
  for (std::size_t r = 0; r < ends.size(); ++r)
    std::printf("  up to %4td    %9.2f   %9.2f\n", ends[r], without[r], with_log_n[r]);
  std::printf("\nWithout log-n every doubling of the context adds to the entropy: attention goes blurred.\n"
              "Scores scaled by ln n / ln 512 keep it nearer to what the model knows.\n");
}
