// expect: newer heed
#include <heed/version.hpp>

static_assert(HEED_VERSION >= 1000000, "needs a newer heed");
