#pragma once

/// Everything heed offers.

#include <heed/attention/attention.hpp>
#include <heed/attention/scores.hpp>
#include <heed/attention/state.hpp>
#include <heed/cache/kv_cache.hpp>
#include <heed/cache/quantized.hpp>
#include <heed/core/openmp.hpp>
#include <heed/core/thread_pool.hpp>
#include <heed/diagnostics/entropy.hpp>
#include <heed/diagnostics/nbce.hpp>
#include <heed/diagnostics/noise.hpp>
#include <heed/diagnostics/sparsity.hpp>
#include <heed/gated/gau.hpp>
#include <heed/gated/layers.hpp>
#include <heed/gated/linear.hpp>
#include <heed/gated/mixed_chunk.hpp>
#include <heed/position/rerope.hpp>
#include <heed/position/rotary.hpp>
#include <heed/recurrent/constant_space.hpp>
#include <heed/recurrent/scan.hpp>
#include <heed/recurrent/step.hpp>
#include <heed/reference/attention.hpp>
#include <heed/version.hpp>
#include <heed/vq/attention.hpp>
#include <heed/vq/codebook.hpp>
#include <heed/vq/state.hpp>
