#pragma once

namespace consumer {

struct kernels {
  char const* (*instruction_set)();
};

}  // namespace consumer
