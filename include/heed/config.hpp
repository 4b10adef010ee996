#pragma once

/// Every macro a user may set, with its default, and the inline namespace that keeps builds for different
/// instruction sets apart.
///
/// - `HEED_FAIL(message)`: what happens on bad input where exceptions are off (default: print and abort).
/// - `HEED_ALLOW_FINITE_MATH`: define it to compile under `-ffinite-math-only` at your own risk: minus infinity is a
///   legal score here, and that flag lets the compiler assume there is none.
/// - `HEED_STACK_SCRATCH_BYTES`: scratch a call may keep on the stack before it allocates (default 64 KiB).

#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ && !defined(HEED_ALLOW_FINITE_MATH)
#error "heed: -ffinite-math-only (in -ffast-math) breaks masks, minus infinity; HEED_ALLOW_FINITE_MATH insists"
#endif

#ifndef HEED_FAIL
#include <cstdio>
#include <cstdlib>
#define HEED_FAIL(message) (std::fprintf(stderr, "%s\n", (message)), std::abort())
#endif

#ifndef HEED_STACK_SCRATCH_BYTES
#define HEED_STACK_SCRATCH_BYTES 65536
#endif

// Two translation units built with different -m flags would otherwise share weak symbols, and the linker would keep
// either one: everything whose code depends on the instruction set lives in this inline namespace.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#if (defined(__AMX_BF16__) || defined(__AMXBF16__)) && defined(__AVX512BF16__)
#define HEED_HAS_AMX 1
#define HEED_ISA isa_avx512_amx
#define HEED_ISA_NAME "avx512+amx"
#elif defined(__AVX512FP16__)
#define HEED_ISA isa_avx512_fp16
#define HEED_ISA_NAME "avx512+fp16"
#else
#define HEED_ISA isa_avx512
#define HEED_ISA_NAME "avx512"
#endif
#elif defined(__AVX512F__)
#define HEED_ISA isa_avx512f
#define HEED_ISA_NAME "avx512f"
#elif defined(__AVX2__) && defined(__FMA__)
#define HEED_ISA isa_avx2_fma
#define HEED_ISA_NAME "avx2+fma"
#elif defined(__AVX2__)
#define HEED_ISA isa_avx2
#define HEED_ISA_NAME "avx2"
#elif defined(__AVX__)
#define HEED_ISA isa_avx
#define HEED_ISA_NAME "avx"
#elif defined(__SSE4_2__)
#define HEED_ISA isa_sse4_2
#define HEED_ISA_NAME "sse4.2"
#elif defined(__SSE2__)
#define HEED_ISA isa_sse2
#define HEED_ISA_NAME "sse2"
#elif defined(__aarch64__)
#define HEED_ISA isa_neon64
#define HEED_ISA_NAME "neon64"
#else
#define HEED_ISA isa_generic
#define HEED_ISA_NAME "generic"
#endif

#define HEED_ISA_BEGIN inline namespace HEED_ISA {
#define HEED_ISA_END }

#define HEED_ALWAYS_INLINE [[gnu::always_inline]]
// On a lambda: between its parameters and its body.
#define HEED_LAMBDA_INLINE __attribute__((always_inline))
#define HEED_NOINLINE [[gnu::noinline]]
// Before a loop of a constant number of steps, up to 64.
#if defined(__clang__)
#define HEED_UNROLL _Pragma("clang loop unroll(full)")
#else
#define HEED_UNROLL _Pragma("GCC unroll 64")
#endif
