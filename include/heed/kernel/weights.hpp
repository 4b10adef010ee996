#pragma once

#include <heed/core/description.hpp>
#include <heed/kernel/online.hpp>
#include <heed/kernel/prefetch.hpp>
#include <heed/kernel/tile.hpp>

/// Scores become weights, in place, and the row sums take them in *as they enter the value product*.

namespace heed {
HEED_ISA_BEGIN

/// What a normaliser asks of the pass: softmax and l2_softmax walk with a running maximum, squared_relu needs none.
template <normalizer_rule Rule>
inline constexpr bool has_maximum = Rule == normalizer_rule::softmax || Rule == normalizer_rule::l2_softmax;

/// One batch of weights from one batch of scores.
/// @tparam Scaled whether scores are in natural units and still need log2 e
template <normalizer_rule Rule, bool Scaled, real T>
HEED_ALWAYS_INLINE inline batch<T> weight_of(batch<T> s, batch<T> maximum) {
  if constexpr (Rule == normalizer_rule::squared_relu) {
    batch<T> const positive = heed::max(batch<T>(T(0)), s);
    return positive * positive;
  } else if constexpr (Scaled) {
    return exp2_weight((s - maximum) * batch<T>(log2_e<T>));
  } else {
    return exp2_weight(s - maximum);
  }
}

/// What the row sum takes in: Σ w, or Σ w² for l2_softmax, without squares that are as far below the greatest as weights
/// that are cut.
template <normalizer_rule Rule, real T>
HEED_ALWAYS_INLINE inline batch<T> added_to_sum(batch<T> w, batch<T> sum) {
  if constexpr (Rule == normalizer_rule::l2_softmax) {
    batch<T> const counted = heed::select(w < batch<T>(least_in_square<T>), batch<T>(T(0)), w);
    return fma(counted, counted, sum);
  } else {
    return sum + w;
  }
}

/// What the entropy sum takes in: w (s − m), and 0 where the weight is 0 (s may be −inf there).
template <real T>
HEED_ALWAYS_INLINE inline batch<T> added_to_entropy(batch<T> w, batch<T> s, batch<T> maximum, batch<T> sum) {
  batch<T> const zero(T(0));
  return sum + heed::select(w == zero, zero, w * (s - maximum));
}

namespace impl {

/// Scores of n keys and `Vectors` lane vectors become weights. Nothing is read meanwhile but the tile, so each key asks
/// for two lines of what comes later: values and the rows of output gain 1 to 3 % at 2048 keys, one line a key as much;
/// biases gain 3 % with two, less with one or four (`heed_bench_attention --benchmark_filter='prefill|modifier'`, old and
/// new in turns).
template <normalizer_rule Rule, bool Scaled, bool Entropy, int Vectors, real T>
HEED_NOINLINE void weigh_tile(T* s, index n, T const* maximum, T* sum, T* entropy, lines_ahead& later) {
  constexpr index width = block_lanes<T>;
  batch<T> top[Vectors], total[Vectors], spread[Vectors];
  unroll<Vectors>([&](int v) HEED_LAMBDA_INLINE {
    top[v] = safe_maximum<T>(load(maximum + v * lanes<T>));
    total[v] = spread[v] = batch<T>(T(0));
  });
  lines_ahead ahead = later;
  for (index j = 0; j < n; ++j) {
    ahead.next();
    ahead.next();
    unroll<Vectors>([&](int v) HEED_LAMBDA_INLINE {
      T* const place = s + j * width + v * lanes<T>;
      batch<T> const score = load(place);
      batch<T> const w = weight_of<Rule, Scaled>(score, top[v]);
      total[v] = added_to_sum<Rule>(w, total[v]);
      if constexpr (Entropy)
        spread[v] = added_to_entropy(w, score, top[v], spread[v]);
      store(place, w);
    });
  }
  later = ahead;
  unroll<Vectors>([&](int v) HEED_LAMBDA_INLINE {
    store(sum + v * lanes<T>, load(sum + v * lanes<T>) + total[v]);
    if constexpr (Entropy)
      store(entropy + v * lanes<T>, load(entropy + v * lanes<T>) + spread[v]);
  });
}

/// The same for any number of lane vectors: whole register tiles, which are 1 % faster at 512 keys, then one by one.
template <normalizer_rule Rule, bool Scaled, bool Entropy, real T>
void weigh(int vectors, T* s, index n, T const* maximum, T* sum, T* entropy, lines_ahead& later) {
  constexpr int most = register_tile<T>::vectors;
  index lane = 0;
  for (; vectors >= most; vectors -= most, lane += most * lanes<T>)
    weigh_tile<Rule, Scaled, Entropy, most>(s + lane, n, maximum + lane, sum + lane, entropy + lane, later);
  for (; vectors > 0; --vectors, lane += lanes<T>)
    weigh_tile<Rule, Scaled, Entropy, 1>(s + lane, n, maximum + lane, sum + lane, entropy + lane, later);
}

}  // namespace impl

HEED_ISA_END
}  // namespace heed
