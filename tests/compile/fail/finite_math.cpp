// expect: heed: -ffinite-math-only .in -ffast-math. breaks masks, minus infinity
// flags: -ffinite-math-only
#include <heed/config.hpp>
