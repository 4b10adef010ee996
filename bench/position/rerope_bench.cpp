#include "support/machine.hpp"

#include <heed/cache/kv_cache.hpp>

/// What rectified rotary codes cost beside plain RoPE.
///
/// - rerope/prefill/dim:N, leaky_rerope/…, self_extend/…: causal, 4096 × 4096, window 1024, one head, one thread.
///   of_rope: the time of this code ÷ that of rotary in the same run (1.15 is the promise for ReRoPE;
///   two whole products would be near 1.5).
/// - rerope/decode/dim:N/keys:K: one token from a kv_cache of K keys, 8 heads. of_plain: ÷ plain attention over a raw
///   cache; of_rope: ÷ a cache of turned keys (1.1 is the promise); rope_of_plain: those two. Beside few keys the query's
///   own turn shows.
/// - rerope/prompt/dim:N/rows:R: causal, R × R, 8 heads, raw keys, with the same counters: beside few rows turns show.

namespace {

using heed::index;

template <int Rank>
void fill(heed::tensor<float, Rank>& x, std::uint32_t seed) {
  std::uint32_t state = seed * 2654435761U + 1;
  for (index i = 0; i < x.size(); ++i) {
    state = state * 1664525U + 1013904223U;
    x.data()[i] = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f;
  }
}

heed::rotary turn_of(index dim) { return {heed::frequencies::standard(dim), heed::layout::half}; }

struct inputs {
  heed::tensor<float, 3> q, k, v, out;
  inputs(index heads, index q_len, index kv_len, index dim)
      : q({heads, q_len, dim}), k({heads, kv_len, dim}), v({heads, kv_len, dim}), out({heads, q_len, dim}) {
    fill(q, 1);
    fill(k, 2);
    fill(v, 3);
  }
};

template <class Make>
void prefill(benchmark::State& state, Make make) {
  index const n = 4096, dim = state.range(0);
  inputs in(1, n, n, dim);
  auto const rope = turn_of(dim);
  auto const code = make(rope);
  bench::comparison c(state);
  c.against("peak", [] { return bench::fma_peak(); });
  c.against("rope",
            [&] { return bench::seconds([&] { heed::attention(in.q, in.k, in.v, in.out, heed::causal{}, rope); }); });
  c.run([&] { heed::attention(in.q, in.k, in.v, in.out, heed::causal{}, code); });
  c.count_flops(4.0 * static_cast<double>(dim) * static_cast<double>(n) * static_cast<double>(n + 1) / 2);
  c.count("of_rope", c.time() / c.middle("rope"));
}

/// A call, in turns with the same without positions and with rotary.
template <class Plain, class Rope, class Call>
void beside(bench::comparison& c, Plain plain, Rope rope, Call call) {
  c.against("plain", [&] { return bench::seconds(plain); });
  c.against("rope", [&] { return bench::seconds(rope); });
  c.run(call);
  c.count("of_plain", c.time() / c.middle("plain"));
  c.count("of_rope", c.time() / c.middle("rope"));
  c.count("rope_of_plain", c.middle("rope") / c.middle("plain"));
}

template <class Make>
void decode(benchmark::State& state, Make make) {
  index const n = state.range(1), heads = 8, dim = state.range(0);
  inputs in(heads, 1, n, dim);
  auto const rope = turn_of(dim);
  heed::kv_cache<float> plain(heads, dim, dim, n), turned(heads, dim, dim, n, rope),
      cache(heads, dim, dim, n, make(rope));
  for (auto* each : {&plain, &turned, &cache})
    each->append(in.k, in.v);
  auto const call = [&](heed::kv_cache<float> const& from) { heed::attention(in.q, from, in.out, heed::causal{}); };
  bench::comparison c(state);
  beside(c, [&] { call(plain); }, [&] { call(turned); }, [&] { call(cache); });
  c.count_bytes(8.0 * static_cast<double>(heads * n * dim));
}

template <class Make>
void prompt(benchmark::State& state, Make make) {
  index const n = state.range(1), dim = state.range(0);
  inputs in(8, n, n, dim);
  auto const rope = turn_of(dim);
  auto const code = make(rope);
  auto const call = [&](auto const&... ms) { heed::attention(in.q, in.k, in.v, in.out, heed::causal{}, ms...); };
  bench::comparison c(state);
  beside(c, [&] { call(); }, [&] { call(rope); }, [&] { call(code); });
}

template <class Make>
void register_code(char const* name, Make make) {
  benchmark::RegisterBenchmark((std::string(name) + "/prefill").c_str(),
                               [make](benchmark::State& s) { prefill(s, make); })
      ->UseManualTime()
      ->ArgName("dim")
      ->Arg(64)
      ->Arg(128);
  benchmark::RegisterBenchmark((std::string(name) + "/decode").c_str(),
                               [make](benchmark::State& s) { decode(s, make); })
      ->UseManualTime()
      ->ArgNames({"dim", "keys"})
      ->Args({64, 16384})
      ->Args({128, 16384})
      ->Args({128, 512})
      ->Args({128, 64});
  benchmark::RegisterBenchmark((std::string(name) + "/prompt").c_str(),
                               [make](benchmark::State& s) { prompt(s, make); })
      ->UseManualTime()
      ->ArgNames({"dim", "rows"})
      ->ArgsProduct({{64, 128}, {16, 64, 128, 512}});
}

}  // namespace

int main(int argc, char** argv) {
  register_code("rerope", [](heed::rotary const& r) { return heed::rerope{r, 1024}; });
  register_code("leaky_rerope", [](heed::rotary const& r) { return heed::leaky_rerope{r, 1024, 16}; });
  register_code("self_extend", [](heed::rotary const& r) { return heed::self_extend{r, 1024, 8}; });
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv))
    return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
