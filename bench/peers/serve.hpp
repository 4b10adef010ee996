#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

/// What a peer's program speaks with run.py, so that programs take turns in time: one line in, one line out.
///
///     shape <heads_q> <heads_kv> <q_len> <kv_len> <dim> <causal 0|1> <float|half|bfloat16>
///                                → the names of those who can do it; inputs are made, everything is warm
///     run <name> <calls>         → seconds of processor time a call, of all threads of the process
///     sample <name>              → 61 numbers of the result, spread evenly
///     quit

namespace peers {

struct call {
  std::ptrdiff_t heads_q = 0, heads_kv = 0, q_len = 0, kv_len = 0, dim = 0;
  bool causal = false;
  std::string storage;

  std::size_t queries() const { return static_cast<std::size_t>(heads_q * q_len * dim); }
  std::size_t keys() const { return static_cast<std::size_t>(heads_kv * kv_len * dim); }
};

/// Uniform in [−1, 1), the same numbers in every program.
inline void fill(float* x, std::size_t n, std::uint32_t seed) {
  std::uint32_t state = seed * 2654435761U + 1;
  for (std::size_t i = 0; i < n; ++i) {
    state = state * 1664525U + 1013904223U;
    x[i] = static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f;
  }
}

struct contender {
  std::string name;
  std::function<void()> once;
  std::function<float(std::size_t)> result;  // the i-th number of [heads_q, q_len, dim]
};

/// Answers until `quit` or the end of the input. `prepare(call)` gives the contenders; what they capture must live
/// until it is called again.
inline int serve(std::function<std::vector<contender>(call const&)> const& prepare) {
  std::vector<contender> all;
  call shape;
  auto const find = [&](std::string const& name) -> contender const* {
    for (contender const& each : all)
      if (each.name == name)
        return &each;
    return nullptr;
  };
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream in(line);
    std::string word, name;
    in >> word;
    if (word == "quit")
      break;
    if (word == "shape") {
      in >> shape.heads_q >> shape.heads_kv >> shape.q_len >> shape.kv_len >> shape.dim >> shape.causal >>
          shape.storage;
      all.clear();
      all = prepare(shape);
      for (contender const& each : all) {
        each.once();
        std::cout << each.name << ' ';
      }
    } else if (word == "run") {
      int calls = 1;
      in >> name >> calls;
      contender const* const one = find(name);
      std::clock_t const start = std::clock();
      for (int i = 0; one && i < calls; ++i)
        one->once();
      std::cout << static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / calls;
    } else if (word == "sample") {
      in >> name;
      if (contender const* const one = find(name)) {
        one->once();
        std::size_t const n = shape.queries();
        for (std::size_t i = 0; i < 61; ++i)
          std::cout << one->result(i * (n - 1) / 60) << ' ';
      }
    }
    std::cout << std::endl;
  }
  return 0;
}

}  // namespace peers
