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
    shared_loop<F> loop{n, f, helpers};
    for (index h = 0; h < helpers; ++h)
      pool_->Schedule([&loop, worker = static_cast<int>(h) + 1] { loop.help(worker); });
    loop.work(0);
    loop.wait();
  }

 private:
  template <class F>
  struct shared_loop {
    index const count;
    F& task;
    std::atomic<index> busy;
    std::atomic<index> next{0};

    shared_loop(index n, F& f, index helpers) : count(n), task(f), busy(helpers) {}

    void work(int worker) {
      for (index i = next.fetch_add(1); i < count; i = next.fetch_add(1)) task(i, worker);
    }
    // The last touch of this object: after it the waiting thread may let it go. A wake-up through a condition variable
    // or atomic::notify would touch it once more, so the waiting thread yields instead.
    void help(int worker) {
      work(worker);
      busy.fetch_sub(1, std::memory_order_release);
    }
    void wait() const {
      while (busy.load(std::memory_order_acquire) != 0) std::this_thread::yield();
    }
  };

  Eigen::ThreadPoolInterface* pool_;
};

}  // namespace heed
