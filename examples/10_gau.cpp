// One idea: a gated attention unit is attention and feed-forward in one layer. Here a stack of GAU-α blocks, and what
// each normaliser does when the same text is repeated: twice the keys, the same things to be said.

#include <heed/gated/gau.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdio>
#include <vector>

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct block {
  matrix w_in, gamma, w_out;

  block(Eigen::Index dim, Eigen::Index e, Eigen::Index s)
      : w_in(1.7f / std::sqrt(float(dim)) * matrix::Random(dim, 2 * e + s)), gamma(matrix::Ones(2, s)),
        w_out(1.7f / std::sqrt(float(e)) * matrix::Random(e, dim)) {}

  /// x ← RMS(x + GAU(x)): no biases, no gain.
  template <class... Modifiers>
  void apply(matrix& x, Modifiers const&... modifiers) const {
    matrix y(x.rows(), x.cols());
    heed::gau<float>(w_in, gamma, w_out).forward(x, y, modifiers...);
    heed::post_norm_residual(x, y, x);
  }
};

/// How far the stack's output for the text moves, relative to its size, when the text comes twice.
template <class... Modifiers>
float moved(std::vector<block> const& stack, matrix const& text, Modifiers const&... modifiers) {
  matrix once = text, twice(2 * text.rows(), text.cols());
  twice << text, text;
  for (block const& b : stack) {
    b.apply(once, modifiers...);
    b.apply(twice, modifiers...);
  }
  return (twice.topRows(text.rows()) - once).norm() / once.norm();
}

int main() {
  Eigen::Index const dim = 64, e = 2 * dim, s = 32, len = 128;
  std::vector<block> const stack(4, block(dim, e, s));
  matrix text = matrix::Random(len, dim);
  heed::rms_norm(text, text);

  std::printf("4 blocks of %td channels, expanded to %td, one head of %td\n", dim, e, s);
  std::printf("parameters of two such blocks: %td; of attention and feed-forward of that width: %td\n\n",
              2 * (stack[0].w_in.size() + stack[0].w_out.size()), 12 * dim * dim);
  heed::gau<float> const first(stack[0].w_in, stack[0].gamma, stack[0].w_out);
  std::printf("its attention, value dimension %td:\n", e);
  heed::plan const plan = first.explain(text, heed::squared_relu{heed::visible{}});
  std::printf("  %td queries by %td keys at a time, %zu bytes of scratch\n\n", plan.query_block, plan.key_block,
              plan.scratch_bytes);

  float const averaged = moved(stack, text, heed::squared_relu{heed::visible{}});
  float const fixed = moved(stack, text, heed::squared_relu{heed::fixed{len}});
  float const soft = moved(stack, text);
  float const plus = moved(stack, text, heed::log_n_clamped{512, 16});
  std::printf("the text twice moves the output by\n");
  std::printf("  relu² / n_i       %.1e   an average: the same\n", static_cast<double>(averaged));
  std::printf("  relu² / fixed n   %.1e   a sum: twice as much\n", static_cast<double>(fixed));
  std::printf("  softmax           %.1e   the same\n", static_cast<double>(soft));
  std::printf("  softmax_plus      %.1e   sharper over more keys\n", static_cast<double>(plus));
  return averaged < 1e-4f && soft < 1e-4f && fixed > 1e-3f && plus > 1e-4f ? 0 : 1;
}
