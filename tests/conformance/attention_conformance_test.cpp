#include "support/catch.hpp"

#include "conformance/onnx_attention.hpp"

#include <heed/reference/attention.hpp>
#if __has_include(<heed/attention/attention.hpp>)
#include <heed/attention/attention.hpp>
#define HEED_TEST_HAS_ATTENTION 1
#endif

namespace heed::test {
namespace {

struct by_reference {
  template <class... Arguments>
  void operator()(Arguments&&... arguments) const {
    heed::reference::attention(std::forward<Arguments>(arguments)...);
  }
};

#if defined(HEED_TEST_HAS_ATTENTION)
struct by_attention {
  template <class... Arguments>
  void operator()(Arguments&&... arguments) const {
    heed::attention(std::forward<Arguments>(arguments)...);
  }
};
#endif

/// onnx_attention: computed in the storage type on numbers in [0, 1).
template <class T>
double small_tolerance(onnx_attention<T> const&) {
  return sizeof(T) == 2 ? 1e-3 : 5e-7;
}

/// attention_large: 4 · 2^−24 · (1 + max |score after softcap|) · max |V|, over the pairs that are visible.
template <class T>
double large_tolerance(onnx_attention<T> const& node) {
  tensor<double, 4> visible;
  node.with_modifiers(
      [&](auto const&... modifiers) { visible = heed::reference::scores(node.q, node.k, modifiers...); });
  auto raw = node.softcap
                 ? heed::reference::scores(node.q, node.k, heed::scale{node.scale}, heed::softcap{*node.softcap})
                 : heed::reference::scores(node.q, node.k, heed::scale{node.scale});
  for (index i = 0; i < raw.size(); ++i)
    if (!std::isfinite(visible.data()[i]))
      raw.data()[i] = 0;
  return 4 * 0x1p-24 * (1 + largest(raw)) * largest(node.v);
}

template <class T, class Attend, class Tolerance>
void check_output(Attend const& attend, conformance_case const& from, Tolerance const& tolerance) {
  onnx_attention<T> const node(from);
  auto const expected = heads_of<T>(from.outputs.at("Y"), node.q.extent(1));
  auto const error = difference_of(output_of(attend, node), expected);
  INFO(from.name << ": " << error.message());
  CHECK(error.absolute <= tolerance(node));
  if (from.gives("present_key")) {
    CHECK(same_bits(node.k, from.outputs.at("present_key").as<T, 4>()));
    CHECK(same_bits(node.v, from.outputs.at("present_value").as<T, 4>()));
  }
}

template <class Attend, class Tolerance>
void check_collection(char const* collection, Attend const& attend, Tolerance const& tolerance) {
  auto const folders = case_folders(collection);
  CHECK_FALSE(folders.empty());
  for (auto const& folder : folders) {
    auto const from = read_case(folder);
    if (from.inputs.at("Q").dtype == "float16")
      check_output<Eigen::half>(attend, from, tolerance);
    else
      check_output<float>(attend, from, tolerance);
  }
}

/// What qk_matmul_output_mode asks for: 0 scaled scores, 1 after softcap, 2 after mask and bias, 3 weights.
template <class T>
tensor<double, 4> score_output(onnx_attention<T> const& node, index mode) {
  heed::scale const scale{node.scale};
  if (mode == 0 || (mode == 1 && !node.softcap))
    return heed::reference::scores(node.q, node.k, scale);
  if (mode == 1)
    return heed::reference::scores(node.q, node.k, scale, heed::softcap{*node.softcap});
  tensor<double, 4> result;
  node.with_modifiers([&](auto const&... modifiers) {
    result = mode == 2 ? heed::reference::scores(node.q, node.k, modifiers...)
                       : heed::reference::weights(node.q, node.k, modifiers...);
  });
  return result;
}

template <class T>
void check_score_output(conformance_case const& from) {
  onnx_attention<T> const node(from);
  index const mode = from.attributes.value("qk_matmul_output_mode", index{0});
  auto const expected = from.outputs.at("qk_matmul_output").as<T, 4>();
  auto const error = difference_of(score_output(node, mode), expected);
  INFO(from.name << ", mode " << mode << ": " << error.message());
  CHECK(error.absolute <= small_tolerance(node) * (1 + largest(expected)));
}

/// CS336: batches of one head, `[batch, len, dim]`, with a mask for each.
template <class Attend>
void check_cs336(Attend const& attend) {
  auto const from = read_case(std::filesystem::path(HEED_CONFORMANCE_DIR) / "cs336/test_scaled_dot_product_attention");
  auto const q = from.inputs.at("q").as<float, 3>(), k = from.inputs.at("k").as<float, 3>(),
             v = from.inputs.at("v").as<float, 3>(), expected = from.outputs.at("out").as<float, 3>();
  auto const mask = from.inputs.at("mask").as<bool, 3>();
  tensor<float, 3> out(expected.extents());
  attend(q, k, v, out, heed::mask{mask});
  auto const error = difference_of(out, expected);
  INFO(error.message());
  double const atol = from.attributes.at("atol"), rtol = from.attributes.at("rtol");
  for (index i = 0; i < out.size(); ++i) {
    double const x = expected.data()[i];
    CHECK(absolute_error(out.data()[i], x) <= atol + rtol * std::fabs(x));
  }
}

}  // namespace

TEST_CASE("The reference gives ONNX's attention cases", "[conformance][reference]") {
  HEED_SKIP_WITHOUT("onnx_attention");
  check_collection("onnx_attention", by_reference{}, [](auto const& node) { return small_tolerance(node); });
}

TEST_CASE("The reference gives the larger attention cases", "[conformance][reference]") {
  HEED_SKIP_WITHOUT("attention_large");
  check_collection("attention_large", by_reference{}, [](auto const& node) { return large_tolerance(node); });
}

TEST_CASE("The reference gives ONNX's scores and weights where a case asks for them", "[conformance][reference]") {
  HEED_SKIP_WITHOUT("onnx_attention");
  for (auto const* collection : {"onnx_attention", "attention_large"})
    for (auto const& folder : case_folders(collection)) {
      auto const from = read_case(folder);
      if (!from.gives("qk_matmul_output"))
        continue;
      if (from.inputs.at("Q").dtype == "float16")
        check_score_output<Eigen::half>(from);
      else
        check_score_output<float>(from);
    }
}

namespace {

template <class T>
stored_tensor stored_as(char const* dtype, std::vector<index> shape, std::vector<T> const& elements) {
  auto const* first = reinterpret_cast<char const*>(elements.data());
  return {dtype, std::move(shape), std::vector<char>(first, first + elements.size() * sizeof(T))};
}

}  // namespace

TEST_CASE("ONNX's cache lengths, windows and short masks hide what its text says", "[conformance][reference]") {
  index const q_len = 4, kv_len = 6, columns = 5;
  std::vector<std::int64_t> const used{2, 6};
  conformance_case from{"made here", {{"is_causal", 1}, {"left_window_size", 2}}, {}, {}};
  from.inputs.emplace("Q", stored_as("float32", {2, 1, q_len, 1}, std::vector<float>(8, 1)));
  for (auto const* name : {"K", "V"})
    from.inputs.emplace(name, stored_as("float32", {2, 1, kv_len, 1}, std::vector<float>(12, 1)));
  from.inputs.emplace("nonpad_kv_seqlen", stored_as("int64", {2}, used));
  std::vector<unsigned char> mask(static_cast<std::size_t>(q_len * columns), 1);
  mask[3 * columns + 3] = 0;
  bool const boolean = GENERATE(true, false);
  std::vector<float> added(mask.size());
  for (std::size_t n = 0; n < mask.size(); ++n)
    added[n] = mask[n] != 0 ? 0.5F : -std::numeric_limits<float>::infinity();
  from.inputs.emplace("attn_mask", boolean ? stored_as("bool", {q_len, columns}, mask)
                                           : stored_as("float32", {q_len, columns}, added));

  onnx_attention<float> const node(from);
  auto const scores = score_output(node, 2);
  auto const out = output_of(by_reference{}, node);
  for (index b = 0; b < 2; ++b)
    for (index i = 0; i < q_len; ++i) {
      index const length = used[static_cast<std::size_t>(b)], position = i + length - q_len;
      int seen = 0;
      for (index j = 0; j < kv_len; ++j) {
        bool const visible = j < length && j <= position && j >= position - 2 && j < columns &&
                             mask[static_cast<std::size_t>(i * columns + j)] != 0;
        seen += visible;
        CHECK(scores(b, 0, i, j) == (visible ? (boolean ? 1 : 1.5) : -std::numeric_limits<double>::infinity()));
      }
      CHECK(out(b, 0, i, 0) == (seen > 0 ? 1 : 0));
    }
}

TEST_CASE("The reference gives CS336's scaled dot-product attention", "[conformance][reference]") {
  HEED_SKIP_WITHOUT("cs336/test_scaled_dot_product_attention");
  check_cs336(by_reference{});
}

#if defined(HEED_TEST_HAS_ATTENTION)

TEST_CASE("attention gives ONNX's attention cases", "[conformance]") {
  HEED_SKIP_WITHOUT("onnx_attention");
  check_collection("onnx_attention", by_attention{}, [](auto const& node) { return small_tolerance(node); });
}

TEST_CASE("attention gives the larger attention cases", "[conformance]") {
  HEED_SKIP_WITHOUT("attention_large");
  check_collection("attention_large", by_attention{}, [](auto const& node) { return large_tolerance(node); });
}

TEST_CASE("attention gives CS336's scaled dot-product attention", "[conformance]") {
  HEED_SKIP_WITHOUT("cs336/test_scaled_dot_product_attention");
  check_cs336(by_attention{});
}

#endif

}  // namespace heed::test
