#include "support/machine.hpp"

#include <heed/cache/kv_cache.hpp>
#include <heed/gated/linear.hpp>
#include <heed/recurrent/step.hpp>
#include <heed/vq/state.hpp>

#include <cstdint>
#include <memory>
#include <vector>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

/// What a sequence leaves behind in memory, and what one more token costs: one head of 128 channels, float, one thread.
///
/// - <form>/<n>: the time of a step after n tokens. state_bytes: what the heap holds then beyond what it held before
///   the form was made, asked of the C library (glibc; 0 elsewhere), not of the form. bytes_a_token: its share.
/// - kv_cache keeps every key and value, for comparison; vq_state has 512 codes and 512 recent keys; linear is elu + 1,
///   retention the identity with decay; reread computes keys and values anew from the token (recurrent_attention).

namespace {

using heed::index;

constexpr index dim = 128, codes = 512, recent = 512;

/// Bytes in use on the heap.
double bytes_in_use() {
#if defined(__GLIBC__)
  auto const all = mallinfo2();
  return static_cast<double>(all.uordblks + all.hblkhd);
#else
  return 0;
#endif
}

/// Row j of a sequence without end, made from its number alone.
void make_row(index j, std::uint32_t kind, float* row) {
  std::uint32_t state = static_cast<std::uint32_t>(j) * 2654435761U + kind;
  for (index c = 0; c < dim; ++c) {
    state = state * 1664525U + 1013904223U;
    row[c] = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f;
  }
}

struct token_rows {
  heed::tensor<float, 2> q{{1, dim}}, k{{1, dim}}, v{{1, dim}}, out{{1, dim}};

  void become(index j) {
    make_row(j, 1, q.data());
    make_row(j, 2, k.data());
    make_row(j, 3, v.data());
  }
};

struct cached {
  heed::kv_cache<float> cache;

  explicit cached(index n) : cache(1, dim, dim, n + 1) {}
  void step(token_rows& t) {
    cache.append(t.k, t.v);
    heed::attention(t.q, cache, t.out, heed::causal{});
  }
  /// Room for one more token, however often it is asked for.
  void undo() { cache.truncate(cache.size() - 1); }
};

struct quantised {
  static heed::codebook<float> book() {
    heed::tensor<float, 2> rows({codes, dim});
    for (index c = 0; c < codes; ++c)
      make_row(c, 2, &rows(c, 0));
    return heed::codebook<float>(rows);
  }
  heed::vq_state<float> state{book(), dim, recent};

  explicit quantised(index) {}
  void step(token_rows& t) { state.step(t.q, t.k, t.v, t.out); }
  void undo() {}
};

struct linear {
  heed::linear_state<float> state{1, 1, dim, dim};

  explicit linear(index) {}
  void step(token_rows& t) { state.step(t.q, t.k, t.v, t.out); }
  void undo() {}
};

struct retention {
  heed::linear_state<float> state{1, 1, dim, dim};
  std::vector<double> gamma{0.97};

  explicit retention(index) {}
  void step(token_rows& t) {
    state.step(t.q, t.k, t.v, t.out, heed::identity{}, heed::unnormalized{}, heed::decay{gamma});
  }
  void undo() {}
};

struct reread {
  heed::recurrent_attention<float> network{dim, dim};
  std::vector<float> k = std::vector<float>(dim), v = std::vector<float>(dim);
  index n = 0;

  explicit reread(index) {}
  void step(token_rows& t) {
    auto const source = [&](index j) {
      make_row(j, 2, k.data());
      make_row(j, 3, v.data());
      return std::pair<float const*, float const*>(k.data(), v.data());
    };
    network.reread(t.q, n++, source, t.out);
  }
  void undo() { --n; }
};

template <class Form>
void run(benchmark::State& state) {
  index const n = state.range(0);
  token_rows token;
  double const before = bytes_in_use();
  auto form = std::make_unique<Form>(n);
  if constexpr (std::same_as<Form, reread>) {  // nothing is kept of the tokens before: only the last steps are walked
    form->n = n - 2;
    for (index j = n - 2; j < n; ++j) {
      token.become(j);
      form->step(token);
    }
  } else {
    for (index j = 0; j < n; ++j) {
      token.become(j);
      form->step(token);
    }
  }
  double const held = bytes_in_use() - before;
  token.become(n);
  std::vector<double> times;
  for (auto _ : state) {
    times.push_back(bench::seconds([&] { form->step(token); }));
    form->undo();
    state.SetIterationTime(times.back());
  }
  state.counters["us_per_step"] = 1e6 * bench::median(times);
  state.counters["state_bytes"] = held;
  state.counters["bytes_a_token"] = held / static_cast<double>(n);
}

template <class Form>
void register_form(char const* name) {
  benchmark::RegisterBenchmark(name, &run<Form>)
      ->UseManualTime()
      ->Unit(benchmark::kMicrosecond)
      ->Arg(1024)
      ->Arg(4096)
      ->Arg(16384);
}

}  // namespace

int main(int argc, char** argv) {
  register_form<cached>("kv_cache");
  register_form<quantised>("vq_state");
  register_form<linear>("linear");
  register_form<retention>("retention");
  register_form<reread>("reread");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv))
    return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
