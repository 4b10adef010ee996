// One idea: one program for every machine. heed_add_dispatch (cmake/HeedDispatch.cmake) builds 16_dispatch/kernels.cpp
// once per instruction set; the program takes the best that the processor has, or the one it names.

#include "kernels_dispatch.hpp"  // generated

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <vector>

int main() {
  int const heads = 4, len = 512, dim = 64;
  std::size_t const size = std::size_t(heads) * len * dim;
  std::vector<float> q(size), k(size), v(size), best(size), out(size);
  for (std::size_t i = 0; i < size; ++i) {
    q[i] = std::sin(0.37f * static_cast<float>(i));
    k[i] = std::cos(0.11f * static_cast<float>(i));
    v[i] = std::sin(0.05f * static_cast<float>(i));
  }

  kernels const& chosen = select_kernels();
  chosen.attend(q.data(), k.data(), v.data(), best.data(), heads, len, dim);
  std::printf("this machine runs the build for %s\n", chosen.instruction_set);

  bool same = true;
  double baseline = 0;
  for (char const* name : {"baseline", "avx2", "avx512"}) {
    try {
      kernels const& build = select_kernels(name);
      double least = 1e9;
      for (int i = 0; i < 5; ++i) {
        auto const start = std::chrono::steady_clock::now();
        build.attend(q.data(), k.data(), v.data(), out.data(), heads, len, dim);
        std::chrono::duration<double, std::milli> const time = std::chrono::steady_clock::now() - start;
        least = std::min(least, time.count());
      }
      baseline = baseline > 0 ? baseline : least;
      float difference = 0;
      for (std::size_t i = 0; i < size; ++i)
        difference = std::max(difference, std::abs(out[i] - best[i]));
      same = same && difference < 1e-5f;
      std::printf("  %-8s (%-8s) %5.1f times as fast as the baseline, differs by at most %.1g\n", name,
                  build.instruction_set, baseline / least, static_cast<double>(difference));
    } catch (std::invalid_argument const&) {
      std::printf("  %-8s cannot run here\n", name);
    }
  }
  return same ? 0 : 1;
}
