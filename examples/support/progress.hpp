#pragma once

#include <cstdio>
#include <string>
#include <unistd.h>

namespace example {

/// A progress bar on standard error, and on a terminal only; gone when the work is done.
class progress {
 public:
  explicit progress(int total) : total_(total), visible_(total > 0 && isatty(STDERR_FILENO) != 0) {}
  progress(progress const&) = delete;
  progress& operator=(progress const&) = delete;
  ~progress() {
    if (visible_)
      std::fputs("\r\033[K", stderr);
  }

  /// `what` is being worked on; `done` parts of the total lie behind.
  void show(int done, std::string const& what) const {
    if (!visible_)
      return;
    constexpr int width = 32;
    auto const filled = static_cast<std::size_t>(width * done / total_);
    std::string const bar = std::string(filled, '#') + std::string(width - filled, '.');
    std::fprintf(stderr, "\r\033[K[%s] %3d %%  %s", bar.c_str(), 100 * done / total_, what.c_str());
    std::fflush(stderr);
  }

 private:
  int total_;
  bool visible_;
};

}  // namespace example
