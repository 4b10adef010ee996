// heed_test_dispatch best|baseline|avx2|avx512: runs the table that select_kernels gives, and checks that it is the one
// built for that instruction set and that its results are right. Exit code 77: this machine cannot run it.

#include "kernels_dispatch.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int len = 67;
constexpr int dim = 40;
int faults = 0;

void expect(bool holds, std::string const& what) {
  if (!holds) {
    std::printf("FAILED: %s\n", what.c_str());
    ++faults;
  }
}

std::vector<float> numbers(unsigned seed) {
  std::vector<float> result(len * dim);
  for (float& x : result) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<float>(seed >> 8) / static_cast<float>(1u << 23) - 1.0f;
  }
  return result;
}

/// softmax(q kᵀ / √dim) v under causal, as written.
std::vector<double> expected(std::vector<float> const& q, std::vector<float> const& k, std::vector<float> const& v) {
  auto const at = [](std::vector<float> const& x, int i, int c) {
    return static_cast<double>(x[static_cast<std::size_t>(i * dim + c)]);
  };
  std::vector<double> out(len * dim);
  for (int i = 0; i < len; ++i) {
    double sum = 0;
    for (int j = 0; j <= i; ++j) {
      double s = 0;
      for (int c = 0; c < dim; ++c)
        s += at(q, i, c) * at(k, j, c);
      double const weight = std::exp(s / std::sqrt(static_cast<double>(dim)));
      sum += weight;
      for (int c = 0; c < dim; ++c)
        out[static_cast<std::size_t>(i * dim + c)] += weight * at(v, j, c);
    }
    for (int c = 0; c < dim; ++c)
      out[static_cast<std::size_t>(i * dim + c)] /= sum;
  }
  return out;
}

/// The name that heed gives to what a build's flags ask for; another where this program's own flags ask for more.
std::string best_here() {
#if defined(__x86_64__)
  bool const avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool const avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512cd");
  return avx2 ? avx512 ? "avx512" : "avx2+fma" : "sse2";
#else
  return test::select_kernels("baseline").name;
#endif
}

std::string name_of(std::string const& asked) {
  if (asked == "avx2")
    return "avx2+fma";
#if defined(__x86_64__)
  if (asked == "baseline")
    return "sse2";
#endif
  return asked == "baseline" || asked == "best" ? best_here() : asked;
}

void check(test::kernels const& run, std::string const& name) {
  char said[32];
  run.explained(len, dim, said);
  std::printf("built for %s, explain says %s, expected %s\n", run.name, said, name.c_str());
  expect(run.name == name, "the build is the expected one");
  expect(said == name, "explain names the instruction set of the build");

  std::vector<float> const q = numbers(1), k = numbers(2), v = numbers(3);
  std::vector<float> out(len * dim);
  run.attend(q.data(), k.data(), v.data(), out.data(), len, dim);
  std::vector<double> const right = expected(q, k, v);
  double worst = 0;
  for (std::size_t i = 0; i < out.size(); ++i)
    worst = std::max(worst, std::abs(static_cast<double>(out[i]) - right[i]));
  std::printf("largest error %.2g\n", worst);
  expect(worst < 2e-6, "results are right");

  // Types of exceptions are local to each build; they are told by name, so that catching works on both sides.
  expect(run.refuses(), "an error is caught within the build");
  bool caught = false;
  try {
    run.throws();
  } catch (std::invalid_argument const& error) {
    caught = std::strstr(error.what(), "out") != nullptr;
  }
  expect(caught, "an error is caught outside of the build");
}

}  // namespace

int main(int argc, char** argv) {
  std::string const asked = argc == 2 ? argv[1] : "";
  bool refused = false;
  try {
    test::select_kernels("mmx");
  } catch (std::invalid_argument const& error) {
    refused = std::strstr(error.what(), "mmx") != nullptr && std::strstr(error.what(), "baseline") != nullptr;
  }
  expect(refused, "a name that was not built is refused by name");

  test::kernels const* table = nullptr;
  try {
    table = asked == "best" ? &test::select_kernels() : &test::select_kernels(asked);
  } catch (std::invalid_argument const& error) {
    std::printf("%s\n", error.what());
    return faults == 0 ? 77 : 1;
  }
  check(*table, name_of(asked));
  return faults == 0 ? 0 : 1;
}
