#include "support/catch.hpp"

#include "conformance/onnx_attention.hpp"

#include <heed/gated/linear.hpp>

// An ONNX LinearAttention node as a call of heed:
//
//     update_rule            linear: identity{}, unnormalized{}; gated: + log_decay; delta: + delta; gated_delta (the
//                            node's default): both
//     q_num_heads, …         3-D inputs [batch, len, heads · dim], key heads shared by query heads
//     scale                  0 or absent: 1/√dim, heed's default
//     past_state             state_in; present_state: state_out
//     decay                  log_decay: [batch, len, heads_kv] or [batch, len, heads_kv · dim]
//     beta                   delta: [batch, len, heads_kv], or one for all heads

namespace heed::test {
namespace {

template <class T>
struct onnx_linear_attention {
  conformance_case const& from;
  index heads_q = from.attributes.at("q_num_heads"), heads_kv = from.attributes.at("kv_num_heads");
  tensor<T, 4> q = heads_of<T>(from.inputs.at("query"), heads_q), k = heads_of<T>(from.inputs.at("key"), heads_kv);
  tensor<T, 4> v = heads_of<T>(from.inputs.at("value"), heads_kv), out, past, present, gates, rates;
  std::string rule = from.attributes.value("update_rule", std::string("gated_delta"));

  explicit onnx_linear_attention(conformance_case const& c) : from(c) {
    index const batch = q.extent(0), dim = q.extent(3), dim_v = v.extent(3);
    out = tensor<T, 4>({batch, heads_q, q.extent(2), dim_v});
    past = from.has("past_state") ? from.inputs.at("past_state").template as<T, 4>()
                                  : tensor<T, 4>({batch, heads_kv, dim, dim_v});
    present = tensor<T, 4>(past.extents());
    if (from.has("decay"))
      gates = heads_of<T>(from.inputs.at("decay"), heads_kv);
    if (from.has("beta")) {
      auto const& beta = from.inputs.at("beta");
      rates = heads_of<T>(beta, beta.shape.back() == 1 ? 1 : heads_kv);
    }
  }

  template <class... Ms>
  void call(Ms const&... ms) {
    heed::linear_attention(q, k, v, out, causal{}, identity{}, unnormalized{}, state_in(past), state_out(present),
                           ms...);
  }
  template <class... Ms>
  void with_scale(Ms const&... ms) {
    double const given = from.attributes.value("scale", 0.0);
    given == 0 ? call(ms...) : call(scale{given}, ms...);
  }
  void run() {
    if (rule == "linear")
      with_scale();
    else if (rule == "gated")
      with_scale(log_decay(gates));
    else if (rule == "delta")
      with_scale(delta(rates));
    else if (rule == "gated_delta")
      with_scale(log_decay(gates), delta(rates));
    else
      FAIL(from.name << ": unknown update_rule " << rule);
  }
};

template <class T>
void check_case(conformance_case const& from, double tolerance) {
  onnx_linear_attention<T> node(from);
  node.run();
  auto const output = difference_of(node.out, heads_of<T>(from.outputs.at("output"), node.heads_q));
  INFO(from.name << ", output: " << output.message());
  CHECK(output.absolute <= tolerance);
  if (!from.gives("present_state"))
    return;
  auto const state = difference_of(node.present, from.outputs.at("present_state").template as<T, 4>());
  INFO(from.name << ", present_state: " << state.message());
  CHECK(state.absolute <= tolerance);
}

}  // namespace

TEST_CASE("ONNX's LinearAttention, to 1e-6", "[conformance]") {
  HEED_SKIP_WITHOUT("onnx_linear_attention");
  auto const folders = case_folders("onnx_linear_attention");
  CHECK_FALSE(folders.empty());
  for (auto const& folder : folders) {
    auto const from = read_case(folder);
    if (from.inputs.at("query").dtype == "float16")
      check_case<Eigen::half>(from, 1e-3);
    else
      check_case<float>(from, 1e-6);
  }
}

}  // namespace heed::test
