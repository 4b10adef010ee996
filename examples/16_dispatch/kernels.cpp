// Compiled several times; what heed does here is fixed by the flags of each.

#include "kernels_dispatch.hpp"

#include <heed/attention/attention.hpp>

namespace {

void attend(float const* q, float const* k, float const* v, float* out, int heads, int len, int dim) {
  std::array<heed::index, 3> const shape{heads, len, dim};
  using rows = heed::view<float const, 3>;
  heed::attention(rows(q, shape), rows(k, shape), rows(v, shape), heed::view<float, 3>(out, shape), heed::causal{});
}

}  // namespace

HEED_DISPATCH(kernels){HEED_ISA_NAME, attend};
