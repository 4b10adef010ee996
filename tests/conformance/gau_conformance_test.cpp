#include "support/catch.hpp"

#include "support/compare.hpp"
#include "support/conformance.hpp"

#include <heed/gated/gau.hpp>
#include <heed/position/rotary.hpp>

// bert4keras' GatedAttentionUnit, in double. Its words in heed's:
//
//     normalization squared_relu   relu(q·k/√s)² / n_i, n_i the keys that the row sees: squared_relu{visible{}}
//     normalization softmax_plus   scores × ln max(n_i, 16) / ln 512: log_n_clamped{512, 16}
//     causal, mask                 causal{}, lengths{…}; q is padded like k: offset{0}, which is gau's default
//     rotary                       rotary{standard(key_size, base), rotary_layout}
//
// bias_free models leave beta out: a case without it is read so.

namespace heed::test {
namespace {

/// How many keys each batch has; the mask of bert4keras is true for those, and they come first.
std::vector<index> key_lengths(conformance_case const& from, index batch, index len) {
  std::vector<index> result(static_cast<std::size_t>(batch), len);
  if (!from.has("mask"))
    return result;
  auto const mask = from.inputs.at("mask").as<bool, 2>();
  for (index b = 0; b < batch; ++b) {
    index n = 0;
    while (n < len && mask(b, n))
      ++n;
    for (index j = n; j < len; ++j)
      detail::expect(!mask(b, j), "conformance: ", from.name, ": the mask of batch ", b, " has a hole");
    result[static_cast<std::size_t>(b)] = n;
  }
  return result;
}

template <class T>
struct gau_case {
  conformance_case const& from;
  tensor<T, 3> x = from.inputs.at("x").as<T, 3>(), y = from.outputs.at("y").as<T, 3>(), out{x.extents()};
  tensor<T, 2> w_in = from.inputs.at("w_in").as<T, 2>(), gamma = from.inputs.at("gamma").as<T, 2>();
  tensor<T, 2> w_out = from.inputs.at("w_out").as<T, 2>();
  tensor<T, 2> beta = from.has("beta") ? from.inputs.at("beta").as<T, 2>() : tensor<T, 2>();
  std::vector<index> lengths = key_lengths(from, x.extent(0), x.extent(1));

  template <class... Ms>
  void run(Ms const&... ms) {
    heed::gau<T> const layer(w_in, gamma, beta, w_out);
    CHECK(layer.expanded() == from.attributes.at("units").get<index>());
    CHECK(layer.key_size() == from.attributes.at("key_size").get<index>());
    layer.forward(x, out, ms...);
  }

  template <class... Ms>
  void with_visibility(Ms const&... ms) {
    bool const causal = from.attributes.at("causal"), padded = from.has("mask");
    if (causal && padded)
      run(heed::causal{}, heed::lengths{lengths}, ms...);
    else if (causal)
      run(heed::causal{}, ms...);
    else if (padded)
      run(heed::lengths{lengths}, ms...);
    else
      run(ms...);
  }

  template <class... Ms>
  void with_position(Ms const&... ms) {
    if (!from.attributes.at("rotary"))
      return with_visibility(ms...);
    auto const pairs = from.attributes.at("rotary_layout") == "interleaved" ? layout::interleaved : layout::half;
    double const base = from.attributes.value("base", 10000.0);
    with_visibility(rotary{frequencies::standard(gamma.extent(1), base), pairs}, ms...);
  }

  void call() {
    std::string const normalization = from.attributes.at("normalization");
    if (normalization == "squared_relu")
      with_position(squared_relu{visible{}});
    else if (normalization == "softmax_plus")
      with_position(log_n_clamped{512, 16});
    else if (normalization == "softmax")
      with_position();
    else
      FAIL(from.name << ": unknown normalization " << normalization);
  }
};

template <class T>
void check_cases(double tolerance) {
  auto const folders = case_folders("gau");
  CHECK_FALSE(folders.empty());
  for (auto const& folder : folders) {
    auto const from = read_case(folder);
    gau_case<T> one{from};
    one.call();
    auto const error = difference_of(one.out, one.y);
    INFO(from.name << ": " << error.message());
    CHECK(error.absolute <= tolerance);
  }
}

}  // namespace

TEST_CASE("bert4keras' gated attention unit, in double to 1e-12", "[conformance]") {
  HEED_SKIP_WITHOUT("gau");
  check_cases<double>(1e-12);
}

}  // namespace heed::test
