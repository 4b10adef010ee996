#include "support/machine.hpp"

#include <heed/gated/gau.hpp>
#include <heed/gated/linear.hpp>
#include <heed/gated/mixed_chunk.hpp>

#include <cmath>

/// Gated and linear attention, one thread, float.
///
/// - squared_relu/<len>x<dim>/<e>: relu² attention; against_softmax: softmax's time ÷ its time (above 1: faster).
/// - layer/<len>: a GAU layer of GAU-α's size (768, 1536, 128); gflops, of_peak, against_softmax.
/// - mixed_chunk/<len>, linear/<len>, retention/<len>: s = 128, e = 256; slope: d log(time) / d log(len) from the
///   length before to this one, both taken in turns; dense: squared-ReLU attention's time ÷ its time.

namespace {

using bench::comparison;
using heed::index;

template <int Rank>
heed::tensor<float, Rank> filled(heed::index_array<Rank> const& extents, std::uint32_t state) {
  heed::tensor<float, Rank> x(extents);
  for (index i = 0; i < x.size(); ++i) {
    state = state * 1664525U + 1013904223U;
    x.data()[i] = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f;
  }
  return x;
}

struct inputs {
  heed::tensor<float, 2> q, k, v, out;

  inputs(index len, index s, index e)
      : q(filled<2>({len, s}, 1)), k(filled<2>({len, s}, 2)), v(filled<2>({len, e}, 3)), out({len, e}) {}

  double flops() const {
    return 2.0 * static_cast<double>(q.extent(0)) * static_cast<double>(q.extent(0)) *
           static_cast<double>(q.extent(1) + v.extent(1));
  }
};

void squared_relu(benchmark::State& state) {
  inputs in(state.range(0), state.range(1), state.range(2));
  comparison c(state);
  c.against("peak", [] { return bench::fma_peak(); });
  c.against("softmax", [&] { return bench::seconds([&] { heed::attention(in.q, in.k, in.v, in.out); }); });
  c.run([&] { heed::attention(in.q, in.k, in.v, in.out, heed::squared_relu{heed::fixed{1024}}); });
  c.count_flops(in.flops());
  c.count_ratio("against_softmax", "softmax");
}

void layer(benchmark::State& state) {
  index const len = state.range(0);
  auto const w_in = filled<2>({768, 2 * 1536 + 128}, 1), w_out = filled<2>({1536, 768}, 2),
             gamma = filled<2>({2, 128}, 3);
  auto const x = filled<2>({len, 768}, 4);
  heed::tensor<float, 2> out(x.extents());
  heed::gau<float> const gau(w_in, gamma, w_out);
  comparison c(state);
  c.against("peak", [] { return bench::fma_peak(); });
  c.against("softmax", [&] { return bench::seconds([&] { gau.forward(x, out, heed::log_n_clamped{512, 16}); }); });
  c.run([&] { gau.forward(x, out, heed::squared_relu{heed::visible{}}); });
  auto const n = static_cast<double>(len);
  c.count_flops(2 * n * (768.0 * (3 * 1536 + 128) + n * (128 + 1536)));
  c.count_ratio("against_softmax", "softmax");
}

/// Time at a length, against half of it and against dense attention.
template <class Call>
void growth(benchmark::State& state, Call const& call) {
  index const len = state.range(0);
  inputs whole(len, 128, 256), half(len / 2, 128, 256);
  comparison c(state);
  c.against("half", [&] { return bench::seconds([&] { call(half); }); });
  if (len <= 8192)
    c.against("dense", [&] {
      return bench::seconds([&] {
        heed::attention(whole.q, whole.k, whole.v, whole.out, heed::causal{}, heed::squared_relu{heed::fixed{256}});
      });
    });
  c.run([&] { call(whole); });
  c.count("slope", std::log2(c.time() / c.middle("half")));
  c.count_ratio("dense", "dense");
}

void mixed_chunk(benchmark::State& state) {
  growth(state, [](inputs& x) {
    heed::mixed_chunk_attention(x.q, x.k, x.q, x.k, x.v, x.out, heed::chunks{256}, heed::causal{});
  });
}
void linear(benchmark::State& state) {
  growth(state, [](inputs& x) { heed::linear_attention(x.q, x.k, x.v, x.out, heed::causal{}); });
}
void retention(benchmark::State& state) {
  static std::vector<double> const gamma{0.97};
  growth(state, [](inputs& x) {
    heed::linear_attention(x.q, x.k, x.v, x.out, heed::causal{}, heed::identity{}, heed::unnormalized{},
                           heed::decay{gamma});
  });
}

}  // namespace

BENCHMARK(squared_relu)
    ->UseManualTime()
    ->Args({512, 64, 64})
    ->Args({2048, 64, 64})
    ->Args({2048, 128, 128})
    ->Args({1024, 128, 512})
    ->Args({1024, 128, 1536});
BENCHMARK(layer)->UseManualTime()->Arg(128)->Arg(512)->Arg(2048);
BENCHMARK(mixed_chunk)->UseManualTime()->RangeMultiplier(2)->Range(4096, 65536);
BENCHMARK(linear)->UseManualTime()->RangeMultiplier(2)->Range(4096, 65536);
BENCHMARK(retention)->UseManualTime()->RangeMultiplier(2)->Range(4096, 65536);

BENCHMARK_MAIN();
