#include <heed/position/rotary.hpp>

#include <benchmark/benchmark.h>

/// Rotary on its own. `gbytes`: bytes read and written a second; in place, each element is both.

namespace {

using heed::index;

heed::rotary rope_of(index dim, heed::layout channels) { return {heed::frequencies::standard(dim), channels}; }

void set_counters(benchmark::State& state, double bytes) {
  state.counters["gbytes"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

/// [heads, len, dim] in place, positions 0, 1, …
template <class T, heed::layout Channels>
void in_place(benchmark::State& state) {
  index const heads = state.range(0), len = state.range(1), dim = state.range(2);
  heed::tensor<T, 3> x({heads, len, dim});
  for (index i = 0; i < x.size(); ++i)
    x.data()[i] = static_cast<T>(static_cast<float>(i % 17) - 8);
  auto const rope = rope_of(dim, Channels);
  for (auto _ : state) {
    rope.apply(x, 0);
    benchmark::ClobberMemory();
  }
  set_counters(state, 2.0 * static_cast<double>(x.size()) * sizeof(T));
}

template <class T, heed::layout Channels>
void out_of_place(benchmark::State& state) {
  index const heads = state.range(0), len = state.range(1), dim = state.range(2);
  heed::tensor<T, 3> x({heads, len, dim}), out({heads, len, dim});
  for (index i = 0; i < x.size(); ++i)
    x.data()[i] = static_cast<T>(static_cast<float>(i % 17) - 8);
  auto const rope = rope_of(dim, Channels);
  for (auto _ : state) {
    rope.apply(x, 0, out);
    benchmark::ClobberMemory();
  }
  set_counters(state, 2.0 * static_cast<double>(x.size()) * sizeof(T));
}

/// One row a head at a far position: what decode asks for, and the cost of a seek to anywhere.
void decode_row(benchmark::State& state) {
  index const heads = state.range(0), dim = state.range(1);
  heed::tensor<float, 3> x({heads, 1, dim});
  auto const rope = rope_of(dim, heed::layout::half);
  double position = 100000;
  for (auto _ : state) {
    rope.apply(x, position++);
    benchmark::ClobberMemory();
  }
  set_counters(state, 2.0 * static_cast<double>(x.size()) * sizeof(float));
}

/// The kernel's way: one rotator, row after row, in the first-level cache.
template <heed::layout Channels>
void rows_in_cache(benchmark::State& state) {
  index const dim = state.range(0), rows = 64;
  auto const rope = rope_of(dim, Channels);
  heed::tensor<float, 2> x({rows, dim});
  heed::workspace scratch(heed::rotator<float>::scratch_bytes(dim / 2));
  heed::rotator<float> rotate(rope.what(), scratch.data());
  double position = 0;
  for (auto _ : state) {
    rotate.rotate_rows(rows, [&](index i) { return position + static_cast<double>(i); }, x.data(), dim, x.data(), dim);
    position += static_cast<double>(rows);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * rows);
  set_counters(state, 2.0 * static_cast<double>(x.size()) * sizeof(float));
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"heads", "len", "dim"})
      ->Args({1, 512, 128})
      ->Args({8, 2048, 64})
      ->Args({8, 2048, 128})
      ->Args({32, 4096, 128});
}

}  // namespace

BENCHMARK(in_place<float, heed::layout::half>)->Name("rotary/in_place/half/float")->Apply(shapes);
BENCHMARK(in_place<float, heed::layout::interleaved>)->Name("rotary/in_place/interleaved/float")->Apply(shapes);
BENCHMARK(in_place<double, heed::layout::half>)->Name("rotary/in_place/half/double")->Apply(shapes);
BENCHMARK(in_place<Eigen::half, heed::layout::half>)->Name("rotary/in_place/half/half")->Apply(shapes);
BENCHMARK(in_place<Eigen::bfloat16, heed::layout::half>)->Name("rotary/in_place/half/bfloat16")->Apply(shapes);
BENCHMARK(out_of_place<float, heed::layout::half>)->Name("rotary/out_of_place/half/float")->Apply(shapes);
BENCHMARK(out_of_place<float, heed::layout::interleaved>)->Name("rotary/out_of_place/interleaved/float")->Apply(shapes);
BENCHMARK(decode_row)->Name("rotary/decode_row/half/float")->ArgNames({"heads", "dim"})->Args({8, 64})->Args({32, 128});
BENCHMARK(rows_in_cache<heed::layout::half>)->Name("rotary/rows_in_cache/half")->ArgName("dim")->Arg(64)->Arg(128);
BENCHMARK(rows_in_cache<heed::layout::interleaved>)
    ->Name("rotary/rows_in_cache/interleaved")
    ->ArgName("dim")
    ->Arg(64)
    ->Arg(128);

BENCHMARK_MAIN();
