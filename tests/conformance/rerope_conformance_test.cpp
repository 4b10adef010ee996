#include "support/catch.hpp"

#include <heed/cache/kv_cache.hpp>

#include "support/compare.hpp"
#include "support/conformance.hpp"

// bojone/rerope's rows through heed::attention: prefill, and the last three rows one by one from a cache.

namespace heed::test {
namespace {

/// In double: the cases' inputs are, and rounding them to float would cost more than the 1e-6.
template <class Code>
void check_case(conformance_case const& from, Code const& code) {
  auto const q = from.inputs.at("q").as<double, 4>(), k = from.inputs.at("k").as<double, 4>(),
             v = from.inputs.at("v").as<double, 4>();
  auto const expected = from.outputs.at("y").as<double, 4>(), last = from.outputs.at("decode_last3").as<double, 4>();
  log_n_beyond const dagger{from.attributes.at("training_length").get<double>()};

  auto const error = difference_of(attention(q, k, v, causal{}, code, dagger), expected);
  INFO(from.name << ": " << error.message());
  CHECK(error.absolute <= 1e-6);

  index const n = q.extent(2);
  auto const rows = [](auto const& x, index b, index first, index count) {
    return view<double const, 3>(&x(b, 0, first, 0), {x.extent(1), count, x.extent(3)}, {x.stride(1), x.stride(2), 1});
  };
  for (index b = 0; b < q.extent(0); ++b) {
    kv_cache<double> cache(k.extent(1), k.extent(3), v.extent(3), n, code);
    cache.append(rows(k, b, 0, n - 3), rows(v, b, 0, n - 3));
    for (index i = n - 3; i < n; ++i) {
      cache.append(rows(k, b, i, 1), rows(v, b, i, 1));
      tensor<double, 3> out({q.extent(1), 1, v.extent(3)});
      attention(rows(q, b, i, 1), cache, out, causal{}, dagger);
      view<double const, 3> const row(&last(b, 0, i - (n - 3), 0), {q.extent(1), 1, v.extent(3)},
                                      {last.stride(1), last.stride(2), 1});
      auto const decode_error = difference_of(out, row);
      INFO("decode, row " << i << ": " << decode_error.message());
      CHECK(decode_error.absolute <= 1e-6);
    }
  }
}

}  // namespace

TEST_CASE("heed gives bojone/rerope's rows, in prefill and from a cache", "[conformance][contract]") {
  HEED_SKIP_WITHOUT("rerope");
  for (auto const& folder : case_folders("rerope")) {
    auto const from = read_case(folder);
    auto const& attributes = from.attributes;
    double const w = attributes.at("window");
    rotary const turn{frequencies::standard(attributes.at("head_dim"), attributes.at("base")), layout::half};
    if (attributes.at("leaky_factor").is_null()) {
      check_case(from, rerope{turn, w});
    } else {
      double const k = attributes.at("leaky_factor");
      check_case(from, leaky_rerope{turn, w, k});
    }
  }
}

}  // namespace heed::test
