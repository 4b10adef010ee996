#include "support/catch.hpp"

#include <heed/attention/attention.hpp>
#include <heed/position/rotary.hpp>

#include "support/random.hpp"

// HWFA (B6): windowed layers below, one full layer without positions and with log-n on top.

namespace heed::test {
namespace {

using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class... Ms>
matrix layer(matrix const& x, matrix const& w, Ms const&... ms) {
  matrix const q = x * w.leftCols(8), k = x * w.middleCols(8, 8), v = x * w.rightCols(8);
  matrix out(x.rows(), 8);
  attention(q, k, v, out, causal{}, ms...);
  return x + out;
}

}  // namespace

TEST_CASE("A stack of windows sees (w - 1) L + 1 tokens, and the full layer on top all of them",
          "[identities][contract]") {
  generator random(91);
  auto const draw = [&](index rows, index columns) {
    return matrix(matrix::NullaryExpr(rows, columns, [&] { return random.normal(0, 0.5); }));
  };
  rotary const turn{frequencies::standard(8), layout::half};
  index const n = 60;
  matrix const x = draw(n, 8), top = draw(8, 24);
  std::vector<matrix> const below{draw(8, 24), draw(8, 24), draw(8, 24)};
  for (index w : {1, 2, 6, 15})
    for (std::size_t layers = 1; layers <= 3; ++layers) {
      INFO("window " << w << ", " << layers << " layers");
      auto const windows = [&](matrix y) {
        for (std::size_t l = 0; l < layers; ++l)
          y = layer(y, below[l], window{w - 1, 0}, turn);
        return y;
      };
      matrix const low = windows(x), high = layer(low, top, log_n{32});
      index const reach = (w - 1) * static_cast<index>(layers);
      for (index p : {n / 2, n - 1})
        for (index j = 0; j <= p; ++j) {
          matrix changed = x;
          changed.row(j).setConstant(2);
          matrix const other = windows(changed);
          bool const depends = other.row(p) != low.row(p);
          REQUIRE(depends == (p - j <= reach));
          REQUIRE(layer(other, top, log_n{32}).row(p) != high.row(p));
        }
    }
}

}  // namespace heed::test
