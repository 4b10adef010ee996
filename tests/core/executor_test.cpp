#include <heed/core/executor.hpp>
#include <heed/core/openmp.hpp>
#include <heed/core/thread_pool.hpp>

#include "support/catch.hpp"
#include "support/counting_allocator.hpp"

#include <atomic>
#include <new>
#include <thread>
#include <vector>

namespace heed::test {
namespace {

static_assert(executor<inline_executor> && executor<inline_executor const>);
static_assert(executor<thread_pool> && executor<thread_pool const>);

#if defined(HEED_SMALL_SWEEP)
constexpr int repetitions = 200;
#else
constexpr int repetitions = 3000;
#endif

/// What a run did: how often each task was called, and whether one worker was ever in two calls at once.
struct witness {
  std::vector<std::atomic<int>> calls, busy;
  std::atomic<int> wrong_worker{0}, overlaps{0};

  witness(index tasks, int workers) : calls(static_cast<std::size_t>(tasks)), busy(static_cast<std::size_t>(workers)) {}

  template <class F>
  void in_task(index task, int worker, F const& inside) {
    if (worker < 0 || static_cast<std::size_t>(worker) >= busy.size()) {
      ++wrong_worker;
      return;
    }
    auto& mine = busy[static_cast<std::size_t>(worker)];
    if (mine.fetch_add(1) != 0)
      ++overlaps;
    inside();
    ++calls[static_cast<std::size_t>(task)];
    mine.fetch_sub(1);
  }

  bool good() const {
    for (auto const& n : calls)
      if (n != 1)
        return false;
    return wrong_worker == 0 && overlaps == 0;
  }
};

template <class E>
bool runs_each_task_once(E const& on, index n) {
  witness seen(n, on.concurrency());
  on.run(n, [&](index task, int worker) { seen.in_task(task, worker, [] {}); });
  return seen.good();
}

template <class E>
void check_executor(E const& on, int times = repetitions) {
  REQUIRE(on.concurrency() >= 1);
  for (index n : {0, 1, 2, 3, 7, 64, 1000})
    CHECK(runs_each_task_once(on, n));
  int bad = 0;
  for (int i = 0; i < times; ++i)
    bad += !runs_each_task_once(on, i % 9);
  CHECK(bad == 0);
}

/// Whether run(n) inside each task of run(m) does all of n · m, and returns.
template <class E>
void check_nested(E const& on, int times = repetitions / 20) {
  int bad = 0;
  for (int i = 0; i < times; ++i) {
    witness outer(5, on.concurrency());
    on.run(5, [&](index task, int worker) {
      outer.in_task(task, worker, [&] { bad += !runs_each_task_once(on, 1 + i % 6); });
    });
    bad += !outer.good();
  }
  CHECK(bad == 0);
}

/// What a task wrote is seen after the run, without atomics.
template <class E>
void check_visibility(E const& on, int times = repetitions / 10) {
  int bad = 0;
  std::vector<index> results(64);
  for (int i = 0; i < times; ++i) {
    on.run(64, [&](index task, int) { results[static_cast<std::size_t>(task)] = task + i; });
    for (index t = 0; t < 64; ++t)
      bad += results[static_cast<std::size_t>(t)] != t + i;
  }
  CHECK(bad == 0);
}

/// A task that throws: `run` throws the same, no task runs any longer then, and the executor goes on serving.
template <class E>
void check_failure(E const& on, int times = repetitions / 20) {
  int bad = 0;
  for (int i = 0; i < times; ++i) {
    index const n = 1 + i % 40, failing = i % 3 == 0 ? 0 : i % n;  // i % 3 == 2: all from there on fail
    std::atomic<int> running{0};
    bool thrown = false;
    try {
      on.run(n, [&](index task, int) {
        ++running;
        struct leave {
          std::atomic<int>& count;
          ~leave() { --count; }
        } const at_end{running};
        if (task == failing || (i % 3 == 2 && task > failing))
          throw std::bad_alloc();
      });
    } catch (std::bad_alloc const&) {
      thrown = true;
    }
    bad += !thrown || running != 0 || !runs_each_task_once(on, n);
  }
  CHECK(bad == 0);
}

TEST_CASE("What a task throws leaves the run of every executor", "[contract][errors]") {
  check_failure(inline_executor{});
  for (int threads : {1, 3}) {
    Eigen::ThreadPool pool(threads);
    check_failure(thread_pool(pool));
  }
#if defined(_OPENMP)
  check_failure(openmp{}, repetitions / 100);
#endif
}

TEST_CASE("inline_executor runs the tasks in order on the calling thread", "[contract][edges]") {
  check_executor(inline_executor{});
  check_nested(inline_executor{});
  std::vector<index> order;
  auto const self = std::this_thread::get_id();
  inline_executor{}.run(4, [&](index task, int worker) {
    order.push_back(task);
    CHECK(worker == 0);
    CHECK(std::this_thread::get_id() == self);
  });
  CHECK(order == std::vector<index>{0, 1, 2, 3});
}

TEST_CASE("thread_pool runs each task once, on no worker twice at a time", "[contract][edges]") {
  for (int threads : {1, 2, 3, 8}) {
    Eigen::ThreadPool pool(threads);
    thread_pool const on(pool);
    CAPTURE(threads);
    CHECK(on.concurrency() == threads + 1);
    check_executor(on);
    check_visibility(on);
  }
}

TEST_CASE("thread_pool may be used from inside its own tasks", "[contract]") {
  for (int threads : {1, 2, 4}) {
    Eigen::ThreadPool pool(threads);
    check_nested(thread_pool(pool));
  }
}

TEST_CASE("thread_pool may be used by several threads, and from a task of the pool itself", "[contract]") {
  Eigen::ThreadPool pool(2);
  thread_pool const on(pool);
  std::atomic<int> bad{0}, done{0};
  auto const use = [&] {
    for (int i = 0; i < repetitions / 20; ++i)
      bad += !runs_each_task_once(on, 1 + i % 5);
    ++done;
  };
  pool.Schedule(use);
  std::thread other(use);
  use();
  other.join();
  while (done != 3)
    std::this_thread::yield();
  CHECK(bad == 0);
}

TEST_CASE("The calling thread takes part in a thread_pool's work", "[contract]") {
  Eigen::ThreadPool pool(1);
  std::atomic<bool> release{false};
  std::atomic<int> started{0};
  pool.Schedule([&] {  // the pool's only thread is busy until the call is nearly done
    ++started;
    while (!release)
      std::this_thread::yield();
  });
  while (started == 0)
    std::this_thread::yield();
  auto const self = std::this_thread::get_id();
  int mine = 0;
  thread_pool(pool).run(10, [&](index task, int worker) {
    mine += std::this_thread::get_id() == self && worker == 0;
    if (task == 9)
      release = true;
  });
  CHECK(mine == 10);
}

TEST_CASE("thread_pool touches no heap in steady state", "[resources]") {
  Eigen::ThreadPool pool(3);
  thread_pool const on(pool);
  std::atomic<index> sum{0};
  auto const call = [&] { on.run(16, [&](index task, int) { sum += task; }); };
  for (int i = 0; i < 20; ++i)
    call();
  allocation_count const heap;
  for (int i = 0; i < 200; ++i)
    call();
  CHECK(heap.count() == 0);
  CHECK(sum == 220 * 120);
}

TEST_CASE("openmp runs each task once, on no worker twice at a time", "[contract][edges]") {
#if defined(_OPENMP)
  static_assert(executor<openmp>);
  int const before = omp_get_max_threads();
  for (int threads : {1, 2, 4}) {
    omp_set_num_threads(threads);
    openmp const on;
    CHECK(on.concurrency() == threads);
    check_executor(on, repetitions / 20);  // more threads than cores: OpenMP's barriers are slow then
    check_visibility(on, repetitions / 40);
    check_nested(on, repetitions / 100);
  }
  omp_set_num_threads(before);
#else
  WARN("skipped: compiled without OpenMP");
#endif
}

}  // namespace
}  // namespace heed::test
