#pragma once

#include <heed/core/executor.hpp>

#if __has_include(<Eigen/ThreadPool>)
#include <Eigen/ThreadPool>
#else
#include <unsupported/Eigen/CXX11/ThreadPool>
#endif

#include <algorithm>
#include <atomic>
#include <thread>

namespace heed {

/// Eigen's thread pool as an executor. Owns no thread; the pool must outlive it.
///
/// - `concurrency()` is the pool's thread count plus the calling thread.
/// - Called from one of the pool's own threads, the tasks run on that thread alone: no waiting in a circle.
/// - What a task throws leaves `run`, after every worker has stopped; tasks not begun by then are left out.
/// - Allocates nothing: the closure handed to the pool is one pointer and one number.
class thread_pool {
 public:
  explicit thread_pool(Eigen::ThreadPoolInterface& pool) : pool_(&pool) {}

  int concurrency() const { return pool_->NumThreads() + 1; }

  template <class F>
  void run(index n, F f) const {
    index const helpers = std::min<index>(n - 1, pool_->NumThreads());
    if (helpers <= 0 || pool_->CurrentThreadId() >= 0) {
      inline_executor{}.run(n, f);
      return;
    }
    shared_loop<F> loop{n, f};
    index scheduled = 0;
    loop.failure.watch([&] {
      for (; scheduled < helpers; ++scheduled)
        pool_->Schedule([&loop, worker = static_cast<int>(scheduled) + 1] { loop.help(worker); });
    });
    loop.work(0);
    loop.wait(scheduled);
    loop.failure.rethrow();
  }

 private:
  template <class F>
  struct shared_loop {
    index const count;
    F& task;
    std::atomic<index> next{0};
    std::atomic<index> gone{0};  // helpers that have left
    detail::first_failure failure;

    shared_loop(index n, F& f) : count(n), task(f) {}

    void work(int worker) {
      failure.watch([&] {
        for (index i = next.fetch_add(1); i < count && !failure.any(); i = next.fetch_add(1))
          task(i, worker);
      });
    }
    // The last touch of this object: after it the waiting thread may let it go. A wake-up through a condition variable
    // or atomic::notify would touch it once more, so the waiting thread yields instead.
    void help(int worker) {
      work(worker);
      gone.fetch_add(1, std::memory_order_release);
    }
    void wait(index helpers) const {
      while (gone.load(std::memory_order_acquire) != helpers)
        std::this_thread::yield();
    }
  };

  Eigen::ThreadPoolInterface* pool_;
};

}  // namespace heed
