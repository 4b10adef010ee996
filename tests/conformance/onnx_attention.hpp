#pragma once

#include <heed/attention/bias.hpp>
#include <heed/attention/mask.hpp>
#include <heed/attention/row_scale.hpp>
#include <heed/attention/score.hpp>

#include "support/compare.hpp"
#include "support/conformance.hpp"

#include <optional>

/// An ONNX Attention node as a call of heed: what its attributes and optional inputs mean in heed's words.
///
///     is_causal              window's right end 0 (and the same thing as causal{})
///     left_, right_window    window, −1 = open
///     past_key, past_value   in front of k and v; offset = their length
///     nonpad_kv_seqlen       lengths; offset = length − q_len, which may be negative
///     attn_mask              a mask if bool, else a bias; shorter than kv_len: hidden from there on
///     neither cache          offset 0

namespace heed::test {

/// A stored tensor `[batch, len, heads · dim]` or `[batch, heads, len, dim]`, in the second order.
template <class T>
tensor<T, 4> heads_of(stored_tensor const& stored, index heads) {
  if (stored.rank() == 4)
    return stored.as<T, 4>();
  tensor<T, 3> const flat = stored.as<T, 3>();
  view<T const, 4> const split = split_heads(flat.view(), heads);
  tensor<T, 4> result(split.extents());
  for_each_place(split.extents(), [&](index b, index h, index i, index c) { result(b, h, i, c) = split(b, h, i, c); });
  return result;
}

/// past in front of present, along the length.
template <class T>
tensor<T, 4> joined(tensor<T, 4> const& past, tensor<T, 4> const& present) {
  auto extents = present.extents();
  extents[2] += past.extent(2);
  tensor<T, 4> result(extents);
  for_each_place(extents, [&](index b, index h, index i, index c) {
    result(b, h, i, c) = i < past.extent(2) ? past(b, h, i, c) : present(b, h, i - past.extent(2), c);
  });
  return result;
}

/// The node's attn_mask in its own broadcastable shape, filled up to kv_len with `padding`.
template <class T>
tensor<T, 4> padded_mask(stored_tensor const& stored, index kv_len, T padding) {
  tensor<T, 4> const given = stored.as<T, 4>();
  auto extents = given.extents();
  extents[3] = kv_len;
  tensor<T, 4> result(extents);
  for_each_place(extents, [&](index b, index h, index i, index j) {
    result(b, h, i, j) = j < given.extent(3) ? given(b, h, i, j) : padding;
  });
  return result;
}

template <class T>
struct onnx_attention {
  tensor<T, 4> q, k, v;
  std::vector<index> offsets, lengths;
  heed::window window;
  double scale = 1;
  std::optional<double> softcap;
  std::optional<tensor<bool, 4>> mask;
  std::optional<tensor<T, 4>> bias;

  explicit onnx_attention(conformance_case const& from) {
    auto const number = [&](char const* name, double otherwise) { return from.attributes.value(name, otherwise); };
    auto const whole = [&](char const* name, index otherwise) { return from.attributes.value(name, otherwise); };
    index const heads_kv = whole("kv_num_heads", 0);
    q = heads_of<T>(from.inputs.at("Q"), whole("q_num_heads", 0));
    k = heads_of<T>(from.inputs.at("K"), heads_kv);
    v = heads_of<T>(from.inputs.at("V"), heads_kv);
    index past = 0;
    if (from.has("past_key")) {
      auto const past_key = from.inputs.at("past_key").as<T, 4>();
      past = past_key.extent(2);
      k = joined(past_key, k);
      v = joined(from.inputs.at("past_value").as<T, 4>(), v);
    }

    index const batch = q.extent(0), kv_len = k.extent(2);
    offsets.assign(static_cast<std::size_t>(batch), past);
    lengths.assign(static_cast<std::size_t>(batch), kv_len);
    if (from.has("nonpad_kv_seqlen"))
      for (index b = 0; b < batch; ++b) {
        auto const length = static_cast<index>(from.inputs.at("nonpad_kv_seqlen")[b]);
        lengths[static_cast<std::size_t>(b)] = length;
        offsets[static_cast<std::size_t>(b)] = length - q.extent(2);
      }

    index const left = whole("left_window_size", -1), right = whole("right_window_size", -1);
    if (left >= 0)
      window.left = left;
    if (right >= 0)
      window.right = right;
    if (whole("is_causal", 0) != 0)
      window.right = 0;

    scale = number("scale", 1 / std::sqrt(static_cast<double>(q.extent(3))));
    if (number("softcap", 0) > 0)
      softcap = number("softcap", 0);
    if (from.has("attn_mask")) {
      auto const& given = from.inputs.at("attn_mask");
      if (given.dtype == "bool")
        mask = padded_mask<bool>(given, kv_len, false);
      else
        bias = padded_mask<T>(given, kv_len, -std::numeric_limits<T>::infinity());
    }
  }

  /// Calls `f(modifiers…)` with all of the node. Few types of calls: a mask or a bias or neither, a softcap or none;
  /// in half, every mask is a bias and there always is one.
  template <class F>
  void with_modifiers(F const& f) const {
    auto const always = heed::modifiers(heed::offset{offsets}, heed::lengths{lengths}, window, heed::scale{scale});
    auto const capped = [&](auto const&... more) {
      if (softcap)
        f(always, heed::softcap{*softcap}, more...);
      else
        f(always, more...);
    };
    if constexpr (sizeof(T) == 2) {
      tensor<T, 4> const added = whole_bias();
      capped(heed::bias{added});
    } else if (mask) {
      capped(heed::mask{*mask});
    } else if (bias) {
      capped(heed::bias{*bias});
    } else {
      capped();
    }
  }

 private:
  tensor<T, 4> whole_bias() const {
    if (bias)
      return *bias;
    if (!mask)
      return tensor<T, 4>({1, 1, 1, k.extent(2)});
    tensor<T, 4> result(mask->extents());
    for_each_place(mask->extents(), [&](index b, index h, index i, index j) {
      result(b, h, i, j) = (*mask)(b, h, i, j) ? T(0) : -std::numeric_limits<T>::infinity();
    });
    return result;
  }
};

/// The node's output Y by the attention function under test, `[batch, heads_q, q_len, dim_v]`.
template <class Attend, class T>
tensor<T, 4> output_of(Attend const& attend, onnx_attention<T> const& node) {
  tensor<T, 4> out({node.q.extent(0), node.q.extent(1), node.q.extent(2), node.v.extent(3)});
  node.with_modifiers([&](auto const&... modifiers) { attend(node.q, node.k, node.v, out, modifiers...); });
  return out;
}

}  // namespace heed::test
