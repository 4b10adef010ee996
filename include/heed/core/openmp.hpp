#pragma once

#include <heed/core/executor.hpp>

#if defined(_OPENMP)
#include <omp.h>

namespace heed {

/// OpenMP's team as an executor; only where the translation unit is compiled with OpenMP. Inside a parallel region
/// that does not nest, the tasks run on the calling thread. What a task throws leaves `run` in the end.
struct openmp {
  int concurrency() const { return omp_get_max_threads(); }

  template <class F>
  void run(index n, F f) const {
    detail::first_failure failure;
#pragma omp parallel for schedule(dynamic, 1)
    for (index task = 0; task < n; ++task)
      failure.watch([&] {
        if (!failure.any())
          f(task, omp_get_thread_num());
      });
    failure.rethrow();
  }
};

}  // namespace heed
#endif
