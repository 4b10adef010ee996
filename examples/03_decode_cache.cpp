// One idea: a prompt and a single token are the same call. The cache holds raw keys and grows;
// queries stand at its end.

#include <heed/attention/attention.hpp>
#include <heed/position/rotary.hpp>

#include <Eigen/Core>

#include <cstdio>

int main() {
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Eigen::Index const prompt = 12, len = 20, dim = 16;

  // What some model computed for 20 tokens, one head; row i belongs to token i.
  matrix const q = matrix::Random(len, dim), k = matrix::Random(len, dim), v = matrix::Random(len, dim);

  // Named once, used for everything. Keys are rotated on their way into the kernel, so the cache stays raw.
  auto const rules =
      heed::modifiers(heed::causal{}, heed::rotary{heed::frequencies::standard(dim), heed::layout::interleaved});

  matrix whole(len, dim);
  heed::attention(q, k, v, whole, rules);

  matrix cache_k(0, dim), cache_v(0, dim), out(len, dim);
  auto const take = [&](Eigen::Index first, Eigen::Index count) {
    cache_k.conservativeResize(first + count, dim);
    cache_v.conservativeResize(first + count, dim);
    cache_k.bottomRows(count) = k.middleRows(first, count);
    cache_v.bottomRows(count) = v.middleRows(first, count);
    heed::attention(q.middleRows(first, count), cache_k, cache_v, out.middleRows(first, count), rules);
  };

  std::printf("tokens    cache   largest difference from the whole sequence at once\n");
  take(0, prompt);
  std::printf(" 0-%td     %5td   %.1e\n", prompt - 1, cache_k.rows(),
              static_cast<double>((out - whole).topRows(prompt).cwiseAbs().maxCoeff()));
  for (Eigen::Index token = prompt; token < len; ++token) {
    take(token, 1);
    std::printf("%2td        %5td   %.1e\n", token, cache_k.rows(),
                static_cast<double>((out - whole).row(token).cwiseAbs().maxCoeff()));
  }
  bool const same = (out - whole).cwiseAbs().maxCoeff() < 1e-5f;
  std::printf("\n%s. Nobody had to say where the queries stand: unless told otherwise, they are the last rows.\n",
              same ? "The same to rounding" : "NOT the same");
  return same ? 0 : 1;
}
