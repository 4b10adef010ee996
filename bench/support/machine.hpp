#pragma once

#include <heed/core/amx.hpp>
#include <heed/core/executor.hpp>
#include <heed/core/simd.hpp>
#include <heed/kernel/tile.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#if __has_include(<unistd.h>)
#include <unistd.h>  // _POSIX_THREAD_CPUTIME
#endif

/// What the machine can do at this moment, and how a kernel is compared with it.
///
/// Clocks move, and neighbours on the same core come and go: a share of a peak that was measured a second ago says
/// little. So every case samples the limit, and whatever else it is compared with, *between* its own iterations, and
/// divides medians.

namespace bench {

/// Now, in seconds: of the whole machine's clock, or of what the calling thread has been running.
inline double now(bool of_this_thread) {
#if defined(_POSIX_THREAD_CPUTIME)
  if (of_this_thread) {
    std::timespec t{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  }
#endif
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Seconds that f() takes. With one worker the thread's own clock decides, so that a machine that is busy with
/// something else does not spoil long samples more than short ones.
template <class F>
double seconds(F&& f, int workers = 1) {
  double const start = now(workers == 1);
  f();
  return now(workers == 1) - start;
}

inline double median(std::vector<double> values) {
  if (values.empty())
    return 0;
  auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1)
    return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

// --- limits --------------------------------------------------------------------------------------------------------

/// Independent sums of the peak loop: at least latency × pipes (4 × 2 on x86, 4 × 4 on wide Arm cores), and no more
/// than stay in registers beside two factors and a product.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int peak_sums = 24;
#else
inline constexpr int peak_sums = 12;
#endif

/// Runs `steps` multiply-adds on each of `peak_sums` registers and returns how many flops that was. The sums tend to
/// b / (1 − a) = 2: numbers that are normal throughout, and that no compiler can foresee.
template <class T>
HEED_NOINLINE double multiply_add(std::ptrdiff_t steps) {
  using batch = heed::batch<T>;
  // Volatile, not benchmark::DoNotOptimize: that of 1.7 makes g++ 12 drop the store before it (constraint "+m,r"), and
  // the sums then start from what the stack held, denormals among it.
  T volatile unknown_factor = T(0.5), unknown_start = T(1);
  T const factor = unknown_factor, start = unknown_start;
  batch const a(factor), b(start);
  batch sum[peak_sums];
  heed::unroll<peak_sums>([&](int i) HEED_LAMBDA_INLINE { sum[i] = batch(start + T(i)); });
  for (std::ptrdiff_t t = 0; t < steps; ++t)
    heed::unroll<peak_sums>([&](int i) HEED_LAMBDA_INLINE { sum[i] = heed::fma(a, sum[i], b); });
  heed::unroll<peak_sums - 1>([&](int i) HEED_LAMBDA_INLINE { sum[0] = sum[0] + sum[i + 1]; });
  T volatile result = heed::reduce_add(sum[0]);
  static_cast<void>(result);
  return 2.0 * peak_sums * heed::lanes<T> * static_cast<double>(steps);
}

/// Flops a second of multiply-adds in registers, on every worker of `place` at once; one sample takes about 2 ms.
template <class T = float, class Executor = heed::inline_executor>
double fma_peak(Executor&& place = {}) {
  // 6 cycles a step with 12 sums and two pipes, 12 with 24: about 6 million cycles on each worker, in 4 tasks a worker,
  // so that a helper that wakes late does not double the sample.
  constexpr std::ptrdiff_t steps = (std::ptrdiff_t{12} << 20) / peak_sums / 4;
  auto const tasks = static_cast<std::ptrdiff_t>(place.concurrency()) * 4;
  double flops = 0;
  double const time = seconds(
      [&] {
        place.run(tasks, [&](std::ptrdiff_t task, int) {
          double const done = multiply_add<T>(steps);
          if (task == 0)
            flops = done * static_cast<double>(tasks);
        });
      },
      place.concurrency());
  return flops / time;
}

/// The same with the loads that a register tile needs, all from the first-level cache, and nothing else: what is left of
/// the peak where power or load ports limit it.
inline double fed_fma_peak() {
  using tile = heed::register_tile<float>;
  using batch = heed::batch<float>;
  constexpr int steps = 64, rounds = 1 << 10, rows = tile::rows, vectors = tile::vectors,
                width = heed::tile_lanes<float>;
  alignas(64) static float left[rows * steps], right[steps * width];
  batch sum[static_cast<std::size_t>(rows * vectors)];
  heed::unroll<rows * vectors>([&](int i) HEED_LAMBDA_INLINE { sum[i] = batch(0.0f); });
  std::generate(std::begin(left), std::end(left),
                [i = 0]() mutable { return static_cast<float>(i++ * 7919 % 1009) - 504; });
  std::generate(std::begin(right), std::end(right),
                [i = 0]() mutable { return static_cast<float>(i++ * 104729 % 1013) - 506; });
  double const time = seconds([&] {
    for (int round = 0; round < rounds; ++round)
      for (int t = 0; t < steps; ++t) {
        batch b[static_cast<std::size_t>(vectors)];
        heed::unroll<vectors>(
            [&](int v) HEED_LAMBDA_INLINE { b[v] = heed::load(right + t * width + v * heed::lanes<float>); });
        heed::unroll<rows>([&](int r) HEED_LAMBDA_INLINE {
          batch const a(left[r * steps + t]);
          heed::unroll<vectors>(
              [&](int v) HEED_LAMBDA_INLINE { sum[r * vectors + v] = heed::fma(a, b[v], sum[r * vectors + v]); });
        });
      }
  });
  heed::unroll<rows * vectors - 1>([&](int i) HEED_LAMBDA_INLINE { sum[0] = sum[0] + sum[i + 1]; });
  float volatile const result = heed::reduce_add(sum[0]);
  static_cast<void>(result);
  return 2.0 * rows * width * steps * rounds / time;
}

#if defined(HEED_HAS_AMX)
/// Flops a second of AMX bfloat16 products, one tile load from the first-level cache to each; about 1 ms a sample. Of zeros,
/// which take the least power: varied numbers run at two thirds to four fifths of it on Granite Rapids, and slow down what
/// runs after them.
inline double tile_peak() {
  constexpr int steps = 1 << 14;
  constexpr double flops = 2.0 * 16 * 16 * 32;  // of a product
  struct alignas(64) {
    std::uint8_t bytes[4][1024] = {};
  } const tiles;
  heed::impl::tile_session const here;
  heed::unroll_constants<4>([](auto i) HEED_LAMBDA_INLINE { heed::impl::tile_zero<i>(); });
  double const time = seconds([&] {
    for (int i = 0; i < steps; ++i) {
      heed::impl::tile_load<4>(tiles.bytes[0], 64);
      heed::impl::tile_load<5>(tiles.bytes[1], 64);
      heed::impl::tile_load<6>(tiles.bytes[2], 64);
      heed::impl::tile_load<7>(tiles.bytes[3], 64);
      heed::impl::tile_multiply<Eigen::bfloat16, 0, 4, 6>();
      heed::impl::tile_multiply<Eigen::bfloat16, 1, 4, 7>();
      heed::impl::tile_multiply<Eigen::bfloat16, 2, 5, 6>();
      heed::impl::tile_multiply<Eigen::bfloat16, 3, 5, 7>();
    }
  });
  return 4 * steps * flops / time;
}
#endif

/// Memory that a kernel reads.
struct memory_range {
  void const* data = nullptr;
  std::size_t bytes = 0;
};

/// Loads every whole vector of a range once.
HEED_NOINLINE inline void read_all(memory_range range) {
  using batch = heed::batch<float>;
  constexpr std::size_t lanes = heed::lanes<float>;
  constexpr int chains = 8;
  auto const* p = static_cast<float const*>(range.data);
  batch sum[chains];
  heed::unroll<chains>([&](int i) HEED_LAMBDA_INLINE { sum[i] = batch(0.0f); });
  std::size_t const vectors = range.bytes / (sizeof(float) * lanes);
  std::size_t at = 0;
  // Bits are combined, not numbers: the bytes may be halves, which read as floats may be anything.
  for (; at + chains <= vectors; at += chains)
    heed::unroll<chains>([&](int i) HEED_LAMBDA_INLINE {
      sum[i] = sum[i] ^ heed::load(p + (at + static_cast<std::size_t>(i)) * lanes);
    });
  for (; at < vectors; ++at)
    sum[0] = sum[0] ^ heed::load(p + at * lanes);
  heed::unroll<chains - 1>([&](int i) HEED_LAMBDA_INLINE { sum[0] = sum[0] ^ sum[i + 1]; });
  float volatile result = heed::reduce_add(sum[0]);
  static_cast<void>(result);
}

/// Bytes a second at which these ranges are read, each cut among the workers of `place`.
template <class Executor = heed::inline_executor>
double read_bandwidth(std::vector<memory_range> const& ranges, Executor&& place = {}) {
  constexpr std::ptrdiff_t pieces = 4;
  std::ptrdiff_t const cuts = place.concurrency() == 1 ? 1 : pieces * place.concurrency();
  double bytes = 0;
  for (memory_range const& range : ranges)
    bytes += static_cast<double>(range.bytes);
  double const time = seconds(
      [&] {
        place.run(static_cast<std::ptrdiff_t>(ranges.size()) * cuts, [&](std::ptrdiff_t task, int) {
          memory_range const whole = ranges[static_cast<std::size_t>(task / cuts)];
          std::size_t const part = whole.bytes / static_cast<std::size_t>(cuts) / 64 * 64;
          std::size_t const begin = part * static_cast<std::size_t>(task % cuts);
          std::size_t const end = task % cuts + 1 == cuts ? whole.bytes : begin + part;
          read_all({static_cast<char const*>(whole.data) + begin, end - begin});
        });
      },
      place.concurrency());
  return bytes / time;
}

inline double read_bandwidth(void const* data, std::size_t bytes) { return read_bandwidth({{data, bytes}}); }

// --- a case --------------------------------------------------------------------------------------------------------

/// Something a kernel is compared with. `sample` gives seconds of one call, or a limit in units a second.
struct rival {
  std::string name;
  std::function<double()> sample;
  std::vector<double> samples = {};
  double spent = 0;

  void take() {
    spent += seconds([&] { samples.push_back(sample()); });
  }
  double middle() const { return median(samples); }
};

/// A kernel and its rivals, taken in turns within one case. A rival gets as much time as the kernel does, so that short
/// kernels are not drowned in samples of their limits, and long floors do not starve the kernel.
class comparison {
 public:
  /// @param calls of the kernel in one timed sample: more than 1 where a call is not long against the clock's own cost
  explicit comparison(benchmark::State& state, int calls = 1, int workers = 1)
      : state_(state), calls_(calls), workers_(workers) {}

  rival& against(std::string name, std::function<double()> sample) {
    return rivals_.emplace_back(rival{std::move(name), std::move(sample)});
  }

  template <class Kernel>
  void run(Kernel&& kernel) {
    auto const sample = [&] {
      for (int i = 0; i < calls_; ++i) {
        kernel();
        benchmark::ClobberMemory();
      }
    };
    sample();
    for (rival& other : rivals_)
      other.sample();
    double spent = 0;
    for (auto _ : state_) {
      for (rival& other : rivals_)
        if (other.samples.empty() || other.spent < spent)
          other.take();
      double const time = seconds(sample, workers_);
      spent += time;
      times_.push_back(time / calls_);
      state_.SetIterationTime(time / calls_);
    }
    for (rival& other : rivals_)
      other.take();
  }

  /// Median seconds of a call.
  double time() const { return median(times_); }
  double middle(std::string const& name) const {
    for (rival const& other : rivals_)
      if (other.name == name)
        return other.middle();
    return 0;
  }
  void count(char const* name, double value) { state_.counters[name] = value; }

  /// `gflops`, and where a limit named "peak" was sampled, `peak_gflops` and `of_peak`.
  void count_flops(double flops) {
    double const rate = flops / time(), peak = middle("peak");
    count("gflops", rate * 1e-9);
    if (peak == 0)
      return;
    count("peak_gflops", peak * 1e-9);
    count("of_peak", rate / peak);
  }

  /// `gbytes`, and where a limit named "bandwidth" was sampled, `bandwidth_gbytes` and `of_bandwidth`.
  void count_bytes(double bytes) {
    double const rate = bytes / time(), limit = middle("bandwidth");
    count("gbytes", rate * 1e-9);
    if (limit == 0)
      return;
    count("bandwidth_gbytes", limit * 1e-9);
    count("of_bandwidth", rate / limit);
  }

  /// How many times the kernel's time the rival needs: above 1 the kernel is faster.
  void count_ratio(char const* counter, std::string const& name) {
    if (double const other = middle(name))
      count(counter, other / time());
  }

 private:
  benchmark::State& state_;
  int calls_, workers_;
  std::vector<rival> rivals_;
  std::vector<double> times_;
};

}  // namespace bench
