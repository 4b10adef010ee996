// One idea: a layout is a set of strides, never a copy. `explain` says what a call will do, and what a layout costs.

#include <heed/attention/attention.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

namespace {

heed::index const batch = 2, len = 100, heads_q = 4, heads_kv = 2, dim = 32;

heed::tensor<float, 4> expected;

/// Runs the call, prints the plan, and compares with the plain layout.
template <class Q, class K, class V>
void show(char const* title, Q const& q, K const& k, V const& v) {
  std::cout << "== " << title << "\n" << heed::explain(q, k, v, heed::causal{}) << "\n";
  heed::tensor<float, 4> const out = heed::attention(q, k, v, heed::causal{});
  if (expected.size() == 0)
    expected = out;
  float difference = 0;
  for (heed::index i = 0; i < out.size(); ++i)
    difference = std::max(difference, std::abs(out.data()[i] - expected.data()[i]));
  std::cout << "largest difference from the first layout: " << difference << "\n\n";
}

/// A copy of x whose memory is ordered otherwise: strides are those of `like`.
heed::view<float, 4> refill(heed::view<float const, 4> x, heed::view<float, 4> like) {
  for (heed::index b = 0; b < x.extent(0); ++b)
    for (heed::index h = 0; h < x.extent(1); ++h)
      like.matrix(b, h) = x.matrix(b, h);
  return like;
}

}  // namespace

int main() {
  // What a projection leaves: queries, keys and values of all heads side by side in one row per token.
  heed::tensor<float, 3> packed({batch, len, (heads_q + 2 * heads_kv) * dim});
  for (heed::index b = 0; b < batch; ++b)
    packed.matrix(b).setRandom();
  auto const [q, k, v] = heed::split_packed_qkv(packed.view(), heads_q, heads_kv);
  show("packed [batch, len, (heads_q + 2 heads_kv) dim], read in place", q, k, v);

  // [batch, len, heads, dim], as flash-attention has it: two strides exchanged.
  heed::tensor<float, 4> q_blhd({batch, len, heads_q, dim}), k_blhd({batch, len, heads_kv, dim}), v_blhd = k_blhd;
  show("[batch, len, heads, dim]", refill(q, heed::heads_first(q_blhd.view())),
       refill(k, heed::heads_first(k_blhd.view())), refill(v, heed::heads_first(v_blhd.view())));

  // [batch, heads, dim, len]: the channels of a row lie far apart, so rows are gathered, a block of keys at a time.
  heed::tensor<float, 4> q_bhdl({batch, heads_q, dim, len}), k_bhdl({batch, heads_kv, dim, len}), v_bhdl = k_bhdl;
  auto const transposed = [](heed::tensor<float, 4>& x) {
    return heed::view<float, 4>(x.data(), {x.extent(0), x.extent(1), x.extent(3), x.extent(2)},
                                {x.stride(0), x.stride(1), x.stride(3), x.stride(2)});
  };
  show("[batch, heads, dim, len], like a column-major matrix", refill(q, transposed(q_bhdl)),
       refill(k, transposed(k_bhdl)), refill(v, transposed(v_bhdl)));

  // An Eigen matrix is one head, whatever its storage order.
  Eigen::MatrixXf const one = Eigen::MatrixXf::Random(len, dim);  // column-major
  std::cout << "== one head, Eigen's column-major default\n" << heed::explain(one, one, one) << "\n";
}
