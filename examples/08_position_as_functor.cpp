// One idea: a position code that acts on scores needs no support from the library. Write it as a lambda, or as a
// modifier of your own; it joins rotary, masks and everything else in one fused pass.

#include <heed/attention/attention.hpp>
#include <heed/position/rotary.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdio>

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// KERPLE, logarithmic: s - r1 log(1 + r2 |distance|), r1 and r2 per head in the paper (arXiv 2205.09921).
struct kerple {
  static constexpr auto stage = heed::score_stage::bias;
  float r1, r2;

  template <class S, class Site>
  S apply(S s, Site const& at) const {
    return s - r1 * heed::log(S(1.0f) + r2 * heed::abs(at.distance()));
  }
};

/// XPOS: the rotary score times xi^distance, 0 < xi < 1 (arXiv 2212.10554; causal only).
/// In this form nothing overflows.
auto xpos(float xi) {
  return heed::score{[rate = std::log(xi)](auto s, auto at) {
    return s * heed::exp(rate * heed::max(at.distance(), decltype(s)(0.0f)));
  }};
}

/// The weights of the last query: with the identity for values, its output row.
template <class... Modifiers>
Eigen::RowVectorXf last_weights(matrix const& q, matrix const& k, Modifiers const&... modifiers) {
  matrix const identity = matrix::Identity(k.rows(), k.rows());
  matrix out(1, k.rows());
  heed::attention(q.bottomRows(1), k, identity, out, heed::causal{}, modifiers...);
  return out.row(0);
}

int main() {
  Eigen::Index const len = 65, dim = 32;
  matrix const x = matrix::Ones(len, dim);  // tokens all alike: only their positions differ
  heed::rotary const rotary{heed::frequencies::standard(dim), heed::layout::half};

  auto const none = last_weights(x, x);
  auto const with_kerple = last_weights(x, x, kerple{1.0f, 0.5f});
  auto const with_rotary = last_weights(x, x, rotary);
  auto const with_xpos = last_weights(x, x, rotary, xpos(0.97f));

  std::printf("Weight of a key in percent, by distance\n\ndistance     none   kerple   rotary   rotary+xpos\n");
  for (Eigen::Index distance : {0, 1, 2, 4, 8, 16, 32, 64}) {
    Eigen::Index const j = len - 1 - distance;
    std::printf("%8td %8.2f %8.2f %8.2f %13.2f\n", distance, 100 * none[j], 100 * with_kerple[j], 100 * with_rotary[j],
                100 * with_xpos[j]);
  }
  std::printf("\nKERPLE fades with the logarithm of distance; rotary waves; XPOS damps the waves.\n");
}
