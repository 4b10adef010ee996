#include "serve.hpp"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <cmath>
#include <limits>
#include <memory>

/// ggml: its fused attention, which reads values as they lie, and the composition of two products and a softmax, whose
/// values lie transposed, as llama.cpp keeps them for it. Queries, scores and results are float, as ggml wants them.

namespace {

struct closer {
  void operator()(ggml_context* x) const { ggml_free(x); }
  void operator()(ggml_backend* x) const { ggml_backend_free(x); }
  void operator()(ggml_backend_buffer* x) const { ggml_backend_buffer_free(x); }
};
template <class T>
using owned = std::unique_ptr<T, closer>;

class attention {
 public:
  attention(peers::call const& c, bool fused) : call_(c) {
    std::size_t const nodes = 16;
    memory_.reset(ggml_init({nodes * ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true}));
    backend_.reset(ggml_backend_cpu_init());
    ggml_backend_cpu_set_n_threads(backend_.get(), 1);
    ggml_context* const at = memory_.get();
    ggml_type const type = c.storage == "half"       ? GGML_TYPE_F16
                           : c.storage == "bfloat16" ? GGML_TYPE_BF16
                                                     : GGML_TYPE_F32;
    ggml_tensor* const q = ggml_new_tensor_3d(at, GGML_TYPE_F32, c.dim, c.q_len, c.heads_q);
    ggml_tensor* const k = ggml_new_tensor_3d(at, type, c.dim, c.kv_len, c.heads_kv);
    ggml_tensor* const v = fused ? ggml_new_tensor_3d(at, type, c.dim, c.kv_len, c.heads_kv)
                                 : ggml_new_tensor_3d(at, type, c.kv_len, c.dim, c.heads_kv);
    ggml_tensor* const mask = c.causal ? ggml_new_tensor_2d(at, GGML_TYPE_F16, c.kv_len, c.q_len) : nullptr;
    float const scale = 1 / std::sqrt(static_cast<float>(c.dim));
    if (fused) {
      out_ = ggml_flash_attn_ext(at, q, k, v, mask, scale, 0, 0);  // [heads, dim of a row] a query
      head_step_ = c.dim;
      row_step_ = c.heads_q * c.dim;
    } else {
      out_ = ggml_mul_mat(at, v, ggml_soft_max_ext(at, ggml_mul_mat(at, k, q), mask, scale, 0));
      head_step_ = c.q_len * c.dim;
      row_step_ = c.dim;
    }
    graph_ = ggml_new_graph(at);
    ggml_build_forward_expand(graph_, out_);
    buffer_.reset(ggml_backend_alloc_ctx_tensors(at, backend_.get()));
    // Rounded to the storage and widened, as every other program has its queries.
    put(q, rounded(filled(c.queries(), 1), type));
    put(k, filled(c.keys(), 2));
    put(v, fused ? filled(c.keys(), 3) : transposed(filled(c.keys(), 3)));
    if (mask)
      put(mask, causal_mask());
  }

  void run() { ggml_backend_graph_compute(backend_.get(), graph_); }

  float result(std::size_t i) const {
    auto const at = static_cast<std::ptrdiff_t>(i), row = at / call_.dim;
    return static_cast<float const*>(
        out_->data)[row / call_.q_len * head_step_ + row % call_.q_len * row_step_ + at % call_.dim];
  }

 private:
  static std::vector<float> filled(std::size_t n, std::uint32_t seed) {
    std::vector<float> x(n);
    peers::fill(x.data(), n, seed);
    return x;
  }

  static std::vector<float> rounded(std::vector<float> x, ggml_type type) {
    for (float& each : x)
      if (type == GGML_TYPE_F16)
        each = ggml_fp16_to_fp32(ggml_fp32_to_fp16(each));
      else if (type == GGML_TYPE_BF16)
        each = ggml_bf16_to_fp32(ggml_fp32_to_bf16(each));
    return x;
  }

  std::vector<float> transposed(std::vector<float> const& x) const {
    std::vector<float> y(x.size());
    std::ptrdiff_t const n = call_.kv_len, dim = call_.dim;
    for (std::ptrdiff_t i = 0; i < static_cast<std::ptrdiff_t>(x.size()); ++i)
      y[static_cast<std::size_t>(i / (n * dim) * n * dim + i % dim * n + i / dim % n)] = x[static_cast<std::size_t>(i)];
    return y;
  }

  std::vector<float> causal_mask() const {
    std::vector<float> x;
    for (std::ptrdiff_t i = 0; i < call_.q_len; ++i)
      for (std::ptrdiff_t j = 0; j < call_.kv_len; ++j)
        x.push_back(j <= call_.kv_len - call_.q_len + i ? 0 : -std::numeric_limits<float>::infinity());
    return x;
  }

  static void put(ggml_tensor* to, std::vector<float> const& x) {
    auto const n = static_cast<std::int64_t>(x.size());
    if (to->type == GGML_TYPE_F16)
      ggml_fp32_to_fp16_row(x.data(), static_cast<ggml_fp16_t*>(to->data), n);
    else if (to->type == GGML_TYPE_BF16)
      ggml_fp32_to_bf16_row(x.data(), static_cast<ggml_bf16_t*>(to->data), n);
    else
      std::copy(x.begin(), x.end(), static_cast<float*>(to->data));
  }

  peers::call call_;
  owned<ggml_context> memory_;
  owned<ggml_backend> backend_;
  owned<ggml_backend_buffer> buffer_;
  ggml_cgraph* graph_ = nullptr;
  ggml_tensor* out_ = nullptr;
  std::ptrdiff_t head_step_ = 0, row_step_ = 0;
};

peers::contender contender_of(std::string name, peers::call const& c, bool fused) {
  auto const one = std::make_shared<attention>(c, fused);
  return {std::move(name), [one] { one->run(); }, [one](std::size_t i) { return one->result(i); }};
}

}  // namespace

int main() {
  std::string const version = ggml_version();
  std::string const name = "ggml_" + version.substr(0, version.rfind('.'));
  return peers::serve([&](peers::call const& c) {
    return std::vector{contender_of(name, c, false), contender_of(name + "_flash", c, true)};
  });
}
