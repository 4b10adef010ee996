#include "support/catch.hpp"

#include <heed/vq/attention.hpp>
#include <heed/vq/state.hpp>

#include "support/compare.hpp"
#include "support/conformance.hpp"

#include <algorithm>
#include <cstdint>

namespace heed::test {
namespace {

struct vq_case {
  tensor<double, 4> q, k, v, y;
  codebook<double> book;
  index block, memory;
  bool has_cache;
  double factor;

  explicit vq_case(conformance_case const& from)
      : q(from.inputs.at("q").as<double, 4>()), k(from.inputs.at("k").as<double, 4>()),
        v(from.inputs.at("v").as<double, 4>()), y(from.outputs.at("y").as<double, 4>()),
        book(from.inputs.at("codebook").as<double, 3>()), block(from.attributes.at("block_len")),
        memory(from.attributes.at("mem_len")), has_cache(from.attributes.value("agg_cache", true)),
        factor(from.attributes.value("scale", 1.0)) {}

  /// Without a cache a row sees the mem_len keys before it, and no others.
  tensor<double, 4> result(index rows) const {
    tensor<double, 4> out(y.extents());
    if (has_cache)
      vq_attention(q, k, v, out, book, rows, causal{}, scale{factor});
    else
      attention(q, book.decode(book.encode(k)), v, out, causal{}, window{memory, 0}, scale{factor});
    return out;
  }
};

/// After a whole sequence: counts and means of all tokens but the last mem_len.
void check_state(vq_case const& c, conformance_case const& from) {
  auto const lower = from.outputs.at("state_lower").as<double, 3>();
  auto const means = from.outputs.at("state_upper_div_lower").as<double, 4>();
  index const heads = c.k.extent(1), len = c.k.extent(2);
  for (index b = 0; b < c.k.extent(0); ++b) {
    vq_state<double> state(c.book, c.v.extent(3), c.memory);
    state.append(view<double const, 3>(&c.k(b, 0, 0, 0), {heads, len, c.k.extent(3)}),
                 view<double const, 3>(&c.v(b, 0, 0, 0), {heads, len, c.v.extent(3)}));
    for (index h = 0; h < heads; ++h)
      for (index s = 0; s < c.book.codes(); ++s) {
        CHECK(static_cast<double>(state.counts()(h, s)) == lower(b, h, s));
        for (index t = 0; t < c.v.extent(3); ++t)
          CHECK(std::abs(state.means()(h, s, t) - means(b, h, s, t)) <= 1e-12);
      }
  }
}

}  // namespace

TEST_CASE("VQ attention gives transformer_vq's rows", "[conformance][vq]") {
  HEED_SKIP_WITHOUT("vq");
  auto const folders = case_folders("vq");
  CHECK_FALSE(folders.empty());
  for (auto const& folder : folders) {
    auto const from = read_case(folder);
    vq_case const c(from);
    INFO(from.name);
    if (from.attributes.value("xl_bias", false)) {
      WARN("skipped: " << from.name << " has Transformer-XL biases, a term that is no part of vq_attention");
      continue;
    }
    auto const codes = c.book.encode(c.k);
    auto const expected = from.outputs.at("shortcodes").as<std::int32_t, 3>();
    CHECK(same_bits(codes, expected));
    for (index rows : {c.block, index{1}, index{5}, c.k.extent(2)}) {
      auto const error = difference_of(c.result(rows), c.y);
      INFO("block " << rows << ": " << error.message());
      CHECK(error.absolute <= 1e-12);
    }
    check_state(c, from);
  }
}

}  // namespace heed::test
