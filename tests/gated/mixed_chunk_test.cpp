#include "support/catch.hpp"
#include "support/compare.hpp"
#include "support/counting_allocator.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

#include <heed/core/thread_pool.hpp>
#include <heed/gated/mixed_chunk.hpp>

namespace heed::test {
namespace {

template <class T>
constexpr float tolerance = sizeof(T) == 8 ? 1e-12f : 4e-6f;

template <class T>
struct inputs {
  generator random;
  tensor<T, 3> q_quad, k_quad, q_lin, k_lin, v, u, out;

  inputs(std::uint64_t seed, index batch, index len, index s, index e)
      : random(seed), q_quad(normal_tensor<T, 3>({batch, len, s}, random)),
        k_quad(normal_tensor<T, 3>({batch, len, s}, random)), q_lin(normal_tensor<T, 3>({batch, len, s}, random)),
        k_lin(normal_tensor<T, 3>({batch, len, s}, random)), v(normal_tensor<T, 3>({batch, len, e}, random)),
        u(normal_tensor<T, 3>({batch, len, e}, random)), out({batch, len, e}) {
    fill(out.view(), [] { return -77.0; });
  }

  template <class... Ms>
  tensor<T, 3> const& attend(chunks const& c, Ms const&... ms) {
    mixed_chunk_attention(q_quad, k_quad, q_lin, k_lin, v, out, c, ms...);
    return out;
  }
};

struct naive_mixed {
  bool causal = false, gated = false;
  std::vector<index> lengths = {};
  double theta = 0;  // rotary on channels 0 and 1, where not 0

  static double turned(tensor<double, 3> const& q, index i, tensor<double, 3> const& k, index j, index b,
                       double theta) {
    double sum = 0;
    for (index d = 0; d < q.extent(2); ++d)
      sum += q(b, i, d) * k(b, j, d);
    if (theta == 0)
      return sum;
    double const angle = theta * static_cast<double>(j - i);
    double const dot = q(b, i, 0) * k(b, j, 0) + q(b, i, 1) * k(b, j, 1);
    double const cross = q(b, i, 1) * k(b, j, 0) - q(b, i, 0) * k(b, j, 1);
    return sum - dot + dot * std::cos(angle) + cross * std::sin(angle);
  }

  /// A pair at a time, as the formula stands.
  tensor<double, 3> operator()(inputs<double> const& in, chunks const& c) const {
    tensor<double, 3> out(in.out.extents());
    for (index b = 0; b < out.extent(0); ++b)
      for (index i = 0; i < out.extent(1); ++i) {
        index const keys = lengths.empty() ? out.extent(1) : lengths[static_cast<std::size_t>(b)];
        index const chunk_begin = i / c.length * c.length;
        auto const tokens = static_cast<double>(causal ? std::min(chunk_begin, keys) : keys);
        auto const length = static_cast<double>(c.length), dim = static_cast<double>(in.q_quad.extent(2));
        for (index j = 0; j < keys; ++j) {
          double weight = 0;
          if (j / c.length == i / c.length && !(causal && j > i)) {
            double const s = std::max(0.0, turned(in.q_quad, i, in.k_quad, j, b, theta));
            weight += c.quadratic == quadratic_norm::chunk_and_dim ? s * s / (length * dim) : s * s / (length * length);
          }
          if (!causal || j < chunk_begin)
            weight += turned(in.q_lin, i, in.k_lin, j, b, theta) / (c.linear == linear_norm::tokens  ? tokens
                                                                    : c.linear == linear_norm::chunk ? length
                                                                                                     : 1);
          for (index e = 0; e < out.extent(2); ++e)
            out(b, i, e) += weight * in.v(b, j, e);
        }
        for (index e = 0; e < out.extent(2) && gated; ++e)
          out(b, i, e) *= in.u(b, i, e);
      }
    return out;
  }
};

template <class... Ms>
void check(inputs<double>& in, chunks const& c, naive_mixed const& expected, Ms const&... ms) {
  auto const error = difference_of(in.attend(c, ms...), expected(in, c));
  INFO("chunks of " << c.length << " in " << in.v.extent(1) << ": " << error.message());
  CHECK((error.absolute == 0 || error.relative <= 1e-12));
}

}  // namespace

TEST_CASE("Mixed chunk attention is its formula", "[identities]") {
  for (index len : {1, 5, 64, 150})
    for (index c : {1, 5, 64, 70, 200}) {
      inputs<double> in(3, 2, len, 4, 70);
      naive_mixed const causal_form{.causal = true}, full_form{};
      check(in, {c}, causal_form, causal{});
      check(in, {c}, full_form);
      check(in, {c, quadratic_norm::chunk_squared, linear_norm::chunk}, causal_form, causal{});
      check(in, {c, quadratic_norm::chunk_squared, linear_norm::chunk}, full_form);
      check(in, {c, quadratic_norm::chunk_and_dim, linear_norm::none}, causal_form, causal{});
    }
}

TEST_CASE("Mixed chunk attention: lengths, gate, rotary", "[contract]") {
  inputs<double> in(5, 4, 50, 4, 6);
  std::vector<index> const n{50, 37, 16, 0};
  frequencies const f = frequencies::standard(2);
  for (index c : {8, 16, 64}) {
    check(in, {c}, {.causal = true, .gated = true, .lengths = n}, causal{}, lengths{n}, gate{in.u});
    check(in, {c}, {.gated = true, .lengths = n}, lengths{n}, gate{in.u});
    check(in, {c}, {.causal = true, .theta = f.theta()[0]}, causal{}, rotary{f, layout::interleaved});
    check(in, {c}, {.lengths = n, .theta = f.theta()[0]}, rotary{f, layout::interleaved}, lengths{n});
  }
}

TEST_CASE("Mixed chunk attention gives the golden rows", "[identities]") {
  golden_rows rows;
  mixed_chunk_attention(rows.q, rows.k, rows.q, rows.k, rows.v, rows.out, chunks{3}, causal{});
  rows.check_out(0.26905478, -0.16374096, -0.49721362, -3.1033544995);
  mixed_chunk_attention(rows.q, rows.k, rows.q, rows.k, rows.v, rows.out, chunks{3});
  rows.check_out(0.04952784, -0.34056970, -0.52408223, -0.6102125210);
}

TEMPLATE_TEST_CASE("Mixed chunk attention: one chunk is gated squared-ReLU attention", "[identities]", double, float) {
  using T = TestType;
  inputs<T> in(7, 2, 70, 8, 5);
  in.attend({70}, causal{}, gate{in.u});
  for (index b = 0; b < 2; ++b) {
    tensor<T, 2> expected({70, 5});
    heed::attention(in.q_quad.matrix(b), in.k_quad.matrix(b), in.v.matrix(b), expected, causal{},
                    squared_relu{fixed{70}}, gate{in.u.matrix(b)});
    CHECK((in.out.matrix(b) - expected.matrix()).cwiseAbs().maxCoeff() <= tolerance<T>);
  }
}

TEMPLATE_TEST_CASE("Mixed chunk attention: the bidirectional linear part is Q (Kᵀ V) / n", "[identities]", double,
                   float) {
  using T = TestType;
  inputs<T> in(9, 1, 100, 8, 5);
  fill(in.q_quad.view(), [] { return 0.0; });
  for (index c : {7, 100}) {
    in.attend({c});
    auto const wide = [](tensor<T, 3> const& x) { return Eigen::MatrixXd(x.matrix(0).template cast<double>()); };
    Eigen::MatrixXd const expected = wide(in.q_lin) * (wide(in.k_lin).transpose() * wide(in.v)).eval() / 100.0;
    CHECK((wide(in.out) - expected).cwiseAbs().maxCoeff() <= tolerance<T>);
  }
}

TEST_CASE("Mixed chunk attention: hidden keys do not reach a row", "[contract]") {
  inputs<float> in(11, 2, 60, 8, 70);
  std::vector<index> const n{60, 21};
  for (bool full : {false, true}) {
    auto const call = [&] { return full ? in.attend({16}, lengths{n}) : in.attend({16}, causal{}, lengths{n}); };
    tensor<float, 3> const clean = call();
    auto const nan = std::numeric_limits<float>::quiet_NaN();
    for (index j = 21; j < 60; ++j) {
      for (index c = 0; c < 8; ++c)
        in.k_quad(1, j, c) = in.k_lin(1, j, c) = nan;
      for (index c = 0; c < 70; ++c)
        in.v(1, j, c) = nan;
    }
    CHECK(same_bits(call(), clean));
  }
  inputs<float> later(13, 1, 60, 8, 70);
  tensor<float, 3> const clean = later.attend({16}, causal{});
  for (index c = 0; c < 8; ++c)
    later.k_quad(0, 40, c) = later.k_lin(0, 40, c) = std::numeric_limits<float>::infinity();
  for (index c = 0; c < 70; ++c)
    later.v(0, 40, c) = std::numeric_limits<float>::quiet_NaN();
  later.attend({16}, causal{});
  CHECK(std::equal(clean.data(), clean.data() + 40 * 70, later.out.data()));
  CHECK(std::isnan(later.out(0, 40, 0)));
  CHECK(std::isnan(later.out(0, 50, 0)));
}

TEST_CASE("Mixed chunk attention: edges, storage, strides", "[edges]") {
  inputs<float> none(17, 2, 0, 4, 3);
  none.attend({4}, causal{});
  inputs<float> in(17, 2, 45, 6, 10);
  std::vector<index> const n{45, 0};
  fill(in.u.view(), [] { return std::nan(""); });
  in.attend({4}, lengths{n}, gate{in.u});
  bool zero = true;
  for (index i = 0; i < 45; ++i)
    zero = zero && in.out(1, i, 9) == 0;
  CHECK(zero);  // empty rows, whatever their gate

  tensor<float, 3> const plain = in.attend({16}, causal{});
  tensor<Eigen::half, 3> out(in.out.extents());
  mixed_chunk_attention(in.q_quad, in.k_quad, in.q_lin, in.k_lin, in.v, out, chunks{16}, causal{});
  CHECK(difference_of(out, plain).relative <= 0x1p-10);
  tensor<float, 3> turned({2, 10, 45}), turned_out({2, 10, 45});
  auto const transposed = [](tensor<float, 3>& x) {
    return view<float, 3>(x.data() + 9 * x.stride(1), {2, 45, 10}, {x.stride(0), 1, -x.stride(1)});
  };
  for (index b = 0; b < 2; ++b)
    for (index i = 0; i < 45; ++i)
      for (index e = 0; e < 10; ++e)
        turned(b, 9 - e, i) = in.v(b, i, e);
  mixed_chunk_attention(in.q_quad, in.k_quad, in.q_lin, in.k_lin, transposed(turned), transposed(turned_out),
                        chunks{16}, causal{});
  CHECK(difference_of(transposed(turned_out), plain).absolute == 0);
}

TEST_CASE("Mixed chunk attention: executors and memory", "[contract][resources]") {
  Eigen::ThreadPool pool(3);
  heed::thread_pool workers(pool);
  inputs<float> in(19, 2, 300, 32, 600);
  tensor<float, 3> const alone = in.attend({64}, causal{});
  for (int again = 0; again < 20; ++again)  // often enough for workers to meet
    CHECK(same_bits(in.attend({64}, causal{}, on{workers}), alone));
  workspace memory(std::size_t{1} << 20);
  allocation_count const none;
  in.attend({64}, causal{}, with{memory});
  CHECK(none.count() == 0);
  CHECK(same_bits(in.out, alone));
}

TEST_CASE("Mixed chunk attention refuses bad input by name", "[errors]") {
  inputs<float> in(23, 2, 20, 4, 3);
  std::vector<index> const many{20, 20, 20}, too_long{20, 21};
  CHECK_THROWS_WITH(in.attend({0}), "mixed_chunk_attention: chunks.length must be at least 1, got 0");
  CHECK_THROWS_WITH(in.attend({4}, lengths{many}),
                    ContainsSubstring("lengths must have one number per batch, 2, got 3"));
  CHECK_THROWS_WITH(in.attend({4}, lengths{too_long}), ContainsSubstring("lengths[1] must lie in [0, 20], got 21"));
  CHECK_THROWS_WITH(in.attend({4}, gate{in.out}), ContainsSubstring("out must not share memory with gate"));
  CHECK_THROWS_WITH(in.attend({4}, gate{in.q_quad}), ContainsSubstring("gate must have 1 or 3 columns, got 4"));
  CHECK_THROWS_WITH(mixed_chunk_attention(in.q_quad, in.v, in.q_lin, in.k_lin, in.v, in.out, chunks{4}),
                    ContainsSubstring("k_quad.extent(dim) must equal q_quad's 4, got 3"));
  CHECK_THROWS_WITH(mixed_chunk_attention(in.q_quad, in.k_quad, in.q_lin, in.k_lin, in.v, in.v, chunks{4}),
                    ContainsSubstring("out must not share memory with v"));
  workspace small(1024);
  CHECK_THROWS_WITH(in.attend({4}, with{small}), ContainsSubstring("workspace must have at least"));
  CHECK(in.out(1, 19, 2) == -77);
}

}  // namespace heed::test
