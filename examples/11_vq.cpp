// One idea: when every key is replaced by the nearest of S vectors, a row of softmax attention has S different weights,
// and the time grows with the length, not with its square. Writes a table of times, dense beside VQ, for plot_vq.py.
//
//     heed_example_11_vq [longest length, 16384] [table.csv]

#include <heed/attention/attention.hpp>
#include <heed/vq/attention.hpp>
#include <heed/vq/state.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Processor time: what else the machine is doing should not bend the curves.
template <class Work>
double milliseconds(Work work) {
  std::clock_t const start = std::clock();
  work();
  return 1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

/// The best of three; long runs are measured once.
template <class Work>
double best_milliseconds(Work work) {
  double best = milliseconds(work);
  for (int i = 0; i < 2 && best < 300; ++i)
    best = std::min(best, milliseconds(work));
  return best;
}

int main(int argc, char** argv) {
  Eigen::Index const dim = 64, codes = 256, block = 256, longest = argc > 1 ? std::atol(argv[1]) : 16384;
  std::FILE* const table = argc > 2 ? std::fopen(argv[2], "w") : nullptr;
  matrix const q = matrix::Random(longest, dim), k = matrix::Random(longest, dim), v = matrix::Random(longest, dim);
  matrix out(longest, dim), dense(longest, dim);

  // Codes are learnt from keys: k-means++ to begin with, then a moving average.
  Eigen::Index const shortest = std::min<Eigen::Index>(longest, 1024);
  heed::codebook<float> book(1, codes, dim);
  book.initialise(k.topRows(shortest), 1);
  double const before = book.error(k);
  for (int i = 0; i < 20; ++i)
    book.update(k.topRows(shortest), 0.8);
  std::printf("%td codes for %td keys: mean squared distance %.2f after k-means++, %.2f after 20 updates\n\n", codes,
              longest, before, book.error(k));

  std::printf("causal, one head of %td channels, one thread\n\n   length   dense ms      VQ ms   dense / VQ\n", dim);
  if (table)
    std::fprintf(table, "length,dense_ms,vq_ms\n");
  for (Eigen::Index n = shortest; n <= longest; n *= 2) {
    double const quadratic = best_milliseconds(
        [&] { heed::attention(q.topRows(n), k.topRows(n), v.topRows(n), dense.topRows(n), heed::causal{}); });
    double const linear = best_milliseconds([&] {
      heed::vq_attention(q.topRows(n), k.topRows(n), v.topRows(n), out.topRows(n), book, block, heed::causal{});
    });
    std::printf("%9td %10.1f %10.1f %12.1f\n", n, quadratic, linear, quadratic / linear);
    if (table)
      std::fprintf(table, "%td,%.4f,%.4f\n", n, quadratic, linear);
  }
  if (table)
    std::fclose(table);

  // The same, token by token, from a state that does not grow.
  heed::vq_state<float> state(book, dim);
  matrix row(1, dim);
  float worst = 0;
  Eigen::Index const steps = std::min<Eigen::Index>(longest, 2000);
  for (Eigen::Index i = 0; i < steps; ++i) {
    state.step(q.row(i), k.row(i), v.row(i), row);
    worst = std::max(worst, (row - out.row(i)).cwiseAbs().maxCoeff());
  }
  std::printf("\n%td steps of vq_state: the same rows to %.0e, in %zu bytes; a cache would have %td by now.\n", steps,
              static_cast<double>(worst), state.bytes(), static_cast<Eigen::Index>(2 * sizeof(float)) * steps * dim);
  return worst < 1e-5f ? 0 : 1;
}
