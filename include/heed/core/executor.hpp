#pragma once

#include <heed/core/view.hpp>

#include <atomic>
#include <concepts>
#include <exception>

namespace heed {

namespace detail {
struct any_task {
  void operator()(index, int) const {}
};

/// The first exception that a run's tasks throw, kept until all workers have stopped: it must not leave a thread, nor
/// the run while others are at work.
class first_failure {
 public:
  template <class F>
  void watch(F const& f) {
#if defined(__cpp_exceptions)
    try {
      f();
    } catch (...) {
      if (!any_.exchange(true))
        what_ = std::current_exception();
    }
#else
    f();
#endif
  }
  bool any() const { return any_.load(std::memory_order_relaxed); }
  void rethrow() const {
#if defined(__cpp_exceptions)
    if (what_)
      std::rethrow_exception(what_);
#endif
  }

 private:
  std::atomic<bool> any_{false};
  std::exception_ptr what_;
};
}  // namespace detail

/// Where the tasks of a call run.
///
/// - `concurrency()`: how many workers there are, at least 1;
/// - `run(n, f)`: calls `f(task, worker)` once for each task in [0, n), with worker in [0, concurrency()) and no two
///   calls of one worker at a time; returns when all are done. The calling thread takes part. May be called from
///   inside a task. A task may throw (a user's functor, a heap that is full): the rest may then be left undone, and the
///   exception leaves `run` once no task is running any more.
template <class E>
concept executor = requires(E& e, E const& constant, index n, detail::any_task f) {
  { constant.concurrency() } -> std::convertible_to<int>;
  e.run(n, f);
};

/// The calling thread alone: the default.
struct inline_executor {
  int concurrency() const { return 1; }

  template <class F>
  void run(index n, F f) const {
    for (index task = 0; task < n; ++task)
      f(task, 0);
  }
};

}  // namespace heed
