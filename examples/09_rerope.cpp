// One idea: distances need not grow. ReRoPE holds them at a window that the model was trained on, in one fused pass,
// and a cache made for it turns every key once.

#include <heed/attention/scores.hpp>
#include <heed/cache/kv_cache.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstdio>

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Scores of the last token against all others.
template <class Code>
Eigen::RowVectorXf last_scores(matrix const& q, matrix const& k, Code const& code) {
  matrix out(1, k.rows());
  heed::scores(q.bottomRows(1), k, out, heed::causal{}, code);
  return out.row(0);
}

int main() {
  Eigen::Index const train_len = 512, window = train_len / 2, len = 4097, dim = 64;
  heed::rotary const rope{heed::frequencies::standard(dim), heed::layout::half};
  heed::rerope const rerope{rope, window};
  heed::leaky_rerope const leaky{rope, window, 16};  // beyond the window 16 positions count as one

  // Tokens all alike: a score says only at what distance a key seems to stand.
  matrix const same = matrix::Constant(len, dim, 0.5f);
  Eigen::RowVectorXf const plain = last_scores(same, same, rope), held = last_scores(same, same, rerope),
                           slowed = last_scores(same, same, leaky);
  std::printf("Score of the same key by distance; the model was trained up to %td\n\n", train_len);
  std::printf("distance     RoPE      at      ReRoPE      at       leaky      at\n");
  for (Eigen::Index rel : {0, 64, 128, 255, 256, 512, 1024, 2048, 4096}) {
    Eigen::Index const j = len - 1 - rel, beyond = std::max<Eigen::Index>(0, rel - window);
    std::printf("%8td %8.2f %7td %s %8.2f %7td    %8.2f %7td\n", rel, plain[j], rel, rel < train_len ? " " : "*",
                held[j], rel - beyond, slowed[j], rel - beyond + beyond / 16);
  }
  std::printf("* a distance that the model has never seen\n\n");

  // A prompt, then token by token. The cache keeps raw keys, and the last `window` turned ones:
  // nothing is turned again.
  Eigen::Index const prompt = 1000, end = 1032;
  matrix const q = matrix::Random(end, dim), k = matrix::Random(end, dim), v = matrix::Random(end, dim);
  matrix whole(end, dim), out(end, dim);
  heed::attention(q, k, v, whole, heed::causal{}, rerope);

  heed::kv_cache<float> cache(1, dim, dim, end, rerope);
  auto const take = [&](Eigen::Index first, Eigen::Index count) {
    cache.append(k.middleRows(first, count), v.middleRows(first, count));
    heed::attention(q.middleRows(first, count), cache, out.middleRows(first, count), heed::causal{});
  };
  take(0, prompt);
  for (Eigen::Index token = prompt; token < end; ++token)
    take(token, 1);
  auto const difference = static_cast<double>((out - whole).cwiseAbs().maxCoeff());
  std::printf("%td tokens at once, or %td and then one by one through the cache: they differ by %.1e\n", end, prompt,
              difference);
  return difference < 1e-5 ? 0 : 1;
}
