#include "kernels_dispatch.hpp"

#include <heed/config.hpp>

namespace {

char const* instruction_set() { return HEED_ISA_NAME; }

}  // namespace

HEED_DISPATCH(consumer::kernels){instruction_set};
