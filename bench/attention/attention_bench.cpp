#include "support/floors.hpp"
#include "support/machine.hpp"
#include "support/shapes.hpp"

#include <heed/attention/attention.hpp>
#include <heed/cache/quantized.hpp>
#include <heed/core/thread_pool.hpp>
#include <heed/position/rerope.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <vector>

/// The front door.
///
/// - prefill/<shape>/<full|causal|window>: one thread, float. Counters: gflops (visible pairs only), peak_gflops and
///   of_peak (multiply-adds of this process at this moment), against_eigen and against_openblas (the floors' time ÷
///   heed's).
/// - prefill/…/2threads: against the peak of two; threads/<shape>: of_one_thread is one thread's time ÷ two threads'.
/// - limits/fed: multiply-adds with the loads of a register tile from the first-level cache, as a share of the peak, which
///   has none: what a product can reach.
/// - limits/clock: the peak between calls of a long prompt (dim 128, 2048 × 2048), as a share of the peak alone: how far the
///   core slows down under it.
/// - amx/<shape>: bfloat16 on tiles, where the build has them; of_peak is of fp32's, tile_gflops the tiles' own.
/// - amx/…/rotary, amx/…/rerope, amx/…/int8, amx/…/alibi, amx/…/steep: queries and keys turned on the way, rectified from a
///   quarter of the keys on, int8 keys and values beside bfloat16 queries, a bias, scores of σ = 8; of_plain is the time of
///   bfloat16 on tiles ÷ theirs.
/// - modifier/<name>: one modifier at dim 64, 2048 × 2048, full; of_plain: time without it ÷ time with it. modifier/steep is of
///   scores of σ = 20, which must take no longer.
/// - side_by_side/<shape>: the rows of heads that lie side by side, as a projection leaves them; of_plain is the time of heads
///   one after the other ÷ theirs.
/// - decode/<shape>/<storage>: one new token; gbytes, and against a read of the same keys and values
///   bandwidth_gbytes and of_bandwidth.
/// - decode/…/int8/amx: with grouped heads on AMX tiles, where the build has them; of_plain is the time without ÷ with them.
/// - decode/…/2threads: the same on heed::thread_pool, against the limits of two threads.
/// - fixed_cost: one query, 16 keys of dim 64, against Eigen's 16 × 64 matrix–vector product.

namespace {

using bench::comparison;
using bench::shape;
using bench::visible;
using heed::index;

/// Uniform in [−1, 1): repeatable, and quick enough for caches of a gigabyte.
template <class T, int Rank>
void fill(heed::tensor<T, Rank>& x, std::uint32_t seed) {
  std::uint32_t state = seed * 2654435761U + 1;
  for (index i = 0; i < x.size(); ++i) {
    state = state * 1664525U + 1013904223U;
    x.data()[i] = static_cast<T>(static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f);
  }
}

/// What brings scores of such numbers to a standard deviation of `sigma`.
heed::scale steep(index dim, double sigma) { return heed::scale{3 * sigma / std::sqrt(static_cast<double>(dim))}; }

template <class T>
struct inputs {
  heed::tensor<T, 3> q, k, v, out;

  explicit inputs(shape const& s)
      : q({s.heads_q, s.q_len, s.dim}), k({s.heads_kv, s.kv_len, s.dim}), v({s.heads_kv, s.kv_len, s.dim}),
        out({s.heads_q, s.q_len, s.dim}) {
    fill(q, 1);
    fill(k, 2);
    fill(v, 3);
  }

  template <class... Ms>
  void attend(Ms const&... ms) {
    heed::attention(q, k, v, out, ms...);
  }
  template <class... Ms>
  void attend(shape const& s, visible sees, Ms const&... ms) {
    if (sees == visible::full)
      return attend(ms...);
    attend(heed::causal{}, heed::window{sees == visible::window ? s.window - 1 : heed::unbounded, heed::unbounded},
           ms...);
  }
};

template <class T, int Rank>
bench::memory_range range_of(heed::tensor<T, Rank> const& x) {
  return {x.data(), static_cast<std::size_t>(x.size()) * sizeof(T)};
}

/// Keys and values of 8 bits, a scale a row.
template <>
struct inputs<heed::int8> {
  heed::tensor<float, 3> q, out;
  heed::tensor<heed::int8, 3> k, v;
  heed::tensor<float, 2> k_scales, v_scales;

  explicit inputs(shape const& s)
      : q({s.heads_q, s.q_len, s.dim}), out(q.extents()), k({s.heads_kv, s.kv_len, s.dim}), v(k.extents()),
        k_scales({s.heads_kv, s.kv_len}), v_scales(k_scales.extents()) {
    heed::tensor<float, 3> numbers(k.extents());
    fill(q, 1);
    fill(numbers, 2);
    heed::quantize(numbers, k, k_scales);
    fill(numbers, 3);
    heed::quantize(numbers, v, v_scales);
  }

  template <class... Ms>
  void attend(Ms const&... ms) {
    heed::attention(q, heed::quantized_view(k, k_scales), heed::quantized_view(v, v_scales), out, ms...);
  }
};

/// The memory that one new token reads.
template <class T>
std::vector<bench::memory_range> cache_of(inputs<T> const& in) {
  return {range_of(in.k), range_of(in.v)};
}
std::vector<bench::memory_range> cache_of(inputs<heed::int8> const& in) {
  return {range_of(in.k), range_of(in.v), range_of(in.k_scales), range_of(in.v_scales)};
}

double bytes_of(std::vector<bench::memory_range> const& ranges) {
  double bytes = 0;
  for (bench::memory_range const& part : ranges)
    bytes += static_cast<double>(part.bytes);
  return bytes;
}

/// A pool whose helpers and the calling thread are `threads` workers.
struct workers {
  explicit workers(int threads) : pool(threads - 1), place(pool) {}
  Eigen::ThreadPool pool;
  heed::thread_pool place;
};

// --- prefill -------------------------------------------------------------------------------------------------------

/// Adds a floor, unless its result is not heed's.
template <class Products>
bool add_floor(comparison& c, benchmark::State& state, char const* name, shape const& s, visible sees,
               inputs<float> const& in, std::vector<float>& scratch) {
  auto other = std::make_shared<heed::tensor<float, 3>>(in.out.extents());
  auto const call = [&, other, s, sees] {
    bench::composed_attention<Products>(s, sees, in.q.view(), in.k.view(), in.v.view(), other->view(), scratch);
  };
  call();
  float worst = 0;
  for (index i = 0; i < other->size(); ++i)
    worst = std::max(worst, std::abs(other->data()[i] - in.out.data()[i]));
  if (!(worst <= 1e-5f)) {
    state.SkipWithError((std::string(name) + " differs from heed by " + std::to_string(worst)).c_str());
    return false;
  }
  c.against(name, [call] { return bench::seconds(call); });
  return true;
}

void prefill(benchmark::State& state, shape const& s, visible sees) {
  inputs<float> in(s);
  std::vector<float> scratch;
  in.attend(s, sees);
  comparison c(state);
  c.against("peak", [] { return bench::fma_peak(); });
  if (!add_floor<bench::eigen_products>(c, state, "eigen", s, sees, in, scratch))
    return;
#if defined(HEED_BENCH_OPENBLAS)
  if (!add_floor<bench::openblas_products>(c, state, "openblas", s, sees, in, scratch))
    return;
#endif
  c.run([&] { in.attend(s, sees); });
  c.count_flops(s.flops(sees));
  c.count_ratio("against_eigen", "eigen");
  c.count_ratio("against_openblas", "openblas");
}

void prefill_threads(benchmark::State& state, shape const& s, visible sees, int threads) {
  inputs<float> in(s);
  workers w(threads);
  comparison c(state, 1, threads);
  c.against("peak", [&] { return bench::fma_peak(w.place); });
  c.run([&] { in.attend(s, sees, heed::on{w.place}); });
  c.count_flops(s.flops(sees));
}

/// One thread and two in turns, by the machine's clock both.
void threads_gain(benchmark::State& state, shape const& s, visible sees) {
  inputs<float> in(s);
  workers w(2);
  comparison c(state, 1, 2);
  c.against("peak", [&] { return bench::fma_peak(w.place); });
  c.against("one thread", [&] { return bench::seconds([&] { in.attend(s, sees); }, 2); });
  c.run([&] { in.attend(s, sees, heed::on{w.place}); });
  c.count_flops(s.flops(sees));
  c.count_ratio("of_one_thread", "one thread");
}

/// call(in, modifiers…) on AMX tiles, in turns with the same without, and `beside_plain` with bfloat16 as it is. `of_peak` is
/// of fp32's multiply-adds; `tile_gflops` tells how quiet the machine was.
template <class Call>
void on_tiles(benchmark::State& state, shape const& s, visible sees, bool beside_plain, Call const& call) {
  auto const permit = heed::enable_amx();
  if (!permit)
    return state.SkipWithError("no permit for AMX");
  inputs<Eigen::bfloat16> in(s);
  comparison c(state);
  c.against("peak", [] { return bench::fma_peak(); });
#if defined(HEED_HAS_AMX)
  c.against("tiles", [] { return bench::tile_peak(); });
#endif
  if (beside_plain)
    c.against("plain", [&] { return bench::seconds([&] { in.attend(s, sees, heed::with_amx{permit}); }); });
  c.against("without", [&] { return bench::seconds([&] { call(in); }); });
  c.run([&] { call(in, heed::with_amx{permit}); });
  c.count_flops(s.flops(sees));
  c.count_ratio("against_fp32_products", "without");
  c.count_ratio("of_plain", "plain");
  c.count("tile_gflops", c.middle("tiles") * 1e-9);
}

[[maybe_unused]] void prefill_on_tiles(benchmark::State& state, shape const& s, visible sees) {
  on_tiles(state, s, sees, false, [&](auto& in, auto const&... ms) { in.attend(s, sees, ms...); });
}

template <class Modifier>
void modified_on_tiles(benchmark::State& state, shape const& s, visible sees, Modifier const& modifier) {
  on_tiles(state, s, sees, true, [&](auto& in, auto const&... ms) { in.attend(s, sees, modifier, ms...); });
}

[[maybe_unused]] void rotary_on_tiles(benchmark::State& state, shape const& s, visible sees) {
  modified_on_tiles(state, s, sees, heed::rotary{heed::frequencies::standard(s.dim), heed::layout::half});
}

[[maybe_unused]] void rerope_on_tiles(benchmark::State& state, shape const& s, visible sees) {
  heed::rotary const turn{heed::frequencies::standard(s.dim), heed::layout::half};
  modified_on_tiles(state, s, sees, heed::rerope{turn, static_cast<double>(s.kv_len) / 4});
}

[[maybe_unused]] void alibi_on_tiles(benchmark::State& state, shape const& s, visible sees) {
  modified_on_tiles(state, s, sees, heed::alibi::standard(s.heads_q));
}

[[maybe_unused]] void steep_on_tiles(benchmark::State& state, shape const& s, visible sees) {
  modified_on_tiles(state, s, sees, steep(s.dim, 8));
}

[[maybe_unused]] void codes_on_tiles(benchmark::State& state, shape const& s, visible sees) {
  inputs<heed::int8> const codes(s);
  heed::quantized_view const k(codes.k, codes.k_scales), v(codes.v, codes.v_scales);
  heed::window const seen{heed::unbounded, sees == visible::full ? heed::unbounded : 0};
  on_tiles(state, s, sees, true,
           [&](auto& in, auto const&... ms) { heed::attention(in.q, k, v, in.out, seen, ms...); });
}

[[maybe_unused]] void register_on_tiles(std::string const& name, shape const& s, visible sees) {
  auto const add = [&](char const* what, auto run) {
    benchmark::RegisterBenchmark((name + what).c_str(), [run, &s, sees](benchmark::State& state) {
      run(state, s, sees);
    })->UseManualTime();
  };
  add("", prefill_on_tiles);
  add("/rotary", rotary_on_tiles);
  add("/rerope", rerope_on_tiles);
  add("/int8", codes_on_tiles);
  add("/alibi", alibi_on_tiles);
  add("/steep", steep_on_tiles);
}

// --- one modifier --------------------------------------------------------------------------------------------------

constexpr shape plain{"", 1, 1, 2048, 2048, 64};

template <class T, class Call>
void beside_plain(benchmark::State& state, Call call) {
  inputs<float> in(plain);
  inputs<T> own(plain);
  comparison c(state);
  c.against("peak", [] { return bench::fma_peak(); });
  c.against("plain", [&] { return bench::seconds([&] { in.attend(); }); });
  c.run([&] { call(own); });
  c.count_flops(plain.flops(visible::full));
  c.count_ratio("of_plain", "plain");
}

template <class T = float, class Call>
void register_modifier(char const* name, Call call) {
  benchmark::RegisterBenchmark((std::string("modifier/") + name).c_str(), [call](benchmark::State& state) {
    beside_plain<T>(state, call);
  })->UseManualTime();
}

void register_modifiers() {
  static heed::tensor<bool, 2> visible_keys({plain.q_len, plain.kv_len});
  static heed::tensor<float, 2> added({plain.q_len, plain.kv_len});
  static heed::tensor<float, 3> row({1, 1, plain.q_len});
  fill(added, 4);
  for (index i = 0; i < visible_keys.size(); ++i)
    visible_keys.data()[i] = added.data()[i] < 0.5f;
  using in = inputs<float>&;
  register_modifier("none", [](in x) { x.attend(); });
  register_modifier("workspace", [](in x) {
    static heed::workspace scratch(heed::workspace_bytes(x.q, x.k, x.v));
    x.attend(heed::with{scratch});
  });
  register_modifier("steep", [](in x) { x.attend(steep(plain.dim, 20)); });
  register_modifier("softcap", [](in x) { x.attend(heed::softcap{30.0f}); });
  register_modifier("alibi", [](in x) { x.attend(heed::alibi::standard(1)); });
  register_modifier("functor", [](in x) {
    x.attend(heed::score{[](auto s, auto site) { return s - 0.01f * heed::abs(site.distance()); }});
  });
  register_modifier("bias", [](in x) { x.attend(heed::bias{added}); });
  register_modifier("mask", [](in x) { x.attend(heed::mask{visible_keys}); });
  register_modifier("log_n", [](in x) { x.attend(heed::log_n{512}); });
  register_modifier("rotary", [](in x) {
    static heed::rotary const turn{heed::frequencies::standard(plain.dim), heed::layout::half};
    x.attend(turn);
  });
  register_modifier("squared_relu", [](in x) { x.attend(heed::squared_relu{heed::fixed{2048}}); });
  register_modifier("lse", [](in x) { x.attend(heed::lse{row}); });
  register_modifier("entropy", [](in x) { x.attend(heed::entropy{row}); });
  register_modifier<Eigen::half>("half", [](inputs<Eigen::half>& x) { x.attend(); });
  register_modifier<Eigen::bfloat16>("bfloat16", [](inputs<Eigen::bfloat16>& x) { x.attend(); });
  register_modifier<heed::int8>("int8", [](inputs<heed::int8>& x) { x.attend(); });
}

// --- heads side by side --------------------------------------------------------------------------------------------

/// The same memory as rows of all heads.
template <class T>
heed::view<T, 3> side_by_side(heed::tensor<T, 3>& x) {
  index const heads = x.extent(0), rows = x.extent(1), n = x.extent(2);
  return {x.data(), {heads, rows, n}, {n, heads * n, 1}};
}

void beside_separate_heads(benchmark::State& state, shape const& s, visible sees) {
  inputs<float> in(s);
  auto const q = side_by_side(in.q), k = side_by_side(in.k), v = side_by_side(in.v), out = side_by_side(in.out);
  heed::window const seen{heed::unbounded, sees == visible::full ? heed::unbounded : 0};
  comparison c(state);
  c.against("peak", [] { return bench::fma_peak(); });
  c.against("plain", [&] { return bench::seconds([&] { in.attend(seen); }); });
  c.run([&] { heed::attention(q, k, v, out, seen); });
  c.count_flops(s.flops(sees));
  c.count_ratio("of_plain", "plain");
}

void register_side_by_side() {
  static constexpr std::array shapes{
      shape{"8x128_dim64", 8, 8, 128, 128, 64},      shape{"32x512_dim64", 32, 32, 512, 512, 64},
      shape{"32x512_dim128", 32, 32, 512, 512, 128}, shape{"8x2048_dim128", 8, 8, 2048, 2048, 128},
      shape{"8x1of1024_dim128", 8, 8, 1, 1024, 128}, shape{"32x1of1024_dim128", 32, 32, 1, 1024, 128}};
  for (shape const& s : shapes)
    benchmark::RegisterBenchmark((std::string("side_by_side/") + s.name).c_str(), [&s](benchmark::State& state) {
      beside_separate_heads(state, s, visible::causal);
    })->UseManualTime();
}

// --- decode --------------------------------------------------------------------------------------------------------

template <class T>
void decode(benchmark::State& state, shape const& s, int threads) {
  inputs<T> in(s);
  std::optional<workers> w;
  if (threads > 1)
    w.emplace(threads);
  std::vector<bench::memory_range> const cache = cache_of(in);
  comparison c(state, 1, threads);
  c.against("peak", [&] { return w ? bench::fma_peak(w->place) : bench::fma_peak(); });
  c.against("bandwidth", [&] { return w ? bench::read_bandwidth(cache, w->place) : bench::read_bandwidth(cache); });
  c.run([&] {
    if (w)
      in.attend(heed::on{w->place});
    else
      in.attend();
  });
  c.count_flops(s.flops(visible::full));
  c.count_bytes(bytes_of(cache));
}

/// int8 on AMX tiles, one thread.
[[maybe_unused]] void decode_on_tiles(benchmark::State& state, shape const& s) {
  auto const permit = heed::enable_amx();
  if (!permit)
    return state.SkipWithError("no permit for AMX");
  inputs<heed::int8> in(s);
  std::vector<bench::memory_range> const cache = cache_of(in);
  comparison c(state);
  c.against("bandwidth", [&] { return bench::read_bandwidth(cache); });
  c.against("plain", [&] { return bench::seconds([&] { in.attend(); }); });
  c.run([&] { in.attend(heed::with_amx{permit}); });
  c.count_bytes(bytes_of(cache));
  c.count_ratio("of_plain", "plain");
}

template <class T>
void register_decode(shape const& s, char const* storage) {
  std::string const name = std::string("decode/") + s.name + "/" + storage;
  benchmark::RegisterBenchmark(name.c_str(), [&s](benchmark::State& state) {
    decode<T>(state, s, 1);
  })->UseManualTime();
  if (s.kv_len < 4096)
    return;
  benchmark::RegisterBenchmark((name + "/2threads").c_str(), [&s](benchmark::State& state) {
    decode<T>(state, s, 2);
  })->UseManualTime();
}

// --- the machine -----------------------------------------------------------------------------------------------------

void fed_peak(benchmark::State& state) {
  comparison c(state);
  c.against("peak", [] { return bench::fma_peak(); });
  c.against("fed", [] { return bench::fed_fma_peak(); });
  c.run([] { benchmark::DoNotOptimize(bench::fed_fma_peak()); });
  c.count("of_peak", c.middle("fed") / c.middle("peak"));
}

void peak_between_calls(benchmark::State& state) {
  shape const prompt{"", 1, 1, 2048, 2048, 128};
  inputs<float> in(prompt);
  std::vector<double> alone;
  constexpr int samples = 200;  // of 2 ms, about as long in all as the calls take
  std::generate_n(std::back_inserter(alone), samples, [] { return bench::fma_peak(); });
  comparison c(state);
  c.against("peak", [] { return bench::fma_peak(); });
  c.run([&] { in.attend(prompt, visible::full); });
  c.count("of_peak_alone", c.middle("peak") / bench::median(alone));
}

// --- the least call ------------------------------------------------------------------------------------------------

void fixed_cost(benchmark::State& state) {
  constexpr int calls = 1000;
  inputs<float> in({"", 1, 1, 1, 16, 64});
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> const a = in.k.matrix(0);
  Eigen::VectorXf const x = in.q.matrix(0).row(0).transpose();
  Eigen::VectorXf y(16);
  auto const product = [&] {
    for (int i = 0; i < calls; ++i) {
      y.noalias() = a * x;
      benchmark::ClobberMemory();
    }
  };
  comparison c(state, calls);
  c.against("gemv", [&] { return bench::seconds(product) / calls; });
  c.run([&] { in.attend(); });
  c.count_ratio("of_eigen_gemv", "gemv");
  c.count("gemv_ns", c.middle("gemv") * 1e9);
}

void register_all() {
  auto const name_of = [](char const* kind, shape const& s, visible sees) {
    return std::string(kind) + "/" + s.name + "/" + bench::name_of(sees);
  };
  for (shape const& s : bench::squares)
    for (visible sees : {visible::full, visible::causal, visible::window})
      benchmark::RegisterBenchmark(name_of("prefill", s, sees).c_str(), [&s, sees](benchmark::State& state) {
        prefill(state, s, sees);
      })->UseManualTime();
  for (shape const& s : bench::further)
    for (visible sees : {visible::full, visible::causal})
      benchmark::RegisterBenchmark(name_of("prefill", s, sees).c_str(), [&s, sees](benchmark::State& state) {
        prefill(state, s, sees);
      })->UseManualTime();
  for (shape const& s : bench::windows)
    benchmark::RegisterBenchmark(name_of("prefill", s, visible::window).c_str(), [&s](benchmark::State& state) {
      prefill(state, s, visible::window);
    })->UseManualTime();
  static constexpr shape eight_heads{"8on8_2048", 8, 8, 2048, 2048, 64};
  for (visible sees : {visible::full, visible::causal})
    benchmark::RegisterBenchmark(name_of("threads", eight_heads, sees).c_str(), [sees](benchmark::State& state) {
      threads_gain(state, eight_heads, sees);
    })->UseManualTime();
#if defined(HEED_HAS_AMX)
  for (shape const& s : bench::squares)
    for (visible sees : {visible::full, visible::causal})
      register_on_tiles(name_of("amx", s, sees), s, sees);
  for (bench::model const& m : bench::models)
    if (m.call.heads_kv < m.call.heads_q && m.sees == visible::causal)
      register_on_tiles(name_of("amx", m.call, m.sees), m.call, m.sees);
#endif
  for (bench::model const& m : bench::models)
    benchmark::RegisterBenchmark(name_of("prefill", m.call, m.sees).c_str(), [&m](benchmark::State& state) {
      prefill(state, m.call, m.sees);
    })->UseManualTime();
  for (shape const& s : {bench::squares[0], bench::squares[1]})
    for (visible sees : {visible::full, visible::causal})
      benchmark::RegisterBenchmark((name_of("prefill", s, sees) + "/2threads").c_str(), [s, sees](
                                                                                            benchmark::State& state) {
        prefill_threads(state, s, sees, 2);
      })->UseManualTime();
  register_modifiers();
  register_side_by_side();
  for (shape const& s : bench::caches) {
    register_decode<float>(s, "float");
    register_decode<Eigen::half>(s, "half");
    register_decode<Eigen::bfloat16>(s, "bfloat16");
    register_decode<heed::int8>(s, "int8");
#if defined(HEED_HAS_AMX)
    if (s.heads_q > s.heads_kv)
      benchmark::RegisterBenchmark((std::string("decode/") + s.name + "/int8/amx").c_str(),
                                   [&s](benchmark::State& state) { decode_on_tiles(state, s); })
          ->UseManualTime();
#endif
  }
  benchmark::RegisterBenchmark("limits/fed", fed_peak)->UseManualTime();
  benchmark::RegisterBenchmark("limits/clock", peak_between_calls)->UseManualTime();
  // A fixed number of samples: judged by the time of one call, too many would be taken.
  benchmark::RegisterBenchmark("fixed_cost", fixed_cost)->UseManualTime()->Iterations(300);
}

}  // namespace

int main(int argc, char** argv) {
#if defined(HEED_BENCH_OPENBLAS)
  openblas_set_num_threads(1);
#endif
  register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv))
    return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
