// One idea: heed owns no threads; `on` runs a call on yours. The result does not depend on how many there are.

#include <heed/attention/attention.hpp>
#include <heed/core/thread_pool.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

/// The best of five.
template <class Work>
double milliseconds(Work work) {
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    auto const start = std::chrono::steady_clock::now();
    work();
    best = std::min(best, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

int main() {
  heed::index const heads = 8, len = 1024, dim = 64;
  heed::tensor<float, 3> q({heads, len, dim}), k({heads, len, dim}), v({heads, len, dim});
  for (auto* x : {&q, &k, &v})
    for (heed::index h = 0; h < heads; ++h)
      x->matrix(h).setRandom();

  heed::tensor<float, 3> alone({heads, len, dim}), together({heads, len, dim});
  double const one = milliseconds([&] { heed::attention(q, k, v, alone, heed::causal{}); });

  // The calling thread takes part, so the pool needs one thread fewer than there are cores.
  int const cores = std::max(2, static_cast<int>(std::thread::hardware_concurrency()));
  Eigen::ThreadPool threads(cores - 1);
  heed::thread_pool pool{threads};
  double const many = milliseconds([&] { heed::attention(q, k, v, together, heed::causal{}, heed::on{pool}); });

  bool const same = std::equal(alone.data(), alone.data() + alone.size(), together.data());
  std::printf("%td heads, %td x %td, causal\n", heads, len, len);
  std::printf("  one thread   %7.1f ms\n", one);
  std::printf("  %2d threads   %7.1f ms, %.2f times as fast\n", cores, many, one / many);
  std::printf("The results are %s.\n", same ? "equal bit for bit" : "NOT equal");
  return same ? 0 : 1;
}
