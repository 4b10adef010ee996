#pragma once

namespace test {

/// What is built for each instruction set.
struct kernels {
  char const* name;  // of heed's instruction set
  /// What heed::explain says of this call; `text` holds at least 32 characters.
  void (*explained)(int len, int dim, char* text);
  /// Causal attention over contiguous rows of `dim`.
  void (*attend)(float const* q, float const* k, float const* v, float* out, int len, int dim);
  /// Catches heed's error within; false if there was none.
  bool (*refuses)();
  /// Lets heed's error out.
  void (*throws)();
};

}  // namespace test
