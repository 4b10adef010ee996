#pragma once

#include "llama2.hpp"

#include <heed/core/eigen.hpp>

#include <algorithm>
#include <functional>
#include <span>

/// The forward pass of a Llama: everything but attention is Eigen products and a few lines; attention is handed in.

namespace example {

/// Attention of one layer, the only place where tokens meet: q [heads_q, len, dim], k and v [heads_kv, kv_len, dim],
/// out as q. Neither q nor k is rotated: the position code belongs to the call, so the cache holds raw keys, and a
/// prompt and a single token are the same call. See attend.hpp.
using attention_function = std::function<void(heed::view<float const, 3> q, heed::view<float const, 3> k,
                                              heed::view<float const, 3> v, heed::view<float, 3> out)>;

/// Keys or values of one layer, `[len, kv_dim]`; the memory doubles when it is full.
class growing_rows {
 public:
  void append(matrix const& rows) {
    if (len_ + rows.rows() > rows_.rows())
      rows_.conservativeResize(std::max(2 * rows_.rows(), len_ + rows.rows()), rows.cols());
    rows_.middleRows(len_, rows.rows()) = rows;
    len_ += rows.rows();
  }
  auto all() const { return rows_.topRows(len_); }

 private:
  matrix rows_;
  Eigen::Index len_ = 0;
};

struct layer_cache {
  growing_rows keys, values;
};

/// x / √(mean x² + 1e-5) · gain, row by row.
inline matrix rms_norm(matrix const& x, weight_row const& gain) {
  Eigen::ArrayXf const factor = (x.array().square().rowwise().mean() + 1e-5f).rsqrt();
  return (x.array().colwise() * factor).rowwise() * gain.array();
}

/// A sequence under a model: tokens go in at the end, hidden states and logits come out.
class transformer {
 public:
  /// The model must outlive it.
  transformer(llama2 const& model, attention_function attend)
      : model_(model), attend_(std::move(attend)), caches_(model.layers().size()) {}

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
  matrix attention(llama2_layer const& layer, layer_cache& cache, matrix const& x) const {
    matrix const in = rms_norm(x, layer.attention_norm);
    matrix const q = in * layer.wq.transpose();  // [len, heads_q · dim]: split into heads by strides, not by copies
    cache.keys.append(in * layer.wk.transpose());
    cache.values.append(in * layer.wv.transpose());
    matrix out(q.rows(), q.cols());

    auto const& shape = model_.shape();
    attend_(heed::split_heads(heed::as_view(q), shape.heads_q),
            heed::split_heads(heed::as_view(cache.keys.all()), shape.heads_kv),
            heed::split_heads(heed::as_view(cache.values.all()), shape.heads_kv),
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
  std::vector<layer_cache> caches_;
};

}  // namespace example
