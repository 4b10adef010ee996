#pragma once

#include <heed/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <optional>
#include <vector>

/// The angles of rotary position embedding, one per pair of channels, and every known way of stretching them.

namespace heed {

// What the makers below are told. Fields in the order they are written; those left out keep their defaults:
// `frequencies::yarn(128, {.factor = 10, .train_len = 2048})`.

struct rope_scaling {
  double base = 10000;
  double factor = 1;  // length wanted / length trained, ≥ 1
};

struct ntk_mixed_scaling {
  double base = 10000;
  double factor = 1;
  double exponent = 0.625;  // b: 0 is linear, 1 is ntk_fixed; bojone/rerope runs 0.75
};

struct dynamic_ntk_scaling {
  double base = 10000;
  double factor = 1;
  index train_len = 0;
  index len = 0;  // the current length
};

struct ntk_by_parts_scaling {
  double base = 10000;
  double factor = 1;
  index train_len = 0;
  double beta_0 = 1.25;  // turns within train_len between which NTK fades into linear
  double beta_1 = 0.75;
  double gamma_0 = 16;  // turns between which the original angles fade into that
  double gamma_1 = 2;
};

/// What YaRN's ramp between old and stretched angles is linear in: the number of the pair (the authors' code, and
/// everybody's models), or the turns within train_len (the paper's text). They differ by up to 2.5 × in the middle.
enum class yarn_ramp { by_index, by_turns };

struct yarn_scaling {
  double base = 10000;
  double factor = 1;
  index train_len = 0;
  double beta_fast = 32;  // pairs that turn more often than this keep their angle
  double beta_slow = 1;   // pairs that turn less often are stretched by the whole factor
  yarn_ramp ramp = yarn_ramp::by_index;
  std::optional<double> attention_factor = std::nullopt;  // default 0.1 ln factor + 1
  std::optional<double> mscale = std::nullopt;            // with mscale_all_dim (DeepSeek): the quotient of two such
  std::optional<double> mscale_all_dim = std::nullopt;
  bool truncate = true;  // by_index: widen its ends to whole pairs
};

struct llama3_scaling {
  double base = 10000;
  double factor = 8;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  index train_len = 8192;
};

struct longrope_scaling {
  double base = 10000;
  std::vector<double> short_factor = {};  // one divisor a pair, up to train_len
  std::vector<double> long_factor = {};   // one divisor a pair, beyond
  index train_len = 0;
  index len = 0;                                          // the current length
  double factor = 1;                                      // length wanted / length trained: makes the attention factor
  std::optional<double> attention_factor = std::nullopt;  // default √(1 + ln factor / ln train_len), 1 for factor ≤ 1
};

struct proportional_scaling {
  double base = 10000;
  double fraction = 1;  // of the pairs that turn at all
  double factor = 1;
};

HEED_ISA_BEGIN

/// One angle per pair of channels and one factor on cos and sin of both q and k.
///
///     pair t at position p turns by p · theta_t,   theta_t = base^(−2t/dim) for `standard`
///
/// - `dim` counts the channels that are turned: even, at least 2; for partial rotary it is less than the head's.
/// - All makers compute in double; with factor 1 each gives the bits of `standard` (longrope: with divisors of 1;
///   dynamic_ntk: where len ≤ train_len, for whatever factor).
/// - Copies share the numbers, which never change: copying neither allocates nor invalidates `theta()`.
/// - Angles that depend on the current length (dynamic_ntk, longrope) make rotated keys stale when they change: keep
///   raw keys, as `attention` with a `rotary` modifier does.
///
/// @see formulas B1 and B3 for every maker; Su et al. 2021, arXiv 2104.09864
class frequencies {
 public:
  /// The user's own numbers, finite, one per pair.
  /// @throws argument_error for no numbers, one that is not finite, or a factor that is not positive and finite
  explicit frequencies(std::vector<double> theta, double attention_factor = 1)
      : theta_(std::make_shared<std::vector<double> const>(std::move(theta))), attention_factor_(attention_factor) {
    detail::expect(!theta_->empty(), "frequencies: theta must hold at least one angle, got none");
    for (std::size_t t = 0; t < theta_->size(); ++t)
      detail::expect(std::isfinite((*theta_)[t]), "frequencies: theta[", t, "] must be finite, got ", (*theta_)[t]);
    detail::expect(positive(attention_factor), "frequencies: attention_factor must be positive and finite, got ",
                   attention_factor);
  }

  // Copies only: a moved-from object would have no angles.
  frequencies(frequencies const&) = default;
  frequencies& operator=(frequencies const&) = default;

  index pairs() const { return static_cast<index>(theta_->size()); }
  double operator[](index t) const { return (*theta_)[static_cast<std::size_t>(t)]; }
  double const* theta() const { return theta_->data(); }
  double attention_factor() const { return attention_factor_; }

  /// base^(−2t/dim). A larger base (ABF, Code Llama: 10^6) is the same formula.
  /// @see Su et al. 2021, arXiv 2104.09864, eq. 15; Xiong et al. 2023, arXiv 2309.16039 (ABF)
  static frequencies standard(index dim, double base = 10000) { return plain("standard", dim, base); }

  /// theta / factor: the same as positions divided by the factor (position interpolation).
  /// @see Chen et al. 2023, arXiv 2306.15595; kaiokendev's SuperHOT
  static frequencies linear(index dim, rope_scaling const& s) {
    check_factor("linear", s.factor);
    return plain("linear", dim, s.base).mapped([&](double theta, index) { return theta / s.factor; });
  }

  /// base · factor^(dim/(dim−2)): the first angle stays, the last becomes exactly theta / factor.
  /// @see bloc97 2023, "NTK-aware scaled RoPE"; Peng et al. 2023, arXiv 2309.00071, eq. 16
  static frequencies ntk_aware(index dim, rope_scaling const& s) {
    check_factor("ntk_aware", s.factor);
    check_ntk_dim("ntk_aware", dim);
    check_base("ntk_aware", s.base);
    return plain("ntk_aware", dim, ntk_base(dim, s.base, s.factor));
  }

  /// base · factor.
  /// @see kexue.fm/archives/9675
  static frequencies ntk_old(index dim, rope_scaling const& s) {
    check_factor("ntk_old", s.factor);
    check_base("ntk_old", s.base);
    return plain("ntk_old", dim, s.base * s.factor);
  }

  /// theta_t · factor^(−2(t+1)/dim): as `ntk_old`, the period of the digits stretched as well.
  /// @see kexue.fm/archives/9706
  static frequencies ntk_fixed(index dim, rope_scaling const& s) {
    check_factor("ntk_fixed", s.factor);
    auto const d = static_cast<double>(dim);
    return plain("ntk_fixed", dim, s.base).mapped([&](double theta, index t) {
      return theta * std::pow(s.factor, -2.0 * static_cast<double>(t + 1) / d);
    });
  }

  /// theta_t · exp(−a (t+1)^b), a = ln factor / (dim/2)^b: b = 0 is `linear`, b = 1 is `ntk_fixed`.
  /// @see kexue.fm/archives/9706
  static frequencies ntk_mixed(index dim, ntk_mixed_scaling const& s) {
    check_factor("ntk_mixed", s.factor);
    detail::expect(std::isfinite(s.exponent) && s.exponent >= 0,
                   "frequencies::ntk_mixed: exponent must be finite and at least 0, got ", s.exponent);
    double const a = std::log(s.factor) / std::pow(static_cast<double>(dim) / 2, s.exponent);
    return plain("ntk_mixed", dim, s.base).mapped([&](double theta, index t) {
      return theta * std::exp(-a * std::pow(static_cast<double>(t + 1), s.exponent));
    });
  }

  /// base · (1 + factor (n/train_len − 1))^(dim/(dim−2)), n = max(len, train_len):
  /// `ntk_aware` that grows with the text.
  /// @see emozilla 2023, "Dynamically scaled RoPE"; transformers, modeling_rope_utils.py
  static frequencies dynamic_ntk(index dim, dynamic_ntk_scaling const& s) {
    check_factor("dynamic_ntk", s.factor);
    check_ntk_dim("dynamic_ntk", dim);
    check_base("dynamic_ntk", s.base);
    check_train_len("dynamic_ntk", s.train_len, 1);
    check_len("dynamic_ntk", s.len);
    double const ratio = static_cast<double>(std::max(s.len, s.train_len)) / static_cast<double>(s.train_len);
    return plain("dynamic_ntk", dim, ntk_base(dim, s.base, 1 + s.factor * (ratio - 1)));
  }

  /// Linear and NTK-aware angles blended between beta_0 and beta_1 turns, and those with the original ones between
  /// gamma_0 and gamma_1: YaRN's predecessor.
  /// @see bloc97 2023; jquesnelle/yarn, LlamaPartNTKScaledRotaryEmbedding; arXiv 2309.00071, section 3.2
  static frequencies ntk_by_parts(index dim, ntk_by_parts_scaling const& s) {
    static constexpr char const* name = "ntk_by_parts";
    check_factor(name, s.factor);
    check_ntk_dim(name, dim);
    check_ramp(name, s.base, s.train_len, s.beta_0, "beta_0", s.beta_1, "beta_1");
    check_ramp(name, s.base, s.train_len, s.gamma_0, "gamma_0", s.gamma_1, "gamma_1");
    frequencies const ntk = plain(name, dim, ntk_base(dim, s.base, s.factor));
    index_ramp const to_linear(dim, s.base, s.train_len, s.beta_0, s.beta_1, true);
    index_ramp const from_original(dim, s.base, s.train_len, s.gamma_0, s.gamma_1, true);
    return plain(name, dim, s.base).mapped([&](double theta, index t) {
      double const scaled = blend(ntk[t], theta / s.factor, to_linear(t));
      return blend(theta, scaled, from_original(t));
    });
  }

  /// Pairs that turn often within train_len keep their angle, those that hardly turn get theta / factor, a ramp
  /// between; cos and sin are multiplied by 0.1 ln factor + 1.
  ///
  /// attention_factor wins; else mscale and mscale_all_dim, if both are there and not 0, give
  /// (0.1 mscale ln factor + 1) / (0.1 mscale_all_dim ln factor + 1).
  /// @see Peng et al. 2023, arXiv 2309.00071, eq. 17–22 (ramp `by_turns`); jquesnelle/yarn and transformers,
  ///      modeling_rope_utils.py (ramp `by_index`)
  static frequencies yarn(index dim, yarn_scaling const& s) {
    check_factor("yarn", s.factor);
    check_ramp("yarn", s.base, s.train_len, s.beta_fast, "beta_fast", s.beta_slow, "beta_slow");
    index_ramp const by_index(dim, s.base, s.train_len, s.beta_fast, s.beta_slow, s.truncate);
    auto const by_turns = [&](double theta) {
      double const turns = theta * static_cast<double>(s.train_len) / (2 * std::numbers::pi);
      return 1 - std::clamp((turns - s.beta_slow) / (s.beta_fast - s.beta_slow), 0.0, 1.0);
    };
    frequencies result = plain("yarn", dim, s.base).mapped([&](double theta, index t) {
      return blend(theta, theta / s.factor, s.ramp == yarn_ramp::by_index ? by_index(t) : by_turns(theta));
    });
    auto const mscale = [&](double weight) { return 0.1 * weight * std::log(s.factor) + 1; };
    if (s.attention_factor)
      result.set_attention_factor("yarn", *s.attention_factor);
    else if (s.mscale.value_or(0) != 0 && s.mscale_all_dim.value_or(0) != 0)
      result.set_attention_factor("yarn", mscale(*s.mscale) / mscale(*s.mscale_all_dim));
    else
      result.set_attention_factor("yarn", mscale(1));
    return result;
  }

  /// By wavelength w = 2π/theta: beyond train_len / low_freq_factor theta / factor, below train_len / high_freq_factor
  /// theta, linear in train_len / w between.
  /// @see Llama 3.1 (Grattafiori et al. 2024, arXiv 2407.21783); transformers, modeling_rope_utils.py
  static frequencies llama3(index dim, llama3_scaling const& s) {
    check_factor("llama3", s.factor);
    check_train_len("llama3", s.train_len, 1);
    detail::expect(positive(s.low_freq_factor),
                   "frequencies::llama3: low_freq_factor must be positive and finite, got ", s.low_freq_factor);
    detail::expect(std::isfinite(s.high_freq_factor) && s.high_freq_factor > s.low_freq_factor,
                   "frequencies::llama3: high_freq_factor must exceed low_freq_factor ", s.low_freq_factor, ", got ",
                   s.high_freq_factor);
    auto const length = static_cast<double>(s.train_len);
    return plain("llama3", dim, s.base).mapped([&](double theta, index) {
      double const wave = 2 * std::numbers::pi / theta;
      if (wave < length / s.high_freq_factor)
        return theta;
      if (wave > length / s.low_freq_factor)
        return theta / s.factor;
      double const keep = (length / wave - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
      return blend(theta, theta / s.factor, 1 - keep);
    });
  }

  /// theta_t / divisor_t with a searched list of divisors: long_factor where len > train_len, else short_factor.
  /// @see Ding et al. 2024, arXiv 2402.13753; transformers, modeling_rope_utils.py
  static frequencies longrope(index dim, longrope_scaling const& s) {
    check_dim("longrope", dim);
    check_train_len("longrope", s.train_len, 2);
    check_len("longrope", s.len);
    check_divisors(dim, s.short_factor, "short_factor");
    check_divisors(dim, s.long_factor, "long_factor");
    detail::expect(positive(s.factor), "frequencies::longrope: factor must be positive and finite, got ", s.factor);
    auto const& divisors = s.len > s.train_len ? s.long_factor : s.short_factor;
    frequencies result = plain("longrope", dim, s.base).mapped([&](double theta, index t) {
      return theta / divisors[static_cast<std::size_t>(t)];
    });
    double const by_length =
        s.factor <= 1 ? 1 : std::sqrt(1 + std::log(s.factor) / std::log(static_cast<double>(s.train_len)));
    result.set_attention_factor("longrope", s.attention_factor.value_or(by_length));
    return result;
  }

  /// base^(−2t/dim) / factor for t < floor(fraction · dim/2), 0 beyond: the exponent runs over the whole dim, but only
  /// the fast pairs turn.
  /// @see transformers, modeling_rope_utils.py ("proportional")
  static frequencies proportional(index dim, proportional_scaling const& s) {
    check_factor("proportional", s.factor);
    detail::expect(s.fraction >= 0 && s.fraction <= 1, "frequencies::proportional: fraction must lie in [0, 1], got ",
                   s.fraction);
    auto const turning = static_cast<index>(std::floor(s.fraction * static_cast<double>(dim) / 2));
    return plain("proportional", dim, s.base).mapped([&](double theta, index t) {
      return t < turning ? theta / s.factor : 0.0;
    });
  }

 private:
  /// 0 up to the pair that turns `fast` times within train_len, 1 from the one that turns `slow` times, linear in the
  /// number of the pair between. Its upper end is held at dim − 1, not at the last pair, as everybody's code has it.
  struct index_ramp {
    double low, high;

    index_ramp(index dim, double base, index train_len, double fast, double slow, bool truncate) {
      auto const d = static_cast<double>(dim);
      auto const pair_with = [&](double turns) {
        return d * std::log(static_cast<double>(train_len) / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
      };
      double const first = pair_with(fast), last = pair_with(slow);
      low = std::max(truncate ? std::floor(first) : first, 0.0);
      high = std::min(truncate ? std::ceil(last) : last, d - 1);
      if (low == high)
        high += 0.001;
    }

    double operator()(index t) const { return std::clamp((static_cast<double>(t) - low) / (high - low), 0.0, 1.0); }
  };

  static frequencies plain(char const* maker, index dim, double base) {
    check_dim(maker, dim);
    check_base(maker, base);
    std::vector<double> theta(static_cast<std::size_t>(dim / 2));
    for (std::size_t t = 0; t < theta.size(); ++t)
      theta[t] = std::pow(base, -2.0 * static_cast<double>(t) / static_cast<double>(dim));
    return frequencies(std::move(theta));
  }

  template <class F>
  frequencies mapped(F f) const {
    std::vector<double> theta(*theta_);
    for (std::size_t t = 0; t < theta.size(); ++t)
      theta[t] = f(theta[t], static_cast<index>(t));
    return frequencies(std::move(theta), attention_factor_);
  }

  /// a at ramp 0, b at ramp 1; exactly a where both are equal.
  static double blend(double a, double b, double ramp) { return ramp == 1 ? b : a + ramp * (b - a); }

  static double ntk_base(index dim, double base, double factor) {
    auto const d = static_cast<double>(dim);
    return base * std::pow(factor, d / (d - 2));
  }

  void set_attention_factor(char const* maker, double factor) {
    detail::expect(positive(factor), "frequencies::", maker, ": attention_factor must be positive and finite, got ",
                   factor);
    attention_factor_ = factor;
  }

  static bool positive(double x) { return std::isfinite(x) && x > 0; }

  static void check_dim(char const* maker, index dim) {
    detail::expect(dim >= 2 && dim % 2 == 0, "frequencies::", maker, ": dim must be even and at least 2, got ", dim);
  }
  static void check_ntk_dim(char const* maker, index dim) {
    check_dim(maker, dim);
    detail::expect(dim >= 4, "frequencies::", maker, ": dim must be at least 4 for the exponent dim/(dim-2), got ",
                   dim);
  }
  static void check_base(char const* maker, double base) {
    detail::expect(positive(base), "frequencies::", maker, ": base must be positive and finite, got ", base);
  }
  static void check_factor(char const* maker, double factor) {
    detail::expect(std::isfinite(factor) && factor >= 1, "frequencies::", maker,
                   ": factor must be finite and at least 1, got ", factor);
  }
  static void check_train_len(char const* maker, index train_len, index least) {
    detail::expect(train_len >= least, "frequencies::", maker, ": train_len must be at least ", least, ", got ",
                   train_len);
  }
  static void check_len(char const* maker, index len) {
    detail::expect(len >= 0, "frequencies::", maker, ": len must not be negative, got ", len);
  }
  static void check_ramp(char const* maker, double base, index train_len, double fast, char const* fast_name,
                         double slow, char const* slow_name) {
    detail::expect(std::isfinite(base) && base > 1, "frequencies::", maker, ": base must be finite and above 1, got ",
                   base);
    check_train_len(maker, train_len, 1);
    detail::expect(positive(slow), "frequencies::", maker, ": ", slow_name, " must be positive and finite, got ", slow);
    detail::expect(std::isfinite(fast) && fast > slow, "frequencies::", maker, ": ", fast_name, " must exceed ",
                   slow_name, " ", slow, ", got ", fast);
  }
  static void check_divisors(index dim, std::vector<double> const& divisors, char const* name) {
    detail::expect(static_cast<index>(divisors.size()) == dim / 2, "frequencies::longrope: ", name, " must have ",
                   dim / 2, " numbers, one per pair, got ", divisors.size());
    for (std::size_t t = 0; t < divisors.size(); ++t)
      detail::expect(positive(divisors[t]), "frequencies::longrope: ", name, "[", t,
                     "] must be positive and finite, got ", divisors[t]);
  }

  std::shared_ptr<std::vector<double> const> theta_;
  double attention_factor_;
};

HEED_ISA_END
}  // namespace heed
