#pragma once

#include <heed/config.hpp>

#include <Eigen/Core>
#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

/// The scalars a tensor may store, and their exact conversions.

namespace heed {

/// What q, k, v and out may hold.
template <class T>
concept storage_scalar = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, Eigen::half> ||
                         std::same_as<T, Eigen::bfloat16>;

/// The arithmetic type that goes with a storage scalar: double for double, float for all others.
template <storage_scalar T>
using arithmetic_t = std::conditional_t<std::same_as<T, double>, double, float>;

/// A storage scalar as a run-time value, so that one kernel serves them all.
enum class scalar_kind : std::uint8_t { float32, float64, float16, bfloat16, boolean, int8_code };

template <class T>
constexpr scalar_kind kind_of() {
  if constexpr (std::same_as<T, float>)
    return scalar_kind::float32;
  else if constexpr (std::same_as<T, double>)
    return scalar_kind::float64;
  else if constexpr (std::same_as<T, Eigen::half>)
    return scalar_kind::float16;
  else if constexpr (std::same_as<T, Eigen::bfloat16>)
    return scalar_kind::bfloat16;
  else if constexpr (std::same_as<T, std::int8_t>)
    return scalar_kind::int8_code;
  else {
    static_assert(sizeof(T) == 1, "heed: a scalar is float, double, Eigen::half, Eigen::bfloat16 or bool");
    return scalar_kind::boolean;
  }
}

constexpr std::ptrdiff_t size_of(scalar_kind kind) {
  switch (kind) {
  case scalar_kind::float32:
    return 4;
  case scalar_kind::float64:
    return 8;
  case scalar_kind::float16:
  case scalar_kind::bfloat16:
    return 2;
  case scalar_kind::boolean:
  case scalar_kind::int8_code:
    return 1;
  }
  return 0;
}

constexpr char const* name_of(scalar_kind kind) {
  switch (kind) {
  case scalar_kind::float32:
    return "float";
  case scalar_kind::float64:
    return "double";
  case scalar_kind::float16:
    return "half";
  case scalar_kind::bfloat16:
    return "bfloat16";
  case scalar_kind::boolean:
    return "bool";
  case scalar_kind::int8_code:
    return "int8";
  }
  return "?";
}

HEED_ISA_BEGIN

/// Rounds to nearest even into the storage type; NaN stays NaN, overflow gives an infinity.
template <storage_scalar To, class From>
To round_to(From value) {
  if constexpr (std::same_as<To, Eigen::bfloat16>) {
    auto const wide = static_cast<float>(value);
    auto const bits = std::bit_cast<std::uint32_t>(wide);
    auto const rounded = wide == wide ? (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16 : (bits >> 16) | 0x40U;
    return Eigen::numext::bit_cast<Eigen::bfloat16>(static_cast<std::uint16_t>(rounded));
  } else if constexpr (std::same_as<To, Eigen::half>) {
    return Eigen::half(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

HEED_ISA_END
}  // namespace heed
