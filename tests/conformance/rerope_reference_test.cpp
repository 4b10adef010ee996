#include "support/catch.hpp"

#include <heed/attention/mask.hpp>
#include <heed/attention/row_scale.hpp>
#include <heed/position/frequencies.hpp>
#include <heed/reference/attention.hpp>

#include "support/compare.hpp"
#include "support/conformance.hpp"

namespace heed::test {
namespace {

struct described_position {
  position_description said;
  void describe(description& d) const { d.position = said; }
};

}  // namespace

TEST_CASE("The reference gives bojone/rerope's rows", "[conformance][reference]") {
  HEED_SKIP_WITHOUT("rerope");
  for (auto const& folder : case_folders("rerope")) {
    auto const from = read_case(folder);
    auto const& attributes = from.attributes;
    auto const q = from.inputs.at("q").as<double, 4>(), k = from.inputs.at("k").as<double, 4>(),
               v = from.inputs.at("v").as<double, 4>();
    auto const theta = frequencies::standard(attributes.at("head_dim"), attributes.at("base"));
    position_description said{.rule = position_rule::rerope, .theta = theta.theta(), .pairs = theta.pairs()};
    said.window = attributes.at("window");
    if (!attributes.at("leaky_factor").is_null()) {
      said.rule = position_rule::leaky_rerope;
      said.slope_inverse = attributes.at("leaky_factor");
    }
    described_position const position{said};
    log_n_beyond const dagger{attributes.at("training_length").get<double>()};

    auto const expected = from.outputs.at("y").as<double, 4>();
    tensor<double, 4> out(expected.extents());
    reference::attention(q, k, v, out, causal{}, position, dagger);
    auto const weights = reference::weights(q, k, causal{}, position, dagger);
    auto const error = difference_of(out, expected);
    auto const weight_error = difference_of(weights, from.outputs.at("weights").as<double, 4>());
    INFO(from.name << ": " << error.message() << "; weights: " << weight_error.message());
    CHECK(error.absolute <= 1e-6);  // its softmax is float32
    CHECK(weight_error.absolute <= 1e-6);

    auto const last = from.outputs.at("decode_last3").as<double, 4>();
    auto const extents = q.extents();
    view<double const, 4> const last_q(q.data() + (extents[2] - 3) * q.stride(2),
                                       {extents[0], extents[1], 3, extents[3]}, q.strides());
    tensor<double, 4> decoded(last.extents());
    reference::attention(last_q, k, v, decoded, causal{}, position, dagger);
    auto const decode_error = difference_of(decoded, last);
    INFO("decode: " << decode_error.message());
    CHECK(decode_error.absolute <= 1e-6);
  }
}

}  // namespace heed::test
