#include "serve.hpp"

#include <oneapi/dnnl/dnnl.hpp>

#include <cmath>
#include <limits>
#include <memory>
#include <unordered_map>

/// oneDNN: a batched matmul for the scores, with the scale (and the causal mask as a binary addition) behind it, its
/// softmax, a batched matmul for the values. Takes heads and grouped rows in one primitive each. Versions 2 and 3.

namespace {

using dnnl::memory;

class attention {
 public:
  attention(dnnl::engine const& engine, peers::call const& c) : engine_(engine), stream_(engine), call_(c) {
    type_ = c.storage == "half"       ? memory::data_type::f16
            : c.storage == "bfloat16" ? memory::data_type::bf16
                                      : memory::data_type::f32;
    // The rows of all query heads of a group stand together: they share their keys.
    // A mask that all key heads share takes oneDNN to its reference code, so that they then go one by one.
    memory::dim const g = c.causal ? 1 : c.heads_kv, rows = c.heads_q / c.heads_kv * c.q_len, dim = c.dim, n = c.kv_len;
    memory::dims const row_major{rows * dim, dim, 1}, plane{rows * n, n, 1};
    memory::desc const q({g, rows, dim}, type_, row_major);
    memory::desc const k({g, dim, n}, type_, memory::dims{n * dim, 1, dim});
    memory::desc const v({g, n, dim}, type_, memory::dims{n * dim, dim, 1});
    memory::desc const s({g, rows, n}, memory::data_type::f32, plane), w({g, rows, n}, type_, plane);
    memory::desc const mask({1, rows, n}, memory::data_type::f32, plane);

    q_ = filled(c.queries(), 1);
    k_ = filled(c.keys(), 2);
    v_ = filled(c.keys(), 3);
    out_ = memory(flat(c.queries(), type_), engine_);
    memory const scores(s, engine_), weights = type_ == memory::data_type::f32 ? scores : memory(w, engine_);
    softmax_args_ = {{DNNL_ARG_SRC, scores}, {DNNL_ARG_DST, weights}};

    dnnl::post_ops then;
    memory hidden;
    append_scale(then, 1 / std::sqrt(static_cast<float>(dim)));
    if (c.causal) {
      then.append_binary(dnnl::algorithm::binary_add, mask);
      hidden = memory(mask, engine_);
      auto* const x = static_cast<float*>(hidden.get_data_handle());
      for (memory::dim i = 0; i < rows; ++i)
        for (memory::dim j = 0; j < n; ++j)
          x[i * n + j] = j <= n - c.q_len + i % c.q_len ? 0 : -std::numeric_limits<float>::infinity();
    }
    dnnl::primitive_attr attributes;
    attributes.set_post_ops(then);
    make_primitives(q, k, v, s, w, attributes);
    for (memory::dim head = 0; head < c.heads_kv; head += g) {
      auto const part = [&](memory const& x, memory::desc const& as, memory::dim step) {
        auto const bytes = head * step * static_cast<memory::dim>(memory::data_type_size(type_));
        return memory(as, engine_, static_cast<char*>(x.get_data_handle()) + bytes);
      };
      memory const queries = part(q_, q, rows * dim), keys = part(k_, k, n * dim), values = part(v_, v, n * dim);
      scores_args_.push_back({{DNNL_ARG_SRC, queries}, {DNNL_ARG_WEIGHTS, keys}, {DNNL_ARG_DST, scores}});
      if (c.causal)
        scores_args_.back()[DNNL_ARG_ATTR_MULTIPLE_POST_OP(1) | DNNL_ARG_SRC_1] = hidden;
      values_args_.push_back(
          {{DNNL_ARG_SRC, weights}, {DNNL_ARG_WEIGHTS, values}, {DNNL_ARG_DST, part(out_, q, rows * dim)}});
    }
  }

  void run() {
    for (std::size_t i = 0; i < scores_args_.size(); ++i) {
      scores_.execute(stream_, scores_args_[i]);
      softmax_.execute(stream_, softmax_args_);
      values_.execute(stream_, values_args_[i]);
    }
    stream_.wait();
  }

  float result(std::size_t i) const {
    if (type_ == memory::data_type::f32)
      return static_cast<float const*>(out_.get_data_handle())[i];
    // Widened by oneDNN itself.
    memory wide(flat(call_.queries(), memory::data_type::f32), engine_), from = out_;
    dnnl::stream stream(engine_);
    dnnl::reorder(from, wide).execute(stream, from, wide);
    stream.wait();
    return static_cast<float const*>(wide.get_data_handle())[i];
  }

 private:
  static void append_scale(dnnl::post_ops& to, float factor) {
#if DNNL_VERSION_MAJOR >= 3
    to.append_eltwise(dnnl::algorithm::eltwise_linear, factor, 0);
#else
    to.append_eltwise(1, dnnl::algorithm::eltwise_linear, factor, 0);
#endif
  }

  void make_primitives(memory::desc const& q, memory::desc const& k, memory::desc const& v, memory::desc const& s,
                       memory::desc const& w, dnnl::primitive_attr const& attributes) {
    auto const& weights = type_ == memory::data_type::f32 ? s : w;
#if DNNL_VERSION_MAJOR >= 3
    scores_ = dnnl::matmul({engine_, q, k, s, attributes});
    softmax_ = dnnl::softmax_forward(
        {engine_, dnnl::prop_kind::forward_inference, dnnl::algorithm::softmax_accurate, s, weights, 2});
    values_ = dnnl::matmul({engine_, weights, v, q});
#else
    scores_ = dnnl::matmul(dnnl::matmul::primitive_desc({q, k, s}, attributes, engine_));
    softmax_ = dnnl::softmax_v2_forward(dnnl::softmax_v2_forward::primitive_desc(
        {dnnl::prop_kind::forward_inference, dnnl::algorithm::softmax_accurate, s, weights, 2}, engine_));
    values_ = dnnl::matmul(dnnl::matmul::primitive_desc({weights, v, q}, engine_));
#endif
  }

  static memory::desc flat(std::size_t n, memory::data_type type) {
    return memory::desc({static_cast<memory::dim>(n)}, type, memory::dims{1});
  }

  memory filled(std::size_t n, std::uint32_t seed) {
    memory wide(flat(n, memory::data_type::f32), engine_), to(flat(n, type_), engine_);
    peers::fill(static_cast<float*>(wide.get_data_handle()), n, seed);
    dnnl::reorder(wide, to).execute(stream_, wide, to);
    stream_.wait();
    return to;
  }

  dnnl::engine engine_;
  dnnl::stream stream_;
  peers::call call_;
  memory::data_type type_;
  memory q_, k_, v_, out_;
  dnnl::primitive scores_, softmax_, values_;
  using arguments = std::unordered_map<int, memory>;
  arguments softmax_args_;
  std::vector<arguments> scores_args_, values_args_;
};

}  // namespace

int main() {
  dnnl::engine const engine(dnnl::engine::kind::cpu, 0);
  return peers::serve([&](peers::call const& c) -> std::vector<peers::contender> {
    try {
      auto const all = std::make_shared<attention>(engine, c);
      auto const* const version = dnnl_version();
      std::string const name = "onednn_" + std::to_string(version->major) + "." + std::to_string(version->minor);
      return {{name, [all] { all->run(); }, [all](std::size_t i) { return all->result(i); }}};
    } catch (dnnl::error const& error) {
      std::fprintf(stderr, "oneDNN: %s\n", error.what());
      return {};
    }
  });
}
