#pragma once

#include <heed/attention/attention.hpp>
#include <heed/reference/attention.hpp>
#include <heed/vq/attention.hpp>
#include <heed/vq/state.hpp>

#include "support/compare.hpp"
#include "support/random.hpp"

/// VQ attention beside what defines it: attention over decoded keys, by the reference.

namespace heed::test {

struct vq_shape {
  index batch = 1, heads_q = 1, heads_kv = 1, q_len = 1, kv_len = 1, dim = 4, dim_v = 4, codes = 4, block = 4;
};

template <class T = double>
struct vq_inputs {
  tensor<T, 4> q, k, v;
  codebook<T> book;
  tensor<std::int32_t, 3> codes;
  tensor<T, 4> decoded;
  index block;

  /// Half of the codes lie where no key is: they stay empty.
  vq_inputs(vq_shape const& s, generator& random)
      : q(normal_tensor<T, 4>({s.batch, s.heads_q, s.q_len, s.dim}, random)),
        k(normal_tensor<T, 4>({s.batch, s.heads_kv, s.kv_len, s.dim}, random)),
        v(normal_tensor<T, 4>({s.batch, s.heads_kv, s.kv_len, s.dim_v}, random)), book(vectors(s, random)),
        codes(book.encode(k)), decoded(book.decode(codes)), block(s.block) {}

  static tensor<T, 3> vectors(vq_shape const& s, generator& random) {
    auto result = normal_tensor<T, 3>({s.heads_kv, s.codes, s.dim}, random);
    for (index h = 0; h < s.heads_kv; ++h)
      for (index c = 1; c < s.codes; c += 2)
        for (index t = 0; t < s.dim; ++t)
          result(h, c, t) += T(50);
    return result;
  }

  index_array<4> out_extents() const { return {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}; }

  /// The largest error over max |v|; lse is compared, too.
  template <class... Ms>
  double error(Ms const&... ms) const {
    tensor<T, 4> out(out_extents()), from_codes(out_extents());
    tensor<double, 4> expected(out_extents());
    tensor<double, 3> sums({q.extent(0), q.extent(1), q.extent(2)}), expected_sums(sums.extents());
    tensor<T, 3> got_sums(sums.extents());
    using scalar = std::conditional_t<std::is_same_v<T, double>, long double, double>;
    reference::attention<scalar>(q, decoded, v, expected, heed::lse{expected_sums}, ms...);
    vq_attention(q, k, v, out, book, block, heed::lse{got_sums}, ms...);
    vq_attention(q, codes, v, from_codes, book, block, ms...);
    if (!same_bits(out, from_codes))
      return std::numeric_limits<double>::infinity();
    double const largest_v = std::max(1.0, largest(v));
    return std::max(difference_of(out, expected, largest_v).relative,
                    difference_of(got_sums, expected_sums, std::max(1.0, finite_largest(expected_sums))).relative);
  }

  static double finite_largest(tensor<double, 3> const& x) {
    double most = 0;
    for (index i = 0; i < x.size(); ++i)
      if (std::isfinite(x.data()[i]))
        most = std::max(most, std::abs(x.data()[i]));
    return most;
  }
};

}  // namespace heed::test
