#pragma once

/// @file
/// The version of heed. The build reads these three numbers; nothing else repeats them.

#define HEED_VERSION_MAJOR 0
#define HEED_VERSION_MINOR 1
#define HEED_VERSION_PATCH 0

/// major * 10000 + minor * 100 + patch, for comparisons in the preprocessor.
#define HEED_VERSION (HEED_VERSION_MAJOR * 10000 + HEED_VERSION_MINOR * 100 + HEED_VERSION_PATCH)
