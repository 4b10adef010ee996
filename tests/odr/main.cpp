// Prints, for each unit linked in, its name and a hash of the bits of its result; fails when two units are further
// apart than rounding explains. Exit code 77: this machine has no AVX2.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

void attend_sse2(float const* q, float const* k, float const* v, float* out, int len, int dim);
void attend_avx2(float const* q, float const* k, float const* v, float* out, int len, int dim);

namespace {

constexpr int len = 67;
constexpr int dim = 40;

std::vector<float> numbers(std::uint32_t seed) {
  std::vector<float> result(len * dim);
  for (float& x : result) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<float>(seed >> 8) / static_cast<float>(1u << 23) - 1.0f;
  }
  return result;
}

template <class Function>
[[maybe_unused]] std::vector<float> run(char const* name, Function attend) {
  std::vector<float> const q = numbers(1), k = numbers(2), v = numbers(3);
  std::vector<float> out(len * dim);
  attend(q.data(), k.data(), v.data(), out.data(), len, dim);
  std::uint64_t hash = 14695981039346656037u;
  for (float const x : out) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    hash = (hash ^ bits) * 1099511628211u;
  }
  std::printf("%s %016llx\n", name, static_cast<unsigned long long>(hash));
  return out;
}

}  // namespace

int main() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    return 77;
  }
#ifdef HEED_ODR_SSE2
  auto const sse2 = run("sse2", attend_sse2);
#endif
#ifdef HEED_ODR_AVX2
  auto const avx2 = run("avx2", attend_avx2);
#endif
#if defined(HEED_ODR_SSE2) && defined(HEED_ODR_AVX2)
  for (int i = 0; i < len * dim; ++i) {
    if (!(std::abs(sse2[i] - avx2[i]) <= 1e-5f)) {
      std::printf("element %d: sse2 %g, avx2 %g\n", i, static_cast<double>(sse2[i]), static_cast<double>(avx2[i]));
      return 1;
    }
  }
#endif
  return 0;
}
