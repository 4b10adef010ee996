#pragma once

#include "transformer.hpp"

#include <heed/attention/attention.hpp>
#include <heed/position/rotary.hpp>

#include <string_view>

/// Ways for a model to attend: a way is what follows the tensors in the call.

namespace example {

/// Causal attention under these modifiers. Another position code, a window, sink tokens: name them here.
template <class... Modifiers>
attention_function attend_with(Modifiers... modifiers) {
  return [=](auto q, auto k, auto v, auto out) { heed::attention(q, k, v, out, heed::causal{}, modifiers...); };
}

/// The rotary code of llama2.c's models with these frequencies and, if asked for, scores scaled by log n beyond the
/// training length.
template <class Executor>
attention_function attend_rotary(heed::frequencies const& frequencies, bool log_n, heed::index train_len,
                                 Executor& executor) {
  heed::rotary const rotary{frequencies, heed::layout::interleaved};
  if (log_n)
    return attend_with(rotary, heed::log_n_beyond{train_len}, heed::on{executor});
  return attend_with(rotary, heed::on{executor});
}

/// A way to rescale rotary frequencies, by name; `factor` is the length wanted over the length trained.
struct rope_scheme {
  std::string_view name;
  heed::frequencies (*make)(heed::index dim, heed::index train_len, double factor);
};

using heed::index;
using angles = heed::frequencies;

inline constexpr rope_scheme rope_schemes[] = {
    {"standard", [](index dim, index, double) { return angles::standard(dim); }},
    {"linear", [](index dim, index, double factor) { return angles::linear(dim, {.factor = factor}); }},
    {"ntk_aware", [](index dim, index, double factor) { return angles::ntk_aware(dim, {.factor = factor}); }},
    {"ntk_old", [](index dim, index, double factor) { return angles::ntk_old(dim, {.factor = factor}); }},
    {"ntk_fixed", [](index dim, index, double factor) { return angles::ntk_fixed(dim, {.factor = factor}); }},
    {"ntk_mixed", [](index dim, index, double factor) { return angles::ntk_mixed(dim, {.factor = factor}); }},
    {"yarn",
     [](index dim, index len, double factor) { return angles::yarn(dim, {.factor = factor, .train_len = len}); }},
};

}  // namespace example
