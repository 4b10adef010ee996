// expect: heed: gau views its weights
#include <heed/gated/gau.hpp>

heed::gau<float> f(heed::tensor<float, 2> const& gamma) {
  return {heed::tensor<float, 2>({4, 12}), gamma, heed::tensor<float, 2>({4, 4})};
}
