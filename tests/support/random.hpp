#pragma once

#include <heed/core/tensor.hpp>

#include <cmath>
#include <cstdint>
#include <numbers>
#include <ostream>
#include <random>

/// Seeded numbers, the same with every standard library (whose distributions differ): say `INFO(random)` and a failing
/// test prints the seed.

namespace heed::test {

class generator {
 public:
  explicit generator(std::uint64_t seed) : seed_(seed), engine_(seed) {}

  /// In [low, high).
  double uniform(double low = -1, double high = 1) {
    return low + (high - low) * (static_cast<double>(engine_() >> 11) * 0x1p-53);
  }

  /// Box and Muller's transform.
  double normal(double mean = 0, double deviation = 1) {
    double const radius = std::sqrt(-2 * std::log(1 - uniform(0, 1)));
    return mean + deviation * radius * std::cos(2 * std::numbers::pi * uniform(0, 1));
  }

  /// In [low, high], both included.
  index whole(index low, index high) {
    return low + static_cast<index>(engine_() % static_cast<std::uint64_t>(high - low + 1));
  }

  bool chance(double probability) { return uniform(0, 1) < probability; }

  friend std::ostream& operator<<(std::ostream& to, generator const& from) { return to << "seed " << from.seed_; }

 private:
  std::uint64_t seed_;
  std::mt19937_64 engine_;
};

/// Calls f with a reference to every element, the last index first.
template <class T, int Rank, class F>
void for_each_element(view<T, Rank> const& v, F const& f) {
  if constexpr (Rank == 1) {
    for (index i = 0; i < v.extent(0); ++i)
      f(v(i));
  } else {
    index_array<Rank - 1> extents{}, strides{};
    std::copy(v.extents().begin() + 1, v.extents().end(), extents.begin());
    std::copy(v.strides().begin() + 1, v.strides().end(), strides.begin());
    for (index i = 0; i < v.extent(0); ++i)
      for_each_element(view<T, Rank - 1>(v.data() + i * v.stride(0), extents, strides), f);
  }
}

/// Fills a view with `next()`, each rounded to the storage type.
template <class T, int Rank, class Next>
void fill(view<T, Rank> const& v, Next const& next) {
  for_each_element(v, [&](T& x) {
    if constexpr (storage_scalar<T>)
      x = round_to<T>(next());
    else
      x = static_cast<T>(next());
  });
}

template <class T, int Rank>
void fill_uniform(view<T, Rank> const& v, generator& random, double low = -1, double high = 1) {
  fill(v, [&] { return random.uniform(low, high); });
}

template <class T, int Rank>
void fill_normal(view<T, Rank> const& v, generator& random, double mean = 0, double deviation = 1) {
  fill(v, [&] { return random.normal(mean, deviation); });
}

/// true with the given probability: a mask.
template <int Rank>
void fill_mask(view<bool, Rank> const& v, generator& random, double probability = 0.5) {
  fill(v, [&] { return random.chance(probability); });
}

template <class T, int Rank>
tensor<T, Rank> normal_tensor(index_array<Rank> const& extents, generator& random, double mean = 0,
                              double deviation = 1) {
  tensor<T, Rank> result(extents);
  fill_normal(result.view(), random, mean, deviation);
  return result;
}

template <class T, int Rank>
tensor<T, Rank> uniform_tensor(index_array<Rank> const& extents, generator& random, double low = -1, double high = 1) {
  tensor<T, Rank> result(extents);
  fill_uniform(result.view(), random, low, high);
  return result;
}

template <int Rank>
tensor<bool, Rank> mask_tensor(index_array<Rank> const& extents, generator& random, double probability = 0.5) {
  tensor<bool, Rank> result(extents);
  fill_mask(result.view(), random, probability);
  return result;
}

}  // namespace heed::test
