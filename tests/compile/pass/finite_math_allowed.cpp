// flags: -ffinite-math-only -DHEED_ALLOW_FINITE_MATH
#include <heed/config.hpp>
