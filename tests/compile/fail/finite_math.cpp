// expect: heed: -ffinite-math-only .part of -ffast-math. breaks masks, which are minus infinity
// flags: -ffinite-math-only
#include <heed/config.hpp>
