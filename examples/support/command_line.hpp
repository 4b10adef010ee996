#pragma once

#include "tokenizer.hpp"

#include <CLI/CLI.hpp>
#include <heed/core/thread_pool.hpp>

#include <cstdio>
#include <string>
#include <thread>

/// What the programs share around their work: the files, the threads, the cache, and how they fail.

namespace example {

struct common_options {
  std::string model, tokenizer;
  int threads = 1;
  std::string cache = "float";

  bool in_bytes() const { return cache == "int8"; }

  void add_to(CLI::App& app) {
    app.add_option("--model", model, "Model in llama2.c's float32 format")->required()->type_name("FILE");
    app.add_option("--tokenizer", tokenizer, "Its tokenizer")->required()->type_name("FILE");
    app.add_option("--threads", threads, "Threads for attention")->check(CLI::Range(1, 1024))->capture_default_str();
    app.add_option("--cache", cache, "How keys and values are kept: int8 takes a quarter of the memory")
        ->check(CLI::IsMember({"float", "int8"}))
        ->capture_default_str();
  }
};

/// Threads for heed: the calling one takes part, so the pool has one fewer.
class team {
 public:
  explicit team(int threads) : pool_(threads - 1) {}
  heed::thread_pool& executor() { return executor_; }

 private:
  Eigen::ThreadPool pool_;
  heed::thread_pool executor_{pool_};
};

/// Parses the arguments, then works; whatever goes wrong while working is one line on standard error and exit code 1.
template <class Work>
int run_program(CLI::App& app, int argc, char** argv, Work work) {
  CLI11_PARSE(app, argc, argv)
  try {
    work();
    return 0;
  } catch (std::bad_alloc const&) {
    std::fprintf(stderr, "%s: out of memory\n", app.get_name().c_str());
    return 1;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), error.what());
    return 1;
  }
}

}  // namespace example
