#pragma once

#include <heed/core/view.hpp>

#include <concepts>

namespace heed {

namespace detail {
struct any_task {
  void operator()(index, int) const {}
};
}  // namespace detail

/// Where the tasks of a call run.
///
/// - `concurrency()`: how many workers there are, at least 1;
/// - `run(n, f)`: calls `f(task, worker)` once for each task in [0, n), with worker in [0, concurrency()) and no two
///   calls of one worker at a time; returns when all are done. The calling thread takes part. May be called from
///   inside a task.
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
    for (index task = 0; task < n; ++task) f(task, 0);
  }
};

}  // namespace heed
