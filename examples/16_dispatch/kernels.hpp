#pragma once

/// What this program builds once per instruction set. Plain numbers cross the border, no types of heed or Eigen.
struct kernels {
  char const* instruction_set;
  /// Causal attention over `heads` heads of contiguous rows.
  void (*attend)(float const* q, float const* k, float const* v, float* out, int heads, int len, int dim);
};
