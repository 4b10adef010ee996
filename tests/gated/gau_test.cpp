#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

#include <heed/attention/score.hpp>
#include <heed/core/thread_pool.hpp>
#include <heed/gated/gau.hpp>
#include <heed/position/rotary.hpp>
#include <heed/reference/attention.hpp>

namespace heed::test {
namespace {

using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
constexpr double tolerance = sizeof(T) == 8 ? 1e-12 : 4e-6;

double silu(double x) { return x / (1 + std::exp(-x)); }

/// Weights of a layer of dim channels, e expanded and s of a key, and what goes in.
template <class T>
struct layer {
  generator random;
  tensor<T, 2> w_in, gamma, beta, w_out;
  tensor<T, 3> x, out;

  layer(std::uint64_t seed, index batch, index len, index dim, index e, index s)
      : random(seed), w_in(normal_tensor<T, 2>({dim, 2 * e + s}, random, 0, 1 / std::sqrt(double(dim)))),
        gamma(normal_tensor<T, 2>({2, s}, random, 1)), beta(normal_tensor<T, 2>({2, s}, random)),
        w_out(normal_tensor<T, 2>({e, dim}, random, 0, 1 / std::sqrt(double(e)))),
        x(normal_tensor<T, 3>({batch, len, dim}, random)), out({batch, len, dim}) {
    fill(out.view(), [] { return -77.0; });
  }

  gau<T> make() const { return gau<T>(w_in, gamma, beta, w_out); }

  template <class... Ms>
  tensor<T, 3> const& forward(Ms const&... ms) {
    make().forward(x, out, ms...);
    return out;
  }

  /// SiLU(x · w_in) of the first batch, in double.
  matrix projected() const {
    return (x.matrix(0).template cast<double>() * w_in.matrix().template cast<double>()).unaryExpr(&silu);
  }

  /// The formula, with plain products in double and the reference's attention.
  template <class... Ms>
  tensor<double, 3> composed(Ms const&... ms) const {
    index const e = w_out.extent(0), s = gamma.extent(1), b = x.extent(0), n = x.extent(1);
    tensor<double, 4> u({b, 1, n, e}), v(u.extents()), q({b, 1, n, s}), k(q.extents()), o(u.extents());
    for (index i = 0; i < b; ++i) {
      matrix const projected =
          (x.matrix(i).template cast<double>() * w_in.matrix().template cast<double>()).unaryExpr(&silu);
      u.matrix(i, 0) = projected.leftCols(e);
      v.matrix(i, 0) = projected.middleCols(e, e);
      for (index r = 0; r < n; ++r)
        for (index c = 0; c < s; ++c) {
          double const z = projected(r, 2 * e + c);
          q(i, 0, r, c) = double(gamma(0, c)) * z + (beta.size() == 0 ? 0 : double(beta(0, c)));
          k(i, 0, r, c) = double(gamma(1, c)) * z + (beta.size() == 0 ? 0 : double(beta(1, c)));
        }
    }
    heed::reference::attention(q, k, v, o, heed::gate{u}, ms...);
    tensor<double, 3> result(x.extents());
    for (index i = 0; i < b; ++i)
      result.matrix(i) = o.matrix(i, 0) * w_out.matrix().template cast<double>();
    return result;
  }
};

template <class T, class... Ms>
void check(char const* name, layer<T>& l, Ms const&... ms) {
  auto const error = difference_of(l.forward(ms...), l.composed(offset{0}, ms...));
  INFO(name << ": " << error.message());
  CHECK(error.relative <= tolerance<T>);
}

template <class T>
void check_normalizers(index len) {
  layer<T> l(3, 2, len, 20, 70, 12);
  std::vector<index> const n{len, len / 2};
  frequencies const f = frequencies::standard(12);
  check("relu² / n", l, squared_relu{fixed{len}});
  check("relu² / n_i, causal, rotary", l, squared_relu{visible{}}, causal{}, rotary{f, layout::interleaved});
  check("relu² / row sum, lengths", l, squared_relu{row_sum{}}, lengths{n});
  check("softmax", l);
  check("softmax_plus, causal, lengths", l, causal{}, log_n_clamped{512, 16}, lengths{n});
}

}  // namespace

TEST_CASE("GAU is its formula", "[identities]") {
  for (index len : {5, 80}) {
    check_normalizers<double>(len);
    check_normalizers<float>(len);
  }
  layer<double> no_beta(5, 1, 20, 8, 16, 4);
  no_beta.beta = tensor<double, 2>();
  check("no beta", no_beta, squared_relu{visible{}});
  tensor<double, 3> const empty_beta = no_beta.out;
  gau<double>(no_beta.w_in, no_beta.gamma, no_beta.w_out).forward(no_beta.x, no_beta.out, squared_relu{visible{}});
  CHECK(same_bits(empty_beta, no_beta.out));
}

TEMPLATE_TEST_CASE("GAU with U = 1 and softmax is attention", "[identities]", double, float) {
  using T = TestType;
  layer<T> l(7, 1, 30, 10, 10, 4);
  index const one = 9;  // a channel that is always 1 and makes u: SiLU of this number is 1
  for (index c = 0; c < 10; ++c)
    for (index d = 0; d < 10; ++d) {
      l.w_in(d, c) = d == one ? T(1.278464542761073795) : T(0);
      l.w_out(c, d) = c == d ? T(1) : T(0);
    }
  for (index i = 0; i < 30; ++i)
    l.x(0, i, one) = 1;
  matrix const v = l.projected().middleCols(10, 10), z = l.projected().rightCols(4);
  matrix q = z, k = z;
  auto const row = [](tensor<T, 2> const& x, index r) {
    return Eigen::VectorXd(x.matrix().row(r).template cast<double>());
  };
  scale_offset(z, row(l.gamma, 0), row(l.beta, 0), q);
  scale_offset(z, row(l.gamma, 1), row(l.beta, 1), k);
  matrix expected(30, 10);
  heed::attention(q, k, v, expected, causal{});
  l.forward(causal{});
  CHECK((l.out.matrix(0).template cast<double>() - expected).cwiseAbs().maxCoeff() <= tolerance<T>);
}

TEMPLATE_TEST_CASE("GAU whose rows see only themselves is a gated linear unit", "[identities]", double, float) {
  using T = TestType;
  layer<T> l(9, 1, 70, 10, 14, 4);
  l.forward(window{0, 0});
  matrix const in = l.projected();
  matrix const expected =
      in.leftCols(14).cwiseProduct(in.middleCols(14, 14)) * l.w_out.matrix().template cast<double>();
  CHECK((l.out.matrix(0).template cast<double>() - expected).cwiseAbs().maxCoeff() <= tolerance<T>);
}

TEST_CASE("GAU's attention gives the golden rows", "[identities]") {
  golden_rows rows;
  auto const golden = [&](double a, double b, double c, double sum, auto const&... ms) {
    heed::attention(rows.q, rows.k, rows.v, rows.out, ms...);
    rows.check_out(a, b, c, sum);
  };
  golden(0.03812620, -0.01178843, -0.05455236, 0.4337387498, squared_relu{fixed{6}});
  golden(0.02541747, -0.00785895, -0.03636824, 0.2891591665, squared_relu{fixed{1}}, scale{1.0 / 6});
  golden(0.03812620, -0.01178843, -0.05455236, 0.0849702934, squared_relu{fixed{6}}, causal{});
  golden(0.03812620, -0.01178843, -0.05455236, 0.7159823265, squared_relu{visible{}}, causal{});
}

TEST_CASE("GAU: queries stand where the keys do", "[contract]") {
  layer<float> l(11, 2, 40, 8, 12, 4);
  std::vector<index> const n{40, 25}, zero{0, 0}, shifted{3, 3};
  tensor<float, 3> const plain = l.forward(causal{}, lengths{n}, squared_relu{visible{}});
  CHECK(same_bits(l.forward(causal{}, lengths{n}, offset{zero}, squared_relu{visible{}}), plain));
  CHECK_FALSE(same_bits(l.forward(causal{}, lengths{n}, offset{shifted}, squared_relu{visible{}}), plain));
  // Padding may hold anything; rows there are computed like any other.
  auto const clean_rows = [&] {
    bool same = true;
    for (index i = 0; i < 25; ++i)
      for (index c = 0; c < 8; ++c)
        same = same && l.out(1, i, c) == plain(1, i, c);
    return same && std::equal(plain.data(), plain.data() + 40 * 8, l.out.data());
  };
  for (index i = 25; i < 40; ++i)
    for (index c = 0; c < 8; ++c)
      l.x(1, i, c) = std::numeric_limits<float>::quiet_NaN();
  l.forward(causal{}, lengths{n}, squared_relu{visible{}});
  CHECK(clean_rows());
  // An empty row is 0, even where its U is not a number.
  std::vector<index> const none{40, 0};
  l.forward(lengths{none});
  CHECK(l.out(1, 39, 3) == 0);
}

TEST_CASE("Squared ReLU of what a functor brings to minus infinity is an empty row", "[edges]") {
  double const infinity = std::numeric_limits<double>::infinity();
  auto const without_head_1 = score{[=](auto s, auto at) { return at.head() == 1 ? s - infinity : s; }};
  for (auto const& lengths_of : {std::pair<index, index>{70, 200}, {2, 200}, {1, 5000}}) {
    index const q_len = lengths_of.first, kv_len = lengths_of.second;
    INFO("q_len " << q_len);
    generator random(29);
    auto const q = normal_tensor<double, 3>({2, q_len, 8}, random),
               k = normal_tensor<double, 3>({2, kv_len, 8}, random);
    tensor<double, 3> v({2, kv_len, 5}), gates({2, q_len, 5}), out({2, q_len, 5});
    auto const zero = [&](auto const&... ms) {
      heed::attention(q, k, v, out, without_head_1, gate{gates}, ms...);
      for (index i = 0; i < q_len; ++i)
        for (index c = 0; c < 5; ++c) {
          REQUIRE(std::isnan(out(0, i, c)));
          REQUIRE(out(1, i, c) == 0);
        }
    };
    fill(gates.view(), [] { return std::nan(""); });
    zero(squared_relu{fixed{3}});
    zero(squared_relu{visible{}}, causal{});
    fill(v.view(), [=] { return infinity; });
    zero(squared_relu{fixed{3}});
  }
}

TEST_CASE("GAU: storage, strides, executors, in place", "[contract]") {
  layer<float> l(13, 2, 150, 12, 20, 6);
  tensor<float, 3> const plain = l.forward(causal{}, squared_relu{visible{}});
  Eigen::ThreadPool pool(3);
  heed::thread_pool workers(pool);
  CHECK(same_bits(l.forward(causal{}, squared_relu{visible{}}, on{workers}), plain));

  // Column-major weights, x and out.
  Eigen::MatrixXf const w_in = l.w_in.matrix(), w_out = l.w_out.matrix(), x = l.x.matrix(1);
  Eigen::MatrixXf out(150, 12);
  Eigen::MatrixXf const gamma = l.gamma.matrix(), beta = l.beta.matrix();
  gau<float> const columns(w_in, gamma, beta, w_out);
  columns.forward(x, out, causal{}, squared_relu{visible{}}, on{workers});
  CHECK((out - plain.matrix(1)).cwiseAbs().maxCoeff() <= 1e-6f * plain.matrix(1).cwiseAbs().maxCoeff());

  // half weights, bfloat16 rows
  layer<Eigen::half> narrow(13, 2, 150, 12, 20, 6);
  tensor<Eigen::bfloat16, 3> rounded(plain.extents());
  narrow.make().forward(narrow.x, rounded, causal{}, squared_relu{visible{}});
  CHECK(difference_of(rounded, narrow.composed(offset{0}, causal{}, squared_relu{visible{}})).relative <= 0x1p-8);

  l.make().forward(l.x, l.x, causal{}, squared_relu{visible{}});
  CHECK(same_bits(l.x, plain));
  layer<float> empty(13, 2, 0, 12, 20, 6);
  empty.forward(causal{});
}

TEST_CASE("GAU of GAU-α's size: a worker's scratch stays below 1 MiB", "[resources]") {
  generator random(17);
  tensor<float, 2> const w_in({768, 2 * 1536 + 128}), gamma({2, 128}), w_out({1536, 768});
  gau<float> const wide(w_in, gamma, w_out);
  CHECK(wide.dim() == 768);
  CHECK(wide.expanded() == 1536);
  CHECK(wide.key_size() == 128);
  for (index len : {1, 8, 512, 4096}) {
    tensor<float, 2> const x({len, 768});
    for (plan const& p :
         {wide.explain(x, squared_relu{visible{}}), wide.explain(x, causal{}, log_n_clamped{512, 16})}) {
      INFO(p);
      CHECK(p.scratch_bytes <= std::size_t{1} << 20);
      CHECK(p.values == "in place");
      CHECK(p.offset == 0);
    }
  }
  // squared_relu walks without a running maximum: nothing is ever rescaled.
  static_assert(!has_maximum<normalizer_rule::squared_relu> && has_maximum<normalizer_rule::softmax>);
}

TEST_CASE("GAU refuses bad weights and inputs by name", "[errors]") {
  layer<float> l(19, 1, 6, 8, 12, 4);
  tensor<float, 2> const narrow({8, 24}), other({2, 5}), short_out({12, 7});
  CHECK_THROWS_WITH(gau<float>(narrow, l.gamma, l.w_out),
                    ContainsSubstring("gau: w_in must be [dim, 2 e + s] with w_out's e = 12"));
  CHECK_THROWS_WITH(gau<float>(l.w_in, other, l.w_out), "gau: gamma must be [2, 4], got [2, 5]");
  CHECK_THROWS_WITH(gau<float>(l.w_in, l.gamma, other, l.w_out), "gau: beta must be [2, 4] or empty, got [2, 5]");
  CHECK_THROWS_WITH(gau<float>(l.w_in, l.gamma, short_out), "gau: w_out.extent(dim) must equal w_in's 8, got 7");
  auto const made = l.make();
  tensor<float, 3> const wide({1, 6, 9});
  tensor<float, 3> longer({1, 7, 8});
  CHECK_THROWS_WITH(made.forward(wide, l.out), "gau: x.extent(dim) must equal w_in's 8, got 9");
  CHECK_THROWS_WITH(made.forward(l.x, longer), "gau: out.extent(len) must equal x's 6, got 7");
  view<float, 3> const folded(l.out.data(), {1, 6, 8}, {48, 0, 1});
  CHECK_THROWS_WITH(made.forward(l.x, folded), ContainsSubstring("gau: out must not overlap itself"));
  std::vector<index> const many{1, 2};
  CHECK_THROWS_WITH(made.forward(l.x, l.out, lengths{many}),
                    ContainsSubstring("lengths must have one number per batch"));
  CHECK(l.out(0, 5, 7) == -77);
}

}  // namespace heed::test
