#include <heed/core/scalar.hpp>

#include "support/catch.hpp"

#include <cmath>
#include <limits>

namespace heed::test {
namespace {

static_assert(std::is_same_v<arithmetic_t<float>, float> && std::is_same_v<arithmetic_t<double>, double>);
static_assert(std::is_same_v<arithmetic_t<Eigen::half>, float> && std::is_same_v<arithmetic_t<Eigen::bfloat16>, float>);
static_assert(storage_scalar<float> && storage_scalar<Eigen::half> && !storage_scalar<int> && !storage_scalar<bool>);

constexpr float infinity = std::numeric_limits<float>::infinity();

/// A 16-bit format, read by its definition: sign, exponent, fraction.
struct format {
  int fraction_bits, bias;

  int exponent_bits() const { return 15 - fraction_bits; }
  unsigned infinity() const { return ((1U << exponent_bits()) - 1U) << fraction_bits; }

  /// The value of a pattern without its sign, at most infinity's; for infinity what the next finite number would be.
  double magnitude(unsigned bits) const {
    int const exponent = static_cast<int>(bits >> fraction_bits);
    double const fraction = static_cast<double>(bits & ((1U << fraction_bits) - 1U)) / (1 << fraction_bits);
    return exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
  }
};

template <class T>
constexpr format format_of() {
  if constexpr (std::is_same_v<T, Eigen::half>)
    return {10, 15};
  else
    return {7, 127};
}

template <class T>
unsigned bits_of(T x) {
  return Eigen::numext::bit_cast<std::uint16_t>(x);
}
template <class T>
T from_bits(unsigned bits) {
  return Eigen::numext::bit_cast<T>(static_cast<std::uint16_t>(bits));
}

TEMPLATE_TEST_CASE("Every 16-bit number survives the way to float and back", "[contract]", Eigen::half,
                   Eigen::bfloat16) {
  constexpr format f = format_of<TestType>();
  int wrong = 0;
  for (unsigned bits = 0; bits < 0x10000U; ++bits) {
    auto const wide = static_cast<float>(from_bits<TestType>(bits));
    unsigned const magnitude = bits & 0x7fffU, back = bits_of(round_to<TestType>(wide));
    if (magnitude > f.infinity()) {
      wrong += !std::isnan(wide) || (back & 0x7fffU) <= f.infinity();
      continue;
    }
    double const value = magnitude == f.infinity() ? static_cast<double>(infinity) : f.magnitude(magnitude);
    wrong += std::fabs(static_cast<double>(wide)) != value || std::signbit(wide) != (bits >= 0x8000U) || back != bits;
  }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("Stores round to nearest, ties to even, at every midpoint and beside it", "[contract]", Eigen::half,
                   Eigen::bfloat16) {
  constexpr format f = format_of<TestType>();
  int wrong = 0;
  for (unsigned sign : {0U, 0x8000U})
    for (unsigned low = 0; low < f.infinity(); ++low) {
      // The last midpoint lies between the greatest number and what the next would be: infinity from there on.
      auto const middle = static_cast<float>((f.magnitude(low) + f.magnitude(low + 1)) / 2);
      float const s = sign != 0 ? -1.0F : 1.0F;
      unsigned const even = (low & 1U) == 0 ? low : low + 1;
      wrong += bits_of(round_to<TestType>(s * middle)) != (sign | even);
      wrong += bits_of(round_to<TestType>(s * std::nextafter(middle, 0.0F))) != (sign | low);
      wrong += bits_of(round_to<TestType>(s * std::nextafter(middle, infinity))) != (sign | (low + 1));
    }
  CHECK(wrong == 0);
}

TEMPLATE_TEST_CASE("Overflow gives an infinity, underflow a zero of the same sign", "[edges]", Eigen::half,
                   Eigen::bfloat16) {
  constexpr format f = format_of<TestType>();
  for (float x : {std::numeric_limits<float>::max(), infinity}) {
    CHECK(bits_of(round_to<TestType>(x)) == f.infinity());
    CHECK(bits_of(round_to<TestType>(-x)) == (0x8000U | f.infinity()));
  }
  CHECK(bits_of(round_to<TestType>(0.0F)) == 0);
  CHECK(bits_of(round_to<TestType>(-0.0F)) == 0x8000U);
  CHECK(bits_of(round_to<TestType>(std::numeric_limits<float>::denorm_min())) == 0);
  CHECK(bits_of(round_to<TestType>(-std::numeric_limits<float>::denorm_min())) == 0x8000U);
}

TEMPLATE_TEST_CASE("NaN stays NaN whatever its payload", "[edges]", Eigen::half, Eigen::bfloat16) {
  int wrong = 0;
  for (std::uint32_t payload = 1; payload < 0x800000U; payload += payload < 0x20000U ? 1 : 997)
    for (std::uint32_t sign : {0U, 0x80000000U}) {
      auto const x = round_to<TestType>(std::bit_cast<float>(sign | 0x7f800000U | payload));
      wrong += (bits_of(x) & 0x7fffU) <= format_of<TestType>().infinity();
    }
  CHECK(wrong == 0);
}

TEST_CASE("float and double are stored as they are", "[contract]") {
  CHECK(round_to<float>(0.1F) == 0.1F);
  CHECK(round_to<double>(0.1) == 0.1);
  CHECK(round_to<float>(0.1) == 0.1F);
  CHECK(std::isnan(round_to<float>(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("Scalar kinds have sizes and names", "[contract]") {
  static_assert(size_of(kind_of<float>()) == sizeof(float) && size_of(kind_of<double>()) == sizeof(double));
  static_assert(size_of(kind_of<Eigen::half>()) == 2 && size_of(kind_of<Eigen::bfloat16>()) == 2);
  static_assert(kind_of<bool>() == scalar_kind::boolean && size_of(scalar_kind::boolean) == sizeof(bool));
  CHECK(std::string(name_of(kind_of<float>())) == "float");
  CHECK(std::string(name_of(kind_of<double>())) == "double");
  CHECK(std::string(name_of(kind_of<Eigen::half>())) == "half");
  CHECK(std::string(name_of(kind_of<Eigen::bfloat16>())) == "bfloat16");
  CHECK(std::string(name_of(kind_of<bool>())) == "bool");
}

}  // namespace
}  // namespace heed::test
