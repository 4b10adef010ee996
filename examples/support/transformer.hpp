#pragma once

#include "llama2.hpp"

#include <heed/cache/kv_cache.hpp>

#include <algorithm>
#include <functional>
#include <span>
#include <variant>

/// The forward pass of a Llama: everything but attention is Eigen products and a few lines; attention is handed in.

namespace example {

/// Keys and values of one layer, kept as the position code wants them: a key is turned once, when it comes in.
using key_cache = std::variant<heed::kv_cache<float>, heed::kv_cache<heed::int8>>;
using cache_maker = std::function<key_cache(heed::index heads_kv, heed::index dim, heed::index capacity)>;

/// Attention of one layer, the only place where tokens meet: q and out [heads_q, len, dim], the last `len` rows of what
/// the cache holds; a prompt and a single token are the same call. See attend.hpp.
using attention_function =
    std::function<void(heed::view<float const, 3> q, key_cache const& cache, heed::view<float, 3> out)>;

struct attention_way {
  cache_maker make_cache;
  attention_function attend;
};

/// x / √(mean x² + 1e-5) · gain, row by row.
inline matrix rms_norm(matrix const& x, weight_row const& gain) {
  Eigen::ArrayXf const factor = (x.array().square().rowwise().mean() + 1e-5f).rsqrt();
  return (x.array().colwise() * factor).rowwise() * gain.array();
}

/// A sequence under a model: tokens go in at the end, hidden states and logits come out.
class transformer {
 public:
  /// Memory for `capacity` tokens is taken here. The model must outlive it.
  transformer(llama2 const& model, attention_way const& way, Eigen::Index capacity)
      : model_(model), attend_(way.attend) {
    for (std::size_t l = 0; l < model.layers().size(); ++l)
      caches_.push_back(way.make_cache(model.shape().heads_kv, model.shape().head_dim(), capacity));
  }

  /// Appends tokens, one or many, and returns their last hidden states, `[tokens, dim]`.
  matrix forward(std::span<int const> tokens) {
    auto const len = static_cast<Eigen::Index>(tokens.size());
    matrix x(len, model_.shape().dim);
    for (Eigen::Index i = 0; i < len; ++i)
      x.row(i) = model_.embedding().row(tokens[static_cast<std::size_t>(i)]);
    for (std::size_t l = 0; l < caches_.size(); ++l) {
      x += attention(model_.layers()[l], caches_[l], x);
      x += feed_forward(model_.layers()[l], x);
    }
    return rms_norm(x, model_.final_norm());
  }

  /// `[tokens, vocabulary]` from hidden states.
  matrix logits(matrix const& hidden) const { return hidden * model_.output().transpose(); }

 private:
  matrix attention(llama2_layer const& layer, key_cache& cache, matrix const& x) const {
    auto const& shape = model_.shape();
    matrix const in = rms_norm(x, layer.attention_norm);
    matrix const q = in * layer.wq.transpose();  // [len, heads_q · dim]: split into heads by strides, not by copies
    matrix const k = in * layer.wk.transpose();
    matrix const v = in * layer.wv.transpose();
    auto const k_heads = heed::split_heads(heed::as_view(k), shape.heads_kv);
    auto const v_heads = heed::split_heads(heed::as_view(v), shape.heads_kv);
    std::visit([&](auto& kept) { kept.append(k_heads, v_heads); }, cache);
    matrix out(q.rows(), q.cols());
    attend_(heed::split_heads(heed::as_view(q), shape.heads_q), cache,
            heed::split_heads(heed::as_view(out), shape.heads_q));
    return out * layer.wo.transpose();
  }

  /// SwiGLU: W2 (silu(W1 x) ⊙ W3 x).
  static matrix feed_forward(llama2_layer const& layer, matrix const& x) {
    matrix const in = rms_norm(x, layer.feed_forward_norm);
    matrix hidden = in * layer.w1.transpose();
    matrix const gate = in * layer.w3.transpose();
    hidden.array() *= gate.array() / (1.0f + (-hidden.array()).exp());
    return hidden * layer.w2.transpose();
  }

  llama2 const& model_;
  attention_function attend_;
  std::vector<key_cache> caches_;
};

}  // namespace example
