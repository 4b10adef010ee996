// Built once per instruction set.

#include "kernels_dispatch.hpp"

#include <heed/attention/attention.hpp>

#include <cstdio>

namespace {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

void explained(int len, int dim, char* text) {
  matrix const x = matrix::Zero(len, dim);
  std::snprintf(text, 32, "%s", heed::explain(x, x, x, heed::causal{}).instruction_set.c_str());
}

void attend(float const* q, float const* k, float const* v, float* out, int len, int dim) {
  heed::attention(Eigen::Map<matrix const>(q, len, dim), Eigen::Map<matrix const>(k, len, dim),
                  Eigen::Map<matrix const>(v, len, dim), Eigen::Map<matrix>(out, len, dim), heed::causal{});
}

void throws() {
  matrix const x = matrix::Zero(2, 4);
  matrix out(3, 4);
  heed::attention(x, x, x, out, heed::causal{});
}

bool refuses() {
  try {
    throws();
  } catch (heed::argument_error const&) {
    return true;
  }
  return false;
}

}  // namespace

HEED_DISPATCH(test::kernels){HEED_ISA_NAME, explained, attend, refuses, throws};
