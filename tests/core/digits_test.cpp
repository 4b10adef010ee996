#include "support/catch.hpp"

#include <heed/core/digits.hpp>
#include <heed/core/view.hpp>

#include "support/random.hpp"

#include <cmath>

// Floats as three digits, in builds that have AMX; nothing here needs the tiles themselves.

namespace heed::test {
namespace {

#if defined(HEED_HAS_AMX)

std::vector<float> numbers(index n, double most, generator& random) {
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& each : x)
    each = static_cast<float>(random.uniform(-most, most));
  return x;
}
#endif

}  // namespace

TEST_CASE("Three digits hold a number to 1.5 units, and rows are padded with zeros", "[contract]") {
#if defined(HEED_HAS_AMX)
  generator random(81);
  INFO(random);
  for (index n : {1, 15, 16, 17, 63, 64, 65, 128})
    for (double most : {1e-20, 1e-3, 1.0, 3e38}) {
      auto x = numbers(n, most, random);
      x[static_cast<std::size_t>(n / 2)] = -static_cast<float>(most);
      auto const unit = impl::unit_of(x.data(), n);
      REQUIRE(unit.exists);
      index const ld = (n + 63) / 64 * 64;
      std::vector<std::byte> digits(static_cast<std::size_t>(3 * ld), std::byte{0x55});
      impl::split_row(x.data(), n, unit.inverse, digits.data(), ld);
      for (index j = 0; j < ld; ++j) {
        double sum = 0;
        for (index i = 0; i < 3; ++i)
          sum = 256 * sum + static_cast<std::int8_t>(digits[static_cast<std::size_t>(i * ld + j)]);
        double const expected = j < n ? x[static_cast<std::size_t>(j)] : 0, u = unit.unit;
        INFO("n " << n << ", most " << most << ", place " << j << ", got " << sum * u << ", expected " << expected);
        // Half a unit each for the inverse, the product with it and the digits.
        REQUIRE(std::fabs(sum * u - expected) <= 1.5 * u);
        REQUIRE(std::fabs(sum) <= 0x7f7f7f);
      }
    }
#endif
}

TEST_CASE("What has no digits says so: NaN, infinity, numbers below 2^-100", "[edges]") {
#if defined(HEED_HAS_AMX)
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()})
    for (index n : {1, 16, 40})
      for (index at : {index{0}, n - 1}) {
        std::vector<float> x(static_cast<std::size_t>(n), 1.0f);
        x[static_cast<std::size_t>(at)] = bad;
        CHECK_FALSE(impl::unit_of(x.data(), n).exists);
      }
  std::vector<float> x(20, 0x1p-101f);
  CHECK_FALSE(impl::unit_of(x.data(), 20).exists);
  x[19] = 0x1p-100f;
  CHECK(impl::unit_of(x.data(), 20).exists);
  x.assign(20, 0.0f);
  auto const zeros = impl::unit_of(x.data(), 20);
  CHECK(zeros.exists);
  CHECK(zeros.unit == 0.0f);
#endif
}

TEST_CASE("Sums of digits join, column by column and row by row", "[identities]") {
#if defined(HEED_HAS_AMX)
  generator random(82);
  INFO(random);
  constexpr index ld = 32;
  alignas(64) std::int32_t sums[16 * ld];
  for (auto& each : sums)
    each = static_cast<std::int32_t>(random.whole(-1000000, 1000000));
  float const unit[4] = {1, 0.5f, 0, 3};
  auto const joined = [&](std::int32_t const* digits, index step, double u) {
    return u * (65536.0 * digits[0] + 256.0 * digits[step] + digits[2 * step]);
  };
  auto const close = [](float got, double expected) { return std::fabs(got - expected) <= 0x1p-20 * 65536e6; };
  batch<float> row[4];
  impl::join_columns(sums, ld, impl::weights_of_digits(unit), row);
  for (int r = 0; r < 4; ++r) {
    alignas(64) float got[16];
    store(got, row[r]);
    for (index j = 0; j < 16; ++j)
      CHECK(close(got[j], joined(sums + j * ld + 4 * r, 1, unit[r])));
  }
  alignas(64) float got[16];
  store(got, impl::join_rows(sums + 16, ld, 0.25f));
  for (index c = 0; c < 16; ++c)
    CHECK(close(got[c], joined(sums + 16 + c, ld, 0.25)));
#endif
}

TEST_CASE("Interleaved rows keep their channels in fours, and quarters put sums back in order", "[identities]") {
#if defined(HEED_HAS_AMX)
  std::int8_t rows[4][80];
  for (int i = 0; i < 4; ++i)
    for (int c = 0; c < 80; ++c)
      rows[i][c] = static_cast<std::int8_t>(i * 64 + (c - 16) % 64 - 128);
  std::int8_t const* const at[4] = {rows[0], rows[1], rows[2], rows[3]};
  alignas(64) std::byte mixed[256];
  impl::interleave(at, 16, mixed);
  batch<float> sums[4];  // of one key each: its channels, as an operand has them
  for (int t = 0; t < 4; ++t) {
    alignas(64) float channels[16];
    for (int n = 0; n < 16; ++n)
      for (int i = 0; i < 4; ++i) {
        auto const code = static_cast<std::int8_t>(mixed[t * 64 + n * 4 + i]);
        int const channel = 16 * (n / 4) + 4 * t + n % 4;
        CHECK(code == rows[i][16 + channel]);
        channels[n] = static_cast<float>(channel);
      }
    sums[t] = load(channels);
  }
  impl::transpose_quarters(sums);
  for (int t = 0; t < 4; ++t) {
    alignas(64) float channels[16];
    store(channels, sums[t]);
    for (int n = 0; n < 16; ++n)
      CHECK(channels[n] == static_cast<float>(16 * t + n));
  }
#endif
}

}  // namespace heed::test
