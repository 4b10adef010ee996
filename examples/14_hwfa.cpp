// One idea: layers compose. HWFA (kexue.fm/archives/9603): windows with RoPE below, one full layer on top without
// positions and with log-n. The windows' caches stay small, and the top layer sees everything at any length.

#include <heed/attention/attention.hpp>
#include <heed/position/rotary.hpp>

#include <Eigen/Core>

#include <cstdio>
#include <vector>

using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

struct projections {
  matrix q, k, v;
  explicit projections(Eigen::Index width)
      : q(0.4 * matrix::Random(width, width)), k(0.4 * matrix::Random(width, width)),
        v(0.4 * matrix::Random(width, width)) {}
};

template <class... Modifiers>
matrix attend(matrix const& x, projections const& w, Modifiers const&... modifiers) {
  matrix const q = x * w.q, k = x * w.k, v = x * w.v;
  matrix out(x.rows(), x.cols());
  heed::attention(q, k, v, out, heed::causal{}, modifiers...);
  return x + out;
}

int main() {
  Eigen::Index const width = 16, len = 96, window = 9;
  std::vector<projections> const below(3, projections(width));
  projections const top(width);
  heed::rotary const rope{heed::frequencies::standard(width), heed::layout::half};

  auto const windows = [&](matrix x) {
    for (auto const& w : below)
      x = attend(x, w, heed::window{window - 1, 0}, rope);
    return x;
  };
  auto const whole = [&](matrix const& x) { return attend(windows(x), top, heed::log_n{64}); };

  // Which inputs does the last row depend on? Change one at a time.
  matrix const x = matrix::Random(len, width), low = windows(x), high = whole(x);
  Eigen::Index oldest_low = len, oldest_high = len;
  for (Eigen::Index j = len - 1; j >= 0; --j) {
    matrix changed = x;
    changed.row(j).setConstant(3);
    if ((windows(changed).row(len - 1) - low.row(len - 1)).cwiseAbs().maxCoeff() > 0)
      oldest_low = j;
    if ((whole(changed).row(len - 1) - high.row(len - 1)).cwiseAbs().maxCoeff() > 0)
      oldest_high = j;
  }
  auto const layers = static_cast<Eigen::Index>(below.size());
  Eigen::Index const expected = (window - 1) * layers + 1, seen = len - oldest_low;
  std::printf("%td windowed layers of %td: the last row depends on %td tokens; (w - 1) L + 1 = %td\n", layers, window,
              seen, expected);
  std::printf("with the full layer on top: on %td of %td\n\n", len - oldest_high, len);
  std::printf("keys kept for decoding at length n: %td x %td + n, instead of %td n\n", layers, window, layers + 1);
  bool const right = seen == expected && oldest_high == 0;
  std::printf("%s\n", right ? "As the formula says." : "NOT what the formula says.");
  return right ? 0 : 1;
}
