#include <heed/version.hpp>

static_assert(HEED_VERSION == HEED_VERSION_MAJOR * 10000 + HEED_VERSION_MINOR * 100 + HEED_VERSION_PATCH);
