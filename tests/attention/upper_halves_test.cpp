#include <heed/heed.hpp>

#include "support/catch.hpp"
#include "support/random.hpp"

#if defined(__AVX__) && defined(__OPTIMIZE__)

#include <cpuid.h>

// SSE code that finds the upper halves of vector registers in use runs at a fraction of its speed. Compilers clear them at
// the end of a function, but not in every case: see `transpose_square`.

namespace heed::test {
namespace {

/// Whether the processor tells which parts of its state are in use.
bool tells_state_in_use() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(13, 1, &a, &b, &c, &d) != 0 && (a >> 2 & 1U) != 0;
}

/// The upper halves of ymm0–15 (bit 2) and zmm0–15 (bit 6), those that can be cleared by themselves.
HEED_ALWAYS_INLINE inline unsigned upper_halves_in_use() {
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
  return low & (1U << 2 | 1U << 6);
}

/// Not inlined: what is seen is what a function that calls heed leaves behind.
template <class... Arguments>
HEED_NOINLINE void call(Arguments const&... arguments) {
  attention(arguments...);
}

template <class... Modifiers>
unsigned left_by_a_call(index q_len, index dim, Modifiers const&... ms) {
  generator random(1);
  auto const q = normal_tensor<float, 3>({2, q_len, dim}, random);
  auto const k = normal_tensor<float, 3>({2, 40, dim}, random), v = normal_tensor<float, 3>({2, 40, dim}, random);
  tensor<float, 3> out({2, q_len, dim});
  call(q.view(), k.view(), v.view(), out.view(), ms...);
  return upper_halves_in_use();
}

TEST_CASE("A call leaves no upper halves of registers in use", "[resources]") {
  if (!tells_state_in_use()) {
    WARN("this processor does not tell what is in use");
    return;
  }
  for (index q_len : {1, 4, 16, 70})
    for (index dim : {16, 64, 59}) {
      CAPTURE(q_len, dim);
      CHECK(left_by_a_call(q_len, dim) == 0);
      CHECK(left_by_a_call(q_len, dim, causal{}) == 0);
      CHECK(left_by_a_call(q_len, dim, rotary{frequencies::standard(16), layout::half}) == 0);
    }
}

}  // namespace
}  // namespace heed::test

#endif
