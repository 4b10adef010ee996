#pragma once

#include <heed/core/description.hpp>

#include <cmath>
#include <map>
#include <vector>

/// Rotary positions, seen from one score: only the distance enters.

namespace heed {
HEED_ISA_BEGIN
namespace reference {

/// The distance f that a pair turns by, from rel = p − j (formulas B1, B4):
///
///     rotary        rel
///     rerope        min(rel, w)
///     leaky_rerope  rel < w: rel;  else w + (rel − w)/k
///     self_extend   rel < w: rel;  else ⌊p/G⌋ − ⌊j/G⌋ + w − ⌊w/G⌋
///
/// and for keys ahead of the query (rel < 0) the mirror image: far is rel ≤ −w.
template <class Scalar>
Scalar effective_distance(position_description const& said, index position, index key) {
  auto const rel = static_cast<Scalar>(position - key);
  auto const w = static_cast<Scalar>(said.window);
  if (said.rule == position_rule::rotary || std::fabs(rel) < w)
    return rel;

  Scalar const side = rel < 0 ? Scalar(-1) : Scalar(1);
  if (said.rule == position_rule::rerope)
    return side * w;
  if (said.rule == position_rule::leaky_rerope)
    return side * (w + (std::fabs(rel) - w) / static_cast<Scalar>(said.slope_inverse));
  auto const g = static_cast<Scalar>(said.group);
  return std::floor(static_cast<Scalar>(position) / g) - std::floor(static_cast<Scalar>(key) / g) +
         side * (w - std::floor(w / g));
}

/// Products of a query and a key under the call's position encoding.
///
/// With R_x the rotation by the angles x·theta and R_p^T R_j = R_{j−p}, the rotated product depends on one distance:
///
///     (R_p q)·(R_j k) = q^T R_{−f} k
///                     = Σ_t (q_a k_a + q_b k_b) cos(f theta_t) + (q_a k_b − q_b k_a) sin(f theta_t)
///
/// with (a, b) = (2t, 2t + 1) interleaved, (t, t + pairs) in the half layout. The attention factor multiplies cos and
/// sin of both sides, so it enters squared. Channels from 2·pairs on are not rotated.
template <class Scalar>
class rotated_product {
 public:
  rotated_product(position_description const& said, index dim) : said_(said), dim_(dim) {
    detail::expect(!said.keys_turned, "reference: takes raw keys, not those that a cache has turned");
    detail::expect(rotated() <= dim, "reference: the frequencies rotate ", rotated(), " channels, dim is ", dim);
  }

  Scalar operator()(Scalar const* q, Scalar const* k, index position, index key) {
    Scalar sum = 0;
    if (rotated() > 0) {
      auto const& turns = turns_by(effective_distance<Scalar>(said_, position, key));
      for (index t = 0; t < said_.pairs; ++t) {
        index const a = said_.interleaved ? 2 * t : t;
        index const b = said_.interleaved ? 2 * t + 1 : t + said_.pairs;
        auto const& [cosine, sine] = turns[static_cast<std::size_t>(t)];
        sum += (q[a] * k[a] + q[b] * k[b]) * cosine + (q[a] * k[b] - q[b] * k[a]) * sine;
      }
    }
    for (index c = rotated(); c < dim_; ++c)
      sum += q[c] * k[c];
    return sum;
  }

 private:
  struct turn {
    Scalar cosine, sine;
  };

  index rotated() const { return said_.rule == position_rule::none ? 0 : 2 * said_.pairs; }

  std::vector<turn> const& turns_by(Scalar distance) {
    auto const [found, isnew] = turns_.try_emplace(distance);
    if (isnew) {
      auto const factor = static_cast<Scalar>(said_.attention_factor) * static_cast<Scalar>(said_.attention_factor);
      for (index t = 0; t < said_.pairs; ++t) {
        Scalar const angle = distance * static_cast<Scalar>(said_.theta[t]);
        found->second.push_back({factor * std::cos(angle), factor * std::sin(angle)});
      }
    }
    return found->second;
  }

  position_description const& said_;
  index dim_;
  std::map<Scalar, std::vector<turn>> turns_;  // by distance: a call asks for the same few again and again
};

}  // namespace reference
HEED_ISA_END
}  // namespace heed
