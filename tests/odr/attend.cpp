// One unit of the program; built once per instruction set, under the name HEED_ODR_FUNCTION. Only plain numbers cross
// its border: Eigen's types, too, differ between instruction sets.

#include <heed/attention/attention.hpp>

#include <Eigen/Core>

namespace {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

}  // namespace

void HEED_ODR_FUNCTION(float const* q, float const* k, float const* v, float* out, int len, int dim) {
  heed::attention(Eigen::Map<matrix const>(q, len, dim), Eigen::Map<matrix const>(k, len, dim),
                  Eigen::Map<matrix const>(v, len, dim), Eigen::Map<matrix>(out, len, dim), heed::causal{});
}
