#pragma once

#include "transformer.hpp"

#include <string_view>

/// Ways for a model to attend, by the name of what they do with positions.

namespace example {

using heed::index;
using angles = heed::frequencies;

/// What a way may be told. `length`: the longest text it should read; `window`: distances that stay as they are.
struct position_settings {
  index dim, train_len;
  double length;
  index window = 0;

  double factor() const { return std::max(1.0, length / static_cast<double>(train_len)); }
};

/// How a cache keeps keys, in float or in 8 bits, and which of them a query sees.
struct position_code {
  cache_maker keep, keep_bytes;
  index left = heed::unbounded;
};

/// Keys kept as `code` wants them: a position code of heed.
template <class Code>
position_code keep_for(Code code) {
  auto const in = [&]<class T>(T) -> cache_maker {
    return [=](index heads, index dim, index capacity) {
      return key_cache(heed::kv_cache<T>(heads, dim, dim, capacity, code));
    };
  };
  return {in(float{}), in(heed::int8{})};
}

/// Rotary as llama2.c's models have it, with these frequencies.
inline heed::rotary turned(angles const& frequencies) { return {frequencies, heed::layout::interleaved}; }
inline heed::rotary as_trained(position_settings const& s) { return turned(angles::standard(s.dim)); }

/// How many positions beyond the window must count as one, so that the farthest is nearer than the training length:
/// window + (length − 1 − window) / k ≤ train_len − 1. A window as long as that leaves no room: there one step counts.
inline index far_slowdown(position_settings const& s) {
  auto const room = static_cast<double>(std::max<index>(1, s.train_len - 1 - s.window));
  return std::max<index>(1, static_cast<index>(std::ceil((s.length - 1 - static_cast<double>(s.window)) / room)));
}

struct position_scheme {
  std::string_view name;
  bool has_window;
  position_code (*make)(position_settings const&);
};

inline constexpr position_scheme position_schemes[] = {
    {"standard", false, [](auto const& s) { return keep_for(as_trained(s)); }},
    {"linear", false, [](auto const& s) { return keep_for(turned(angles::linear(s.dim, {.factor = s.factor()}))); }},
    {"ntk_aware", false,
     [](auto const& s) { return keep_for(turned(angles::ntk_aware(s.dim, {.factor = s.factor()}))); }},
    {"ntk_old", false, [](auto const& s) { return keep_for(turned(angles::ntk_old(s.dim, {.factor = s.factor()}))); }},
    {"ntk_fixed", false,
     [](auto const& s) { return keep_for(turned(angles::ntk_fixed(s.dim, {.factor = s.factor()}))); }},
    {"ntk_mixed", false,
     [](auto const& s) { return keep_for(turned(angles::ntk_mixed(s.dim, {.factor = s.factor()}))); }},
    {"yarn", false,
     [](auto const& s) {
       return keep_for(turned(angles::yarn(s.dim, {.factor = s.factor(), .train_len = s.train_len})));
     }},
    {"rerope", true, [](auto const& s) { return keep_for(heed::rerope(as_trained(s), s.window)); }},
    {"leaky_rerope", true,
     [](auto const& s) { return keep_for(heed::leaky_rerope(as_trained(s), s.window, far_slowdown(s))); }},
    {"self_extend", true,
     [](auto const& s) { return keep_for(heed::self_extend(as_trained(s), s.window, far_slowdown(s))); }},
    {"window", true,
     [](auto const& s) {
       position_code code = keep_for(as_trained(s));
       code.left = s.window - 1;
       return code;
     }},
};

inline position_scheme const& find_scheme(std::string_view name) {
  return *std::ranges::find(position_schemes, name, &position_scheme::name);
}

/// The window of a scheme that has one, where none is asked for: the training length where keys beyond it are hidden,
/// half of it where far keys need room.
inline index usual_window(position_scheme const& scheme, index train_len) {
  return scheme.name == "window" ? train_len : std::max<index>(1, train_len / 2);
}

/// Causal attention with this position code and, if asked for, scores scaled by log n beyond the training length, and
/// keys and values in 8 bits.
template <class Executor>
attention_way attend_with(position_code const& code, bool log_n, index train_len, Executor& executor,
                          bool in_bytes = false) {
  auto const attend = [&](auto... modifiers) {
    return [=](auto q, key_cache const& cache, auto out) {
      std::visit([&](auto const& kept) { heed::attention(q, kept, out, modifiers...); }, cache);
    };
  };
  cache_maker const& keep = in_bytes ? code.keep_bytes : code.keep;
  heed::window const seen{code.left, heed::unbounded};
  if (log_n)
    return {keep, attend(heed::causal{}, seen, heed::log_n_beyond{train_len}, heed::on{executor})};
  return {keep, attend(heed::causal{}, seen, heed::on{executor})};
}

}  // namespace example
