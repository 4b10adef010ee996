#include "support/machine.hpp"

#include <heed/attention/attention.hpp>
#include <heed/vq/attention.hpp>
#include <heed/vq/state.hpp>

#include <cmath>
#include <cstdint>
#include <memory>

/// VQ attention: one head of 128 channels, 512 codes, blocks of 512 rows, causal, float, one thread; keys come raw, and
/// are encoded within the time that is measured.
///
/// - vq/length/<n>: slope, the log–log slope of the time from n/2 to n, both sampled in turn (1 is linear, 2 the dense
///   kernel), and us_per_row. slope_from_4k: the same from 4096 to n.
/// - vq/against_dense/<n>: times_faster than causal attention over the same keys.
/// - vq/length_rerope/<n>, vq/against_dense_rerope/32768: the same with rerope, window 512, on both sides.
/// - vq/state/<n>: a step after n tokens; state_bytes, and cache_bytes, what a cache of keys and values would take.
/// - vq/encode/<n>: keys a second, product and argmin.

namespace {

using heed::index;

constexpr index dim = 128, codes = 512, block = 512;

struct sequence {
  heed::tensor<float, 2> q, k, v, out;

  explicit sequence(index n) : q({n, dim}), k({n, dim}), v({n, dim}), out({n, dim}) {
    std::uint32_t state = 1;
    for (auto* x : {&q, &k, &v})
      for (index i = 0; i < x->size(); ++i) {
        state = state * 1664525U + 1013904223U;
        x->data()[i] = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f;
      }
  }

  /// The first n rows.
  heed::view<float, 2> first(heed::tensor<float, 2>& x, index n) const { return {x.data(), {n, dim}}; }
};

heed::codebook<float> make_book(sequence& s) {
  heed::codebook<float> book(1, codes, dim);
  book.initialise(s.first(s.k, std::min<index>(s.k.extent(0), 4096)), 1);
  return book;
}

heed::rerope code() { return {heed::rotary{heed::frequencies::standard(dim), heed::layout::half}, 512}; }

template <class... Ms>
double vq_seconds(sequence& s, heed::codebook<float> const& book, index n, Ms const&... ms) {
  return bench::seconds([&] {
    heed::vq_attention(s.first(s.q, n), s.first(s.k, n), s.first(s.v, n), s.first(s.out, n), book, block,
                       heed::causal{}, ms...);
  });
}

template <class... Ms>
void length(benchmark::State& state, Ms const&... ms) {
  index const n = state.range(0);
  sequence s(n);
  auto const book = make_book(s);
  std::vector<double> whole, half, shortest;
  for (auto _ : state) {
    shortest.push_back(vq_seconds(s, book, 4096, ms...));
    half.push_back(vq_seconds(s, book, n / 2, ms...));
    whole.push_back(vq_seconds(s, book, n, ms...));
    state.SetIterationTime(whole.back());
  }
  double const time = bench::median(whole);
  state.counters["slope"] = std::log2(time / bench::median(half));
  if (n > 4096)
    state.counters["slope_from_4k"] =
        std::log(time / bench::median(shortest)) / std::log(static_cast<double>(n) / 4096.0);
  state.counters["us_per_row"] = 1e6 * time / static_cast<double>(n);
}

template <class... Ms>
void against_dense(benchmark::State& state, Ms const&... ms) {
  index const n = state.range(0);
  sequence s(n);
  auto const book = make_book(s);
  std::vector<double> vq, dense;
  for (auto _ : state) {
    vq.push_back(vq_seconds(s, book, n, ms...));
    dense.push_back(bench::seconds([&] { heed::attention(s.q, s.k, s.v, s.out, heed::causal{}, ms...); }));
    vq.push_back(vq_seconds(s, book, n, ms...));
    state.SetIterationTime(vq.back());
  }
  state.counters["times_faster"] = bench::median(dense) / bench::median(vq);
}

void plain_length(benchmark::State& state) { length(state); }
void rerope_length(benchmark::State& state) { length(state, code()); }
void plain_against_dense(benchmark::State& state) { against_dense(state); }
void rerope_against_dense(benchmark::State& state) { against_dense(state, code()); }

void by_hand(benchmark::internal::Benchmark* b) { b->UseManualTime()->Unit(benchmark::kMillisecond); }
void lengths(benchmark::internal::Benchmark* b) {
  by_hand(b);
  b->RangeMultiplier(2)->Range(4096, 65536);
}

void streaming(benchmark::State& state) {
  index const n = state.range(0), steps = 32;
  sequence s(n + 1);
  auto const book = make_book(s);
  heed::vq_state<float> stream(book, dim);
  auto const row = [&](heed::tensor<float, 2>& x, index i) { return heed::view<float, 2>(&x(i, 0), {1, dim}); };
  stream.append(s.first(s.k, n), s.first(s.v, n));
  for (auto _ : state)
    for (index i = 0; i < steps; ++i)
      stream.step(row(s.q, n), row(s.k, n), row(s.v, n), row(s.out, n));
  state.SetItemsProcessed(state.iterations() * steps);
  state.counters["state_bytes"] = static_cast<double>(stream.bytes());
  state.counters["cache_bytes"] = static_cast<double>(2 * n * dim) * sizeof(float);
}

void encode(benchmark::State& state) {
  sequence s(state.range(0));
  auto const book = make_book(s);
  heed::tensor<std::int32_t, 1> found({state.range(0)});
  for (auto _ : state)
    book.encode(s.k, found);
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

}  // namespace

BENCHMARK(plain_length)->Name("vq/length")->Apply(lengths)->Iterations(5);
BENCHMARK(rerope_length)->Name("vq/length_rerope")->Apply(lengths)->Iterations(3);
BENCHMARK(plain_against_dense)
    ->Name("vq/against_dense")
    ->Apply(by_hand)
    ->Arg(4096)
    ->Arg(8192)
    ->Arg(32768)
    ->Iterations(2);
BENCHMARK(rerope_against_dense)->Name("vq/against_dense_rerope")->Apply(by_hand)->Arg(32768)->Iterations(1);
BENCHMARK(streaming)->Name("vq/state")->Arg(1000)->Arg(10000)->Arg(100000)->Unit(benchmark::kMicrosecond);
BENCHMARK(encode)->Name("vq/encode")->Arg(4096);

BENCHMARK_MAIN();
