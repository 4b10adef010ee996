#include <heed/position/rotary.hpp>

#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/conformance.hpp"

/// Angle tables and rotated vectors of other projects' tests.

namespace heed::test {
namespace {

using nlohmann::json;

/// The frequencies that a configuration of HF transformers names.
frequencies from_config(json const& config, json const& rope, index len) {
  index const dim = config.at("head_dim");
  double const base = config.at("rope_theta");
  index const train_len =
      rope.value("original_max_position_embeddings", config.at("max_position_embeddings").get<index>());
  double const factor = rope.value("factor", 1.0);
  std::string const type = rope.at("rope_type");
  if (type == "default")
    return frequencies::standard(dim, base);
  if (type == "linear")
    return frequencies::linear(dim, {.base = base, .factor = factor});
  if (type == "dynamic")
    return frequencies::dynamic_ntk(dim, {.base = base, .factor = factor, .train_len = train_len, .len = len});
  if (type == "yarn")
    return frequencies::yarn(dim, {.base = base,
                                   .factor = factor,
                                   .train_len = train_len,
                                   .beta_fast = rope.value("beta_fast", 32.0),
                                   .beta_slow = rope.value("beta_slow", 1.0)});
  if (type == "llama3")
    return frequencies::llama3(dim, {.base = base,
                                     .factor = factor,
                                     .low_freq_factor = rope.at("low_freq_factor"),
                                     .high_freq_factor = rope.at("high_freq_factor"),
                                     .train_len = train_len});
  if (type == "longrope")
    return frequencies::longrope(dim, {.base = base,
                                       .short_factor = rope.at("short_factor").get<std::vector<double>>(),
                                       .long_factor = rope.at("long_factor").get<std::vector<double>>(),
                                       .train_len = train_len,
                                       .len = len,
                                       .factor = factor});
  detail::fail("rope_cases: no maker for rope_type ", type);
}

void check_table(json const& c, index len) {
  frequencies const f = from_config(c.at("config"), c.at("rope"), len);
  CHECK(f.attention_factor() == Approx(c.at("expected_attention_factor").get<double>()).epsilon(1e-12));
  std::vector<double> expected;
  if (c.contains("expected_inv_freq"))
    expected = c.at("expected_inv_freq").get<std::vector<double>>();
  if (c.contains("expected_inv_freq_div")) {  // a table and what to divide it by
    auto const& [table, divisor] = std::pair(c.at("expected_inv_freq_div").at(0), c.at("expected_inv_freq_div").at(1));
    for (double theta : table.get<std::vector<double>>())
      expected.push_back(theta / divisor.get<double>());
  }
  if (expected.empty())
    return;
  REQUIRE(f.pairs() == static_cast<index>(expected.size()));
  for (index t = 0; t < f.pairs(); ++t)
    REQUIRE(f[t] == Approx(expected[static_cast<std::size_t>(t)]).epsilon(1e-4).margin(0));
}

void check_rotation(json const& c) {
  auto shape = c.at("x_shape").get<std::vector<index>>();
  auto const given = c.at("x").get<std::vector<double>>(), expected = c.at("expected").get<std::vector<double>>();
  bool const with_heads = shape.size() == 3;  // onnxruntime: [len, heads, dim]
  index const len = shape.front(), heads = with_heads ? shape[1] : 1, dim = shape.back();
  std::vector<float> x(given.begin(), given.end());
  double const base = c.at("rope_theta");
  auto const angles = c.contains("rope")
                          ? frequencies::linear(dim, {.base = base, .factor = c.at("rope").at("factor").get<double>()})
                          : frequencies::standard(dim, base);
  rotary const rope{angles, c.at("layout") == "interleaved" ? layout::interleaved : layout::half};
  rope.apply(heads_first(view<float, 3>(x.data(), {len, heads, dim})), c.at("positions").get<std::vector<index>>());
  // Against the largest element: keras-hub prints float results, and of cos 1 − sin 1 = −0.30116867894 it prints
  // −0.301168621, itself 1.9e-7 of the element away.
  double largest = 0;
  for (double e : expected)
    largest = std::max(largest, std::fabs(e));
  double const tolerance = c.value("atol", 1.5e-7 * largest);
  REQUIRE(x.size() == expected.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    INFO("element " << i << ": got " << x[i] << ", expected " << expected[i]);
    REQUIRE(std::fabs(static_cast<double>(x[i]) - expected[i]) <= tolerance);
  }
}

TEST_CASE("rotary: angle tables and vectors of transformers, keras-hub and onnxruntime", "[conformance]") {
  auto const path = std::filesystem::path(HEED_CONFORMANCE_DIR) / "rope_cases.json";
  if (!std::filesystem::exists(path)) {
    WARN("skipped: no " << path);
    return;
  }
  json all;
  std::ifstream(path) >> all;
  for (json const& c : all.at("cases")) {
    INFO(c.at("name").get<std::string>());
    if (c.value("kind", "") == "rotation") {
      check_rotation(c);
    } else if (c.contains("seq_len_cases")) {
      for (json const& len : c.at("seq_len_cases"))
        check_table(c, len.is_null() ? 0 : len.get<index>());
    } else {
      check_table(c, c.value("seq_len", index{0}));
    }
  }
  CHECK(all.at("cases").size() >= 12);
}

/// ONNX hands over cos and sin as tables of any numbers, not of angles. One pair of channels, one row of the table:
/// cos and sin are r·(cos φ, sin φ), and that is a rotary of one pair with theta φ and attention factor r at position
/// 1. Without position_ids the tables are [batch, len, pairs]: a row of their own for each place.
TEST_CASE("rotary: ONNX RotaryEmbedding, pair by pair", "[conformance]") {
  HEED_SKIP_WITHOUT("onnx_rotary");
  int cases = 0;
  for (auto const& folder : case_folders("onnx_rotary")) {
    auto const c = read_case(folder);
    INFO(c.name);
    bool const interleaved = c.attributes.value("interleaved", 0) != 0;
    index const num_heads = c.attributes.value("num_heads", 0);
    auto const& input = c.inputs.at("input");
    bool const flat = input.rank() == 3;  // [batch, len, heads · dim]
    auto const x4 = input.as<float, 4>();
    auto const x3 = flat ? input.as<float, 3>() : tensor<float, 3>();
    view<float const, 4> const x = flat ? split_heads(x3.view(), num_heads) : x4.view();
    auto const cosine = c.inputs.at("cos_cache"), sine = c.inputs.at("sin_cache");
    auto const positions =
        c.has("position_ids") ? c.inputs.at("position_ids").as<std::int64_t, 2>() : tensor<std::int64_t, 2>();
    index const pairs = cosine.shape.back(), len = x.extent(2);
    tensor<float, 4> got(x.extents());
    for_each_place(x.extents(), [&](index b, index h, index i, index d) { got(b, h, i, d) = x(b, h, i, d); });
    for (index b = 0; b < x.extent(0); ++b)
      for (index i = 0; i < len; ++i)
        for (index t = 0; t < pairs; ++t) {
          index const row = c.has("position_ids") ? positions(b, i) : b * len + i, entry = row * pairs + t;
          rotary const rope{
              frequencies({std::atan2(sine[entry], cosine[entry])}, std::hypot(sine[entry], cosine[entry])),
              interleaved ? layout::interleaved : layout::half};
          // [heads, 1, 2] of the pair's two channels
          view<float, 3> const pair(&got(b, 0, i, interleaved ? 2 * t : t), {x.extent(1), 1, 2},
                                    {got.stride(1), got.stride(2), interleaved ? 1 : pairs});
          rope.apply(pair, 1);
        }
    auto const& output = c.outputs.at("output");
    auto const y4 = output.as<float, 4>();
    auto const y3 = flat ? output.as<float, 3>() : tensor<float, 3>();
    view<float const, 4> const y = flat ? split_heads(y3.view(), num_heads) : y4.view();
    auto const error = difference_of(got, y, 1);
    INFO(error.message());
    CHECK(error.absolute <= 5e-7);
    ++cases;
  }
  CHECK(cases >= 4);
}

TEST_CASE("rotary: the CS336 snapshot", "[conformance]") {
  HEED_SKIP_WITHOUT("cs336/test_rope");
  auto const c = read_case(std::filesystem::path(HEED_CONFORMANCE_DIR) / "cs336" / "test_rope");
  auto x = c.inputs.at("x").as<float, 3>();
  REQUIRE(c.attributes.at("interleaved") == 1);
  rotary const rope{frequencies::standard(x.extent(2), c.attributes.at("theta")), layout::interleaved};
  rope.apply(x, c.inputs.at("pos").as<std::int64_t, 1>());
  auto const error = difference_of(x, c.outputs.at("out").as<float, 3>(), 1);
  INFO(error.message());
  CHECK(error.absolute <= c.attributes.at("atol").get<double>());
}

}  // namespace
}  // namespace heed::test
