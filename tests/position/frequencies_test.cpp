#include <heed/position/frequencies.hpp>

#include "support/catch.hpp"
#include "support/counting_allocator.hpp"

#include <cstring>

namespace heed::test {
namespace {

bool same_bits(frequencies const& a, frequencies const& b) {
  return a.pairs() == b.pairs() && a.attention_factor() == b.attention_factor() &&
         std::memcmp(a.theta(), b.theta(), static_cast<std::size_t>(a.pairs()) * sizeof(double)) == 0;
}

/// As the sources print them: five digits.
auto five_digits(double x) { return Approx(x).epsilon(1e-4).margin(0); }
auto exactly(double x) { return Approx(x).epsilon(1e-14).margin(0); }

TEST_CASE("frequencies: standard angles are base^(-2t/dim)", "[contract]") {
  auto const f = frequencies::standard(128);
  REQUIRE(f.pairs() == 64);
  CHECK(f.attention_factor() == 1);
  CHECK(f[0] == 1);
  for (index t = 0; t < 64; ++t) {
    CHECK(f[t] == exactly(static_cast<double>(std::pow(10000.0L, -2.0L * static_cast<long double>(t) / 128))));
    CHECK(f.theta()[t] == f[t]);
  }
  CHECK(frequencies::standard(4, 1e6)[1] == exactly(1e-3));
}

TEST_CASE("frequencies: the user's own numbers are taken as they are", "[contract]") {
  frequencies const f({0.5, -2, 0}, 1.25);
  CHECK(f.pairs() == 3);
  CHECK(f[1] == -2);
  CHECK(f.attention_factor() == 1.25);
}

TEST_CASE("frequencies: factor 1 gives the bits of standard in every variant", "[identities]") {
  for (index dim : {4, 6, 64, 128})
    for (double base : {10000.0, 500000.0}) {
      auto const plain = frequencies::standard(dim, base);
      std::vector<double> const ones(static_cast<std::size_t>(dim / 2), 1.0);
      CHECK(same_bits(plain, frequencies::linear(dim, {.base = base})));
      CHECK(same_bits(plain, frequencies::ntk_aware(dim, {.base = base})));
      CHECK(same_bits(plain, frequencies::ntk_old(dim, {.base = base})));
      CHECK(same_bits(plain, frequencies::ntk_fixed(dim, {.base = base})));
      CHECK(same_bits(plain, frequencies::ntk_mixed(dim, {.base = base})));
      CHECK(same_bits(plain, frequencies::dynamic_ntk(dim, {.base = base, .train_len = 512, .len = 512})));
      CHECK(same_bits(plain, frequencies::dynamic_ntk(dim, {.base = base, .factor = 8, .train_len = 512, .len = 100})));
      CHECK(same_bits(plain, frequencies::ntk_by_parts(dim, {.base = base, .train_len = 2048})));
      CHECK(same_bits(plain, frequencies::yarn(dim, {.base = base, .train_len = 2048})));
      CHECK(same_bits(plain, frequencies::yarn(dim, {.base = base, .train_len = 2048, .ramp = yarn_ramp::by_turns})));
      CHECK(same_bits(plain, frequencies::llama3(dim, {.base = base, .factor = 1})));
      CHECK(same_bits(plain, frequencies::longrope(
                                 dim, {.base = base, .short_factor = ones, .long_factor = ones, .train_len = 512})));
      CHECK(same_bits(plain, frequencies::proportional(dim, {.base = base})));
    }
}

TEST_CASE("frequencies: what the NTK variants keep and what they meet", "[identities]") {
  for (index dim : {4, 64, 128})
    for (double k : {2.0, 8.0, 3.7}) {
      auto const plain = frequencies::standard(dim);
      auto const linear = frequencies::linear(dim, {.factor = k});
      auto const aware = frequencies::ntk_aware(dim, {.factor = k});
      auto const old = frequencies::ntk_old(dim, {.factor = k});
      auto const fixed = frequencies::ntk_fixed(dim, {.factor = k});
      index const last = dim / 2 - 1;
      CHECK(aware[0] == 1);
      CHECK(aware[last] == exactly(linear[last]));
      CHECK(fixed[last] == exactly(linear[last]));
      CHECK(same_bits(old, frequencies::standard(dim, 10000 * k)));
      for (index t = 0; t <= last; ++t) {
        CHECK(linear[t] == plain[t] / k);
        CHECK(fixed[t] == exactly(old[t] / std::pow(k, 2.0 / static_cast<double>(dim))));
        CHECK(frequencies::ntk_mixed(dim, {.factor = k, .exponent = 1})[t] == exactly(fixed[t]));
        CHECK(frequencies::ntk_mixed(dim, {.factor = k, .exponent = 0})[t] == exactly(linear[t]));
      }
      for (double b : {0.0, 0.625, 0.75, 1.0})
        CHECK(frequencies::ntk_mixed(dim, {.factor = k, .exponent = b})[last] == exactly(plain[last] / k));
    }
}

TEST_CASE("frequencies: kexue's table for k = 2, d = 4, and the mixed base at k = 8", "[reference]") {
  CHECK(frequencies::ntk_aware(4, {.factor = 2})[1] == exactly(0.005));
  CHECK(frequencies::ntk_old(4, {.factor = 2})[1] == Approx(0.00707107).epsilon(1e-6));
  CHECK(frequencies::ntk_fixed(4, {.factor = 2})[0] == Approx(0.70710678).epsilon(1e-8));
  CHECK(frequencies::ntk_mixed(4, {.factor = 2})[0] == Approx(0.63797873).epsilon(1e-8));
  CHECK(frequencies::ntk_mixed(4, {.factor = 2})[1] == exactly(0.005));
  auto const plain = frequencies::standard(128), mixed = frequencies::ntk_mixed(128, {.factor = 8});
  CHECK(mixed[0] / plain[0] == Approx(0.8567960).epsilon(1e-7));
  CHECK(mixed[1] / plain[1] == Approx(0.7879213).epsilon(1e-7));
  CHECK(mixed[31] / plain[31] == Approx(0.2596681).epsilon(2e-7));
  CHECK(mixed[63] / plain[63] == exactly(0.125));
}

TEST_CASE("frequencies: transformers' llama3 and longrope numbers", "[reference]") {
  auto const f = frequencies::llama3(128, {.factor = 10, .train_len = 2048});
  CHECK(f.attention_factor() == 1);
  double const expected[][2] = {{30, 1.3335e-02}, {31, 1.0730e-02}, {32, 7.7785e-03}, {33, 5.6009e-03},
                                {40, 3.4539e-04}, {41, 2.7384e-04}, {63, 1.1548e-05}};
  for (auto const& [t, theta] : expected)
    CHECK(f[static_cast<index>(t)] == five_digits(theta));

  std::vector<double> const halves(64, 2.0);
  std::vector<double> rising(64);
  for (std::size_t t = 0; t < 64; ++t)
    rising[t] = static_cast<double>(t + 1);
  auto const make = [&](index len, double factor) {
    return frequencies::longrope(
        128, {.short_factor = halves, .long_factor = rising, .train_len = 2048, .len = len, .factor = factor});
  };
  auto const plain = frequencies::standard(128);
  for (index t = 0; t < 64; ++t) {
    CHECK(make(0, 2)[t] == plain[t] / 2);
    CHECK(make(2048, 2)[t] == plain[t] / 2);
    CHECK(make(2049, 2)[t] == plain[t] / static_cast<double>(t + 1));
  }
  CHECK(make(0, 1).attention_factor() == 1);
  CHECK(make(0, 0.5).attention_factor() == 1);
  CHECK(make(0, 2).attention_factor() == Approx(1.0444659).epsilon(1e-7));
  CHECK(make(4096, 10).attention_factor() == Approx(1.1410493).epsilon(1e-7));
  CHECK(make(0, 20).attention_factor() == Approx(1.1802129).epsilon(1e-7));
  CHECK(frequencies::longrope(128,
                              {.short_factor = halves, .long_factor = rising, .train_len = 2048, .attention_factor = 3})
            .attention_factor() == 3);
}

TEST_CASE("frequencies: yarn's attention factor comes from the first that is given", "[contract]") {
  auto const factor = [](yarn_scaling s) {
    s.train_len = 2048;
    return frequencies::yarn(128, s).attention_factor();
  };
  CHECK(factor({.factor = 10}) == exactly(0.1 * std::log(10.0) + 1));
  CHECK(factor({.factor = 10, .attention_factor = 0.5, .mscale = 2, .mscale_all_dim = 1}) == 0.5);
  CHECK(factor({.factor = 40, .mscale = 1, .mscale_all_dim = 1}) == 1);  // DeepSeek-V3
  CHECK(factor({.factor = 40, .mscale = 0.707, .mscale_all_dim = 1}) ==
        exactly((0.0707 * std::log(40.0) + 1) / (0.1 * std::log(40.0) + 1)));
  CHECK(factor({.factor = 10, .mscale = 0.707}) == exactly(0.1 * std::log(10.0) + 1));
  CHECK(factor({.factor = 10, .mscale = 0, .mscale_all_dim = 1}) == exactly(0.1 * std::log(10.0) + 1));
}

TEST_CASE("frequencies: yarn's two ramps", "[reference]") {
  auto const plain = frequencies::standard(128);
  auto const by_index = frequencies::yarn(128, {.factor = 10, .train_len = 2048});
  auto const loose = frequencies::yarn(128, {.factor = 10, .train_len = 2048, .truncate = false});
  auto const by_turns = frequencies::yarn(128, {.factor = 10, .train_len = 2048, .ramp = yarn_ramp::by_turns});
  auto const pair_with = [](double turns) {
    return 128 * std::log(2048 / (turns * 2 * std::numbers::pi)) / (2 * std::log(10000.0));
  };
  double largest_ratio = 1;
  for (index t = 0; t < 64; ++t) {
    double const strict = std::clamp((static_cast<double>(t) - 16) / (41 - 16), 0.0, 1.0);
    CHECK(by_index[t] == exactly(plain[t] / 10 * strict + plain[t] * (1 - strict)));
    double const low = pair_with(32), high = pair_with(1);
    double const ramp = std::clamp((static_cast<double>(t) - low) / (high - low), 0.0, 1.0);
    CHECK(loose[t] == exactly(plain[t] / 10 * ramp + plain[t] * (1 - ramp)));
    double const turns = plain[t] * 2048 / (2 * std::numbers::pi);
    double const keep = std::clamp((turns - 1) / 31, 0.0, 1.0);
    CHECK(by_turns[t] == exactly((keep + (1 - keep) / 10) * plain[t]));
    largest_ratio = std::max(largest_ratio, by_index[t] / by_turns[t]);
  }
  CHECK(largest_ratio > 2.3);  // formulas E10: up to 2.5
  CHECK(largest_ratio < 2.7);
}

TEST_CASE("frequencies: yarn's ends may meet or leave the table", "[edges]") {
  // Everything turns often: nothing is stretched. Nothing does: all of it is.
  CHECK(same_bits(frequencies({1, 0.1}, 0.1 * std::log(4.0) + 1),
                  frequencies::yarn(4, {.base = 100, .factor = 4, .train_len = 1'000'000})));
  auto const slow = frequencies::yarn(4, {.factor = 4, .train_len = 7, .beta_fast = 2});
  CHECK(slow[0] == 1);  // the ramp starts at pair 0, as everybody's code has it
  CHECK(slow[1] == 0.0025);
  CHECK(frequencies::yarn(2, {.factor = 4, .train_len = 64}).pairs() == 1);
}

TEST_CASE("frequencies: ntk_by_parts is three angles under two ramps", "[reference]") {
  double const k = 8, length = 2048;
  auto const plain = frequencies::standard(128), aware = frequencies::ntk_aware(128, {.factor = k});
  auto const parts = frequencies::ntk_by_parts(128, {.factor = k, .train_len = 2048});
  auto const mask = [&](index t, double fast, double slow) {
    auto const pair_with = [&](double r) {
      return 128 * std::log(length / (r * 2 * std::numbers::pi)) / (2 * std::log(1e4));
    };
    double const low = std::max(std::floor(pair_with(fast)), 0.0), high = std::min(std::ceil(pair_with(slow)), 127.0);
    return 1 - std::clamp((static_cast<double>(t) - low) / (high - low), 0.0, 1.0);
  };
  for (index t = 0; t < 64; ++t) {
    double const m1 = mask(t, 1.25, 0.75), m2 = mask(t, 16, 2);
    double const scaled = plain[t] / k * (1 - m1) + aware[t] * m1;
    CHECK(parts[t] == exactly(scaled * (1 - m2) + plain[t] * m2));
  }
  CHECK(parts[0] == plain[0]);
  CHECK(parts[63] == plain[63] / k);
  CHECK(parts[35] != plain[35]);
}

TEST_CASE("frequencies: proportional keeps the exponent and stops turning", "[contract]") {
  auto const plain = frequencies::standard(64);
  auto const f = frequencies::proportional(64, {.fraction = 0.3});
  REQUIRE(f.pairs() == 32);
  for (index t = 0; t < 32; ++t)
    CHECK(f[t] == (t < 9 ? plain[t] : 0.0));
  CHECK(frequencies::proportional(64, {.fraction = 0})[0] == 0);
  CHECK(frequencies::proportional(64, {.fraction = 0.25, .factor = 8})[7] == plain[7] / 8);
}

TEST_CASE("frequencies: copies share their numbers", "[resources]") {
  auto const f = frequencies::yarn(128, {.factor = 4, .train_len = 2048});
  allocation_count const count;
  frequencies const copy = f;
  frequencies moved = copy;
  frequencies const from = std::move(moved);
  auto const requests = count.count();
  CHECK(requests == 0);
  CHECK(copy.theta() == f.theta());
  CHECK(from.theta() == f.theta());
  CHECK(moved.pairs() == 64);
}

TEST_CASE("frequencies: bad input is refused by name", "[errors]") {
  std::vector<double> const two{1, 2};
  CHECK_THROWS_WITH(frequencies(std::vector<double>{}), "frequencies: theta must hold at least one angle, got none");
  CHECK_THROWS_WITH(frequencies({1, INFINITY}), "frequencies: theta[1] must be finite, got inf");
  CHECK_THROWS_WITH(frequencies({1}, 0), "frequencies: attention_factor must be positive and finite, got 0");
  CHECK_THROWS_WITH(frequencies::standard(0), "frequencies::standard: dim must be even and at least 2, got 0");
  CHECK_THROWS_WITH(frequencies::standard(7), "frequencies::standard: dim must be even and at least 2, got 7");
  CHECK_THROWS_WITH(frequencies::standard(8, 0), "frequencies::standard: base must be positive and finite, got 0");
  CHECK_THROWS_WITH(frequencies::linear(8, {.factor = 0.5}),
                    "frequencies::linear: factor must be finite and at least 1, got 0.5");
  CHECK_THROWS_WITH(frequencies::linear(8, {.factor = NAN}),
                    "frequencies::linear: factor must be finite and at least 1, got nan");
  CHECK_THROWS_WITH(frequencies::ntk_aware(2, {.factor = 2}),
                    "frequencies::ntk_aware: dim must be at least 4 for the exponent dim/(dim-2), got 2");
  CHECK_THROWS_WITH(frequencies::ntk_old(8, {.base = -1}),
                    "frequencies::ntk_old: base must be positive and finite, got -1");
  CHECK_THROWS_WITH(frequencies::ntk_fixed(3, {}), "frequencies::ntk_fixed: dim must be even and at least 2, got 3");
  CHECK_THROWS_WITH(frequencies::ntk_mixed(8, {.exponent = -1}),
                    "frequencies::ntk_mixed: exponent must be finite and at least 0, got -1");
  CHECK_THROWS_WITH(frequencies::dynamic_ntk(2, {.train_len = 8}),
                    "frequencies::dynamic_ntk: dim must be at least 4 for the exponent dim/(dim-2), got 2");
  CHECK_THROWS_WITH(frequencies::dynamic_ntk(8, {}), "frequencies::dynamic_ntk: train_len must be at least 1, got 0");
  CHECK_THROWS_WITH(frequencies::dynamic_ntk(8, {.train_len = 4, .len = -1}),
                    "frequencies::dynamic_ntk: len must not be negative, got -1");
  CHECK_THROWS_WITH(frequencies::ntk_by_parts(8, {.train_len = 64, .gamma_0 = 1}),
                    "frequencies::ntk_by_parts: gamma_0 must exceed gamma_1 2, got 1");
  CHECK_THROWS_WITH(frequencies::yarn(8, {.factor = 2}), "frequencies::yarn: train_len must be at least 1, got 0");
  CHECK_THROWS_WITH(frequencies::yarn(8, {.base = 1, .train_len = 8}),
                    "frequencies::yarn: base must be finite and above 1, got 1");
  CHECK_THROWS_WITH(frequencies::yarn(8, {.train_len = 8, .beta_fast = 1}),
                    "frequencies::yarn: beta_fast must exceed beta_slow 1, got 1");
  CHECK_THROWS_WITH(frequencies::yarn(8, {.train_len = 8, .attention_factor = -1}),
                    "frequencies::yarn: attention_factor must be positive and finite, got -1");
  CHECK_THROWS_WITH(frequencies::llama3(8, {.high_freq_factor = 1}),
                    "frequencies::llama3: high_freq_factor must exceed low_freq_factor 1, got 1");
  CHECK_THROWS_WITH(frequencies::longrope(8, {.short_factor = two, .long_factor = two, .train_len = 64}),
                    "frequencies::longrope: short_factor must have 4 numbers, one per pair, got 2");
  CHECK_THROWS_WITH(frequencies::longrope(4, {.short_factor = two, .long_factor = {1, 0}, .train_len = 64}),
                    "frequencies::longrope: long_factor[1] must be positive and finite, got 0");
  CHECK_THROWS_WITH(frequencies::longrope(4, {.short_factor = two, .long_factor = two, .train_len = 1}),
                    "frequencies::longrope: train_len must be at least 2, got 1");
  CHECK_THROWS_WITH(frequencies::proportional(8, {.fraction = 1.5}),
                    "frequencies::proportional: fraction must lie in [0, 1], got 1.5");
  CHECK_THROWS_AS(frequencies::standard(7), argument_error);
}

}  // namespace
}  // namespace heed::test
