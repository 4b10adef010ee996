#include "support/catch.hpp"

#include <heed/attention/bias.hpp>
#include <heed/attention/mask.hpp>
#include <heed/attention/scores.hpp>
#include <heed/position/rotary.hpp>

#include "support/compare.hpp"
#include "support/random.hpp"

#include <vector>

// Efficient GlobalPointer (E1): all types share one q and k, and differ in what starts and ends add.

namespace heed::test {

TEMPLATE_TEST_CASE("Efficient GlobalPointer is one head's scores and two biases that broadcast",
                   "[identities][contract]", double, float) {
  using T = TestType;
  double const tolerance = std::is_same_v<T, double> ? 1e-12 : 4e-6;
  index const types = 3, n = 40, dim = 12;
  generator random(76);
  auto const q = normal_tensor<T, 2>({n, dim}, random), k = normal_tensor<T, 2>({n, dim}, random);
  auto const starts = normal_tensor<T, 3>({types, n, 1}, random), ends = normal_tensor<T, 3>({types, 1, n}, random);
  rotary const turn{frequencies::standard(dim), layout::interleaved};
  auto const spans = modifiers(turn, window{0, unbounded}, offset{0});
  // One q and k for every type: heads of stride 0.
  view<T const, 3> const shared_q(q.data(), {types, n, dim}, {0, dim, 1}),
      shared_k(k.data(), {types, n, dim}, {0, dim, 1});
  tensor<T, 3> s({types, n, n});
  scores(shared_q, shared_k, s, spans, bias{starts}, bias{ends});

  auto turned_q = q, turned_k = k;
  turn.apply(turned_q, 0);
  turn.apply(turned_k, 0);
  std::vector<std::array<index, 3>> expected, found;
  for (index a = 0; a < types; ++a)
    for (index i = 0; i < n; ++i)
      for (index j = 0; j < n; ++j) {
        if (j < i) {
          REQUIRE(s(a, i, j) == -std::numeric_limits<T>::infinity());
          continue;
        }
        double sum = 0;
        for (index c = 0; c < dim; ++c)
          sum += static_cast<double>(turned_q(i, c)) * static_cast<double>(turned_k(j, c));
        double const score = sum / std::sqrt(static_cast<double>(dim)) + static_cast<double>(starts(a, i, 0)) +
                             static_cast<double>(ends(a, 0, j));
        REQUIRE(std::abs(static_cast<double>(s(a, i, j)) - score) <= tolerance);
        if (s(a, i, j) > 0)
          expected.push_back({a, i, j});
      }
  scores_above(
      shared_q, shared_k, 0, [&](index, index a, index i, index j, T) { found.push_back({a, i, j}); }, spans,
      bias{starts}, bias{ends});
  CHECK(found == expected);
  CHECK(found.size() > 100);

  // Without starts and ends it is GlobalPointer with one type, whatever the type.
  tensor<T, 3> const none_a({types, n, 1}), none_b({types, 1, n});
  tensor<T, 2> plain({n, n});
  scores(shared_q, shared_k, s, spans, bias{none_a}, bias{none_b});
  scores(q, k, plain, spans);
  for (index a = 0; a < types; ++a)
    for (index i = 0; i < n; ++i)
      for (index j = i; j < n; ++j)
        REQUIRE(std::abs(static_cast<double>(s(a, i, j) - plain(i, j))) <= tolerance);
}

}  // namespace heed::test
