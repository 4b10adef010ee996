#include "gated/naive_linear.hpp"
#include "support/catch.hpp"
#include "support/counting_allocator.hpp"
#include "support/golden.hpp"

#include <heed/core/thread_pool.hpp>
#include <heed/gated/linear.hpp>

namespace heed::test {
namespace {

template <class T>
struct inputs {
  generator random;
  tensor<T, 4> q, k, v, out;

  inputs(std::uint64_t seed, index batch, index heads_q, index heads_kv, index q_len, index kv_len, index dim,
         index dim_v)
      : random(seed), q(normal_tensor<T, 4>({batch, heads_q, q_len, dim}, random)),
        k(normal_tensor<T, 4>({batch, heads_kv, kv_len, dim}, random)),
        v(normal_tensor<T, 4>({batch, heads_kv, kv_len, dim_v}, random)), out({batch, heads_q, q_len, dim_v}) {
    fill(out.view(), [] { return -77.0; });
  }

  template <class... Ms>
  tensor<T, 4> const& attend(Ms const&... ms) {
    linear_attention(q, k, v, out, ms...);
    return out;
  }
};

/// Errors relative to the largest expected number; 1e-12 in double, and in float what as many roundings make of it.
template <class T, class... Ms>
void check(char const* name, inputs<T>& in, naive_linear const& expected, Ms const&... ms) {
  auto const error = difference_of(in.attend(ms...), expected(in.q, in.k, in.v));
  INFO(name << ", " << in.q.extent(2) << " on " << in.k.extent(2) << ": " << error.message());
  CHECK((error.absolute == 0 || error.relative <= (sizeof(T) == 8 ? 1e-12 : 4e-6)));
}

naive_linear causal_of(double (*map)(double)) {
  naive_linear n;
  n.map = map;
  n.causal = true;
  return n;
}
naive_linear plain_sum() {
  naive_linear n;
  n.causal = true;
  n.normalized = false;
  return n;
}

template <class T>
void check_forms(index len) {
  inputs<T> in(7, 2, 4, 2, len, len, 12, 20);
  naive_linear n = causal_of(elu1);
  check("elu + 1, causal", in, n, causal{});
  n.causal = false;
  check("elu + 1, full", in, n);
  n.map = [](double x) { return std::exp(x); };
  check("exp, full", in, n, exponential{});
  n.causal = true;
  check("exp, causal", in, n, exponential{}, causal{});
  n.map = [](double x) { return x * x; };
  check("a functor", in, n, feature_map{[](auto x) { return x * x; }}, causal{});
  n = plain_sum();
  n.scale = 1 / std::sqrt(12.0);
  check("identity, unnormalised", in, n, identity{}, causal{}, unnormalized{});
  n.causal = false;
  check("identity, unnormalised, full", in, n, identity{}, unnormalized{});
  std::vector<double> const gamma{0.9, 1 - 0x1p-6};
  n.causal = true;
  n.decay = gamma;
  n.scale = 0.7;
  check("retention", in, n, identity{}, causal{}, unnormalized{}, decay{gamma}, scale{0.7});
  n.normalized = true;
  n.map = elu1;
  check("retention, normalised", in, n, causal{}, decay{gamma});
}

}  // namespace

TEST_CASE("Linear attention equals its masked quadratic form", "[identities]") {
  for (index len : {1, 2, 8, 9, 31, 63, 64, 65, 130}) {
    check_forms<double>(len);
    check_forms<float>(len);
  }
}

TEST_CASE("Linear attention gives the golden rows", "[identities]") {
  golden_rows rows;
  linear_attention(rows.q, rows.k, rows.v, rows.out, causal{}, elu_plus_one{}, normalized{});
  rows.check_out(0.34774137, 0.59324318, 0.47889163, 10.0405736041);
  linear_attention(rows.q, rows.k, rows.v, rows.out, exponential{}, causal{});
  rows.check_out(0.36172097, 0.62437529, 0.50829193, 10.2218031410);
  std::vector<double> const gamma{0.9};
  linear_attention(rows.q, rows.k, rows.v, rows.out, identity{}, causal{}, unnormalized{}, scale{1}, decay{gamma});
  rows.check_out(-0.02270045, -1.20431727, -1.65541139, -12.4262721620);
}

TEST_CASE("Linear attention: offsets and lengths", "[contract]") {
  for (index q_len : {1, 3, 70}) {
    inputs<double> in(11, 3, 2, 1, q_len, 100, 5, 3);
    naive_linear n = causal_of(elu1);
    check("the last rows", in, n, causal{});
    for (index shift : {0, 30, 63, 99, 130, -2, -200}) {
      INFO("offset " << shift);
      n.offsets.assign(3, shift);
      check("offset", in, n, causal{}, offset{shift});
    }
    n.offsets = {0, 40, 200};
    check("offset per batch", in, n, causal{}, offset{n.offsets});
    n.lengths = {100, 64, 0};
    check("offset and lengths", in, n, causal{}, offset{n.offsets}, lengths{n.lengths});
    std::vector<double> const gamma{0.9};
    n.decay = gamma;
    check("with decay", in, n, causal{}, offset{n.offsets}, lengths{n.lengths}, decay{gamma});
    n.decay.clear();
    n.offsets.clear();
    check("lengths", in, n, causal{}, lengths{n.lengths});
    n.causal = false;
    check("lengths, full", in, n, lengths{n.lengths});
  }
}

TEST_CASE("Linear attention: decays that depend on the token", "[identities]") {
  for (index len : {5, 100}) {
    inputs<double> in(13, 2, 4, 2, len, len, 6, 70);
    auto gates = uniform_tensor<double, 3>({2, 2, len}, in.random, -2, 0);
    gates(1, 0, len / 2) = -std::numeric_limits<double>::infinity();  // forgets everything
    naive_linear n = plain_sum();
    n.log_decay = tensor<double, 4>({2, 2, len, 1});
    std::copy_n(gates.data(), gates.size(), n.log_decay.data());
    check("per token", in, n, identity{}, causal{}, unnormalized{}, scale{1}, log_decay(gates));
    check("per token, rank of k", in, n, identity{}, causal{}, unnormalized{}, scale{1}, log_decay(n.log_decay));

    n.log_decay = uniform_tensor<double, 4>({2, 2, len, 6}, in.random, -2, 0);
    check("per feature", in, n, identity{}, causal{}, unnormalized{}, scale{1}, log_decay(n.log_decay));
    n.delta = uniform_tensor<double, 3>({2, 2, len}, in.random, 0, 0.3);
    check("gated delta", in, n, identity{}, causal{}, unnormalized{}, scale{1}, log_decay(n.log_decay), delta(n.delta));
    n.log_decay = tensor<double, 4>();
    check("delta", in, n, identity{}, causal{}, unnormalized{}, scale{1}, delta(n.delta));
  }
  inputs<double> in(17, 1, 1, 1, 90, 90, 4, 4);
  std::vector<double> const gamma{0.8};
  tensor<double, 4> const by_head = in.attend(causal{}, decay{gamma});
  tensor<double, 3> gates({1, 1, 90});
  fill(gates.view(), [] { return std::log(0.8); });
  CHECK(difference_of(in.attend(causal{}, log_decay(gates)), by_head).relative <= 1e-13);
}

TEMPLATE_TEST_CASE("Linear attention: state out and in continues a sequence", "[identities]", double, float) {
  using T = TestType;
  index const len = 150;
  inputs<T> in(19, 2, 4, 2, len, len, 7, 9);
  std::vector<double> const gamma{0.95, 0.8};
  frequencies const f = frequencies::standard(6);
  auto const same = [&](char const* name, auto const&... ms) {
    tensor<T, 4> const whole = in.attend(causal{}, ms...);
    linear_state<T> state(2, 2, 7, 9);
    tensor<T, 4> pieces(whole.extents());
    auto const rows = [](auto const& x, index first, index n) {
      auto const v = x.view();
      return view<T const, 4>(&v(0, 0, first, 0), {v.extent(0), v.extent(1), n, v.extent(3)}, v.strides());
    };
    for (index first = 0, step = 1; first < len; first += step, step = step % 3 == 0 ? 71 : step + 1) {
      index const n = std::min(step, len - first);
      view<T, 4> const out(&pieces(0, 0, first, 0), {2, 4, n, 9}, pieces.strides());
      state.step(rows(in.q, first, n), rows(in.k, first, n), rows(in.v, first, n), out, ms...);
      CHECK(state.size() == first + n);
    }
    auto const error = difference_of(pieces, whole);
    INFO(name << ": " << error.message());
    CHECK(error.relative <= (sizeof(T) == 8 ? 1e-12 : 4e-6));
  };
  same("elu + 1", elu_plus_one{});
  same("retention", identity{}, unnormalized{}, decay{gamma});
  same("retention, normalised", exponential{}, decay{gamma});
  same("rotary", rotary{f, layout::half});
}

TEST_CASE("Linear attention: what the state holds", "[contract]") {
  Eigen::MatrixXd const q = Eigen::MatrixXd::Random(5, 3), k = Eigen::MatrixXd::Random(80, 3),
                        v = Eigen::MatrixXd::Random(80, 4);
  Eigen::MatrixXd out(5, 4), s(3, 4), again(3, 4);
  Eigen::VectorXd z(3);
  linear_attention(q, k, v, out, exponential{}, causal{}, state_out(s, view<double, 1>(z.data(), {3})));
  Eigen::MatrixXd const features = k.array().exp().matrix();
  CHECK((s - features.transpose() * v).cwiseAbs().maxCoeff() <= 1e-12);
  CHECK((z - features.colwise().sum().transpose()).cwiseAbs().maxCoeff() <= 1e-12);
  // Keys that no query sees are in it, too; and a full call has the same sums.
  linear_attention(q, k, v, out, exponential{}, causal{}, offset{0}, state_out(again));
  CHECK((s - again).cwiseAbs().maxCoeff() <= 1e-12);
  linear_attention(q, k, v, out, exponential{}, state_out(again));
  CHECK((s - again).cwiseAbs().maxCoeff() <= 1e-12);
  CHECK((out - (q.array().exp().matrix() * s).cwiseQuotient((q.array().exp().matrix() * z).replicate(1, 4)))
            .cwiseAbs()
            .maxCoeff() <= 1e-12);
  // Queries beyond the keys fade what they see, not what is handed out.
  std::vector<double> const gamma{0.5};
  Eigen::MatrixXd first(3, 4), later(3, 4);
  linear_attention(q, k, v, out, identity{}, unnormalized{}, causal{}, decay{gamma}, state_out(first));
  linear_attention(q, k, v, out, identity{}, unnormalized{}, causal{}, decay{gamma}, offset{78}, state_out(later));
  CHECK((first - later).cwiseAbs().maxCoeff() <= 1e-13);
}

TEST_CASE("Linear attention: rotary turns the numerator only", "[identities]") {
  inputs<double> in(23, 1, 2, 1, 75, 75, 6, 5);
  frequencies const f = frequencies::standard(4);
  naive_linear n = causal_of(elu1);
  n.theta.assign(f.theta(), f.theta() + f.pairs());
  check("causal", in, n, causal{}, rotary{f, layout::half});
  n.causal = false;
  check("full", in, n, rotary{f, layout::half});
  n = plain_sum();
  n.theta.assign(f.theta(), f.theta() + f.pairs());
  check("unnormalised", in, n, causal{}, rotary{f, layout::half}, identity{}, unnormalized{}, scale{1});
}

TEST_CASE("Linear attention: features of another number than channels", "[contract]") {
  inputs<double> in(29, 1, 1, 1, 70, 70, 4, 4);
  auto const doubled = [](auto const* x, index dim, auto* phi) {
    for (index c = 0; c < dim; ++c) {
      phi[c] = x[c] > 0 ? x[c] : 0;
      phi[dim + c] = x[c] < 0 ? -x[c] : 0;
    }
  };
  tensor<double, 4> wide_q({1, 1, 70, 8}), wide_k({1, 1, 70, 8});
  for (index i = 0; i < 70; ++i) {
    doubled(&in.q(0, 0, i, 0), 4, &wide_q(0, 0, i, 0));
    doubled(&in.k(0, 0, i, 0), 4, &wide_k(0, 0, i, 0));
  }
  auto const expected = linear_attention(wide_q, wide_k, in.v, identity{}, causal{});
  CHECK(same_bits(in.attend(feature_map{8, doubled}, causal{}), expected));
}

TEST_CASE("Linear attention: hidden keys do not reach a row", "[contract]") {
  for (index hidden : {1, 60, 100}) {
    inputs<float> in(31, 1, 2, 1, 100, 100, 8, 70);
    tensor<float, 4> const clean = in.attend(causal{});
    for (index c = 0; c < 8; ++c)
      in.k(0, 0, hidden - 1, c) = std::numeric_limits<float>::quiet_NaN();
    for (index c = 0; c < 70; ++c)
      in.v(0, 0, hidden - 1, c) = std::numeric_limits<float>::infinity();
    in.attend(causal{});
    bool same = true, tainted = true;
    for (index h = 0; h < 2; ++h)
      for (index i = 0; i < 100; ++i)
        for (index c = 0; c < 70; ++c)
          if (i < hidden - 1)
            same = same && in.out(0, h, i, c) == clean(0, h, i, c);
          else
            tainted = tainted && std::isnan(in.out(0, h, i, c));
    CHECK(same);
    CHECK(tainted);
  }
  inputs<float> in(37, 2, 1, 1, 90, 90, 8, 9);
  std::vector<index> const n{90, 33};
  for (bool full : {false, true}) {
    auto const call = [&] {
      return full ? in.attend(lengths{n}, offset{0}) : in.attend(causal{}, lengths{n}, offset{0});
    };
    tensor<float, 4> const clean = call();
    for (index j = 33; j < 90; ++j)
      for (index c = 0; c < 8; ++c)
        in.k(1, 0, j, c) = in.v(1, 0, j, c) = std::numeric_limits<float>::quiet_NaN();
    CHECK(same_bits(call(), clean));
  }
}

TEST_CASE("Linear attention: edges", "[edges]") {
  inputs<float> no_rows(41, 2, 2, 1, 0, 9, 4, 3);
  no_rows.attend(causal{});
  inputs<float> no_keys(41, 2, 2, 1, 9, 0, 4, 3);
  auto const zeros = [](tensor<float, 4> const& x) { return largest(x) == 0; };
  CHECK(zeros(no_keys.attend(causal{})));
  CHECK(zeros(no_keys.attend()));
  inputs<float> in(43, 1, 1, 1, 4, 4, 1, 1);
  CHECK(in.attend(causal{})(0, 0, 0, 0) == Approx(in.v(0, 0, 0, 0)));  // one key
  // Weights that sum to 0.
  for (index j = 0; j < 4; ++j)
    in.k(0, 0, j, 0) = j % 2 == 0 ? 1.0f : -1.0f;
  CHECK(in.attend(identity{}, causal{})(0, 0, 1, 0) == 0);
  // An empty row is 0 even where its gate is not finite.
  tensor<float, 4> nan({1, 1, 4, 1});
  fill(nan.view(), [] { return std::nan(""); });
  std::vector<index> const none{0};
  CHECK(zeros(in.attend(causal{}, lengths{none}, gate{nan})));
  CHECK(zeros(in.attend(causal{}, offset{-4}, gate{nan})));
  // A state is something to see.
  tensor<float, 2> const s({1, 1}), z({1, 1});
  fill(view<float, 2>(const_cast<float*>(s.data()), {1, 1}), [] { return 3.0; });
  fill(view<float, 2>(const_cast<float*>(z.data()), {1, 1}), [] { return 2.0; });
  view<float const, 1> const sums(z.data(), {1});
  in.attend(causal{}, lengths{none}, offset{0}, state_in(s, sums));
  CHECK(in.out(0, 0, 3, 0) == Approx(1.5f));
}

TEST_CASE("Linear attention: storage, strides and gate", "[contract]") {
  inputs<float> in(47, 2, 4, 2, 70, 70, 10, 12);
  tensor<float, 4> const plain = in.attend(causal{});
  auto const half_q = [&] {
    tensor<Eigen::half, 4> x(in.q.extents());
    for (index i = 0; i < x.size(); ++i)
      in.q.data()[i] = static_cast<float>(x.data()[i] = static_cast<Eigen::half>(in.q.data()[i]));
    return x;
  }();
  tensor<Eigen::bfloat16, 4> narrow_out(in.out.extents());
  tensor<float, 4> const rounded = in.attend(causal{});
  linear_attention(half_q, in.k, in.v, narrow_out, causal{});
  bool same = true;
  for (index i = 0; i < rounded.size(); ++i)
    same = same &&
           static_cast<float>(narrow_out.data()[i]) == static_cast<float>(round_to<Eigen::bfloat16>(rounded.data()[i]));
  CHECK(same);

  // Channels first, and backwards.
  tensor<float, 4> turned({2, 2, 12, 70}), turned_out({2, 4, 12, 70});
  for_each_place(in.v.extents(),
                 [&](index b, index h, index j, index c) { turned(b, h, 11 - c, j) = in.v(b, h, j, c); });
  auto const back = [](tensor<float, 4>& x) {
    return view<float, 4>(x.data() + 11 * x.stride(2), {x.extent(0), x.extent(1), x.extent(3), x.extent(2)},
                          {x.stride(0), x.stride(1), 1, -x.stride(2)});
  };
  tensor<float, 4> gates = normal_tensor<float, 4>({1, 4, 70, 12}, in.random);
  linear_attention(in.q, in.k, back(turned), back(turned_out), causal{}, gate{gates});
  same = true;
  for_each_place(in.out.extents(), [&](index b, index h, index i, index c) {
    same = same && turned_out(b, h, 11 - c, i) == rounded(b, h, i, c) * gates(0, h, i, c);
  });
  CHECK(same);
  // One head as matrices, a broadcast key.
  Eigen::MatrixXf const x = Eigen::MatrixXf::Random(20, 4), y = Eigen::MatrixXf::Random(20, 3);
  Eigen::MatrixXf out(20, 3);
  linear_attention(x, view<float const, 2>(x.data(), {20, 4}, {0, 20}), y, out);
  CHECK((out.row(7) - y.colwise().mean()).cwiseAbs().maxCoeff() <= 1e-6f);
}

TEST_CASE("Linear attention: the same bits from every executor and every cut of the batch", "[contract]") {
  inputs<float> in(53, 2, 4, 2, 200, 200, 40, 600);
  Eigen::ThreadPool pool(3);
  heed::thread_pool workers(pool);
  std::vector<double> const gamma{0.9, 0.99};
  auto const both = [&](auto const&... ms) {
    tensor<float, 4> const alone = in.attend(ms...);
    for (int again = 0; again < 20; ++again)  // often enough for workers to meet
      CHECK(same_bits(in.attend(ms..., on{workers}), alone));
    tensor<float, 4> cut(in.out.extents());
    for (index b = 0; b < 2; ++b) {
      auto const part = [&](auto& x) {
        return view<float, 4>(&x(b, 0, 0, 0), {1, x.extent(1), x.extent(2), x.extent(3)}, x.strides());
      };
      linear_attention(part(in.q), part(in.k), part(in.v), part(cut), ms...);
    }
    CHECK(same_bits(cut, alone));
  };
  both(causal{});
  both(identity{}, unnormalized{}, causal{}, decay{gamma});
  both();
}

TEST_CASE("Linear attention: memory", "[resources]") {
  auto const bytes = [](index len, index dim, index dim_v, auto const&... ms) {
    inputs<float> const in(59, 1, 1, 1, len, len, dim, dim_v);
    return linear_workspace_bytes(in.q, in.k, in.v, ms...);
  };
  CHECK(bytes(64, 64, 64, causal{}) == bytes(4096, 64, 64, causal{}));
  CHECK(bytes(64, 512, 4096, causal{}) <= std::size_t{1} << 20);
  frequencies const f = frequencies::standard(512);
  CHECK(bytes(64, 512, 4096, causal{}, rotary{f, layout::half}) <= std::size_t{1} << 20);

  inputs<float> in(61, 2, 2, 2, 300, 300, 64, 300);
  workspace memory(linear_workspace_bytes(in.q, in.k, in.v, causal{}));
  allocation_count const none;
  in.attend(causal{}, with{memory});
  CHECK(none.count() == 0);
  allocation_count const one;
  in.attend(causal{});
  CHECK(one.count() == 1);
  inputs<float> small(61, 2, 2, 2, 300, 300, 16, 16);
  allocation_count const on_stack;
  small.attend(causal{});
  CHECK(on_stack.count() == (linear_workspace_bytes(small.q, small.k, small.v, causal{}) > 65536 ? 1 : 0));

  // A state that is stepped takes nothing more, however long it goes on.
  linear_state<float> state(1, 1, 8, 8);
  std::vector<float> const x(8, 0.1f);
  std::vector<float> y(8);
  view<float const, 2> const token(x.data(), {1, 8});
  view<float, 2> const result(y.data(), {1, 8});
  allocation_count const steps;
  for (int i = 0; i < 2000; ++i)
    state.step(token, token, token, result);
  CHECK(steps.count() == 0);
  CHECK(state.size() == 2000);
  CHECK(y[3] == Approx(0.1f).epsilon(1e-4));  // 2000 roundings of a running sum
}

TEST_CASE("Linear attention refuses bad input by name", "[errors]") {
  inputs<float> in(67, 2, 4, 2, 5, 6, 4, 3);
  std::vector<double> const three{1, 1, 1}, high{0.5, 1.5};
  std::vector<index> const too_long{6, 7};
  tensor<float, 4> other({2, 4, 5, 4}), state({2, 2, 4, 3}), narrow_state({2, 2, 4, 2});
  tensor<float, 3> tokens({2, 2, 5});
  frequencies const f = frequencies::standard(6);
  auto const refuses = [&](std::string const& message, auto const&... ms) {
    fill(in.out.view(), [] { return -77.0; });
    CHECK_THROWS_WITH(in.attend(ms...), ContainsSubstring(message));
    CHECK(in.out(1, 3, 4, 2) == -77);
  };
  CHECK_THROWS_WITH(linear_attention(in.q, in.k, in.v, other),
                    "linear_attention: out.extent(dim) must equal v's 3, got 4");
  CHECK_THROWS_WITH(linear_attention(in.q, in.v, in.v, in.out),
                    ContainsSubstring("k.extent(dim) must equal q's 4, got 3"));
  CHECK_THROWS_WITH(linear_attention(in.q, in.k, in.v, in.q), ContainsSubstring("out.extent(dim)"));
  CHECK_THROWS_WITH(linear_attention(in.q, in.k, in.k, in.q), ContainsSubstring("out must not share memory with q"));
  refuses("decay must have one number per key head, 2, got 3", causal{}, decay{three});
  refuses("decay[1] must lie in [0, 1], got 1.5", causal{}, decay{high});
  refuses("linear_attention: lengths[1] must lie in [0, 6], got 7", lengths{too_long});
  refuses("log_decay must have one number per key, 6, got 5", causal{}, log_decay(tokens));
  refuses("state_in needs its sums", causal{}, state_in(state));
  refuses("state_in.extent(dim_v) must equal the call's 3, got 2", causal{}, unnormalized{}, state_in(narrow_state));
  refuses("state_out.extent(dim_v)", unnormalized{}, state_out(narrow_state));
  refuses("rotary must turn 1 to 2 pairs of 4 features, got 3", rotary{f, layout::half});
  workspace tiny(64);
  refuses("with's workspace must have at least", with{tiny});
  CHECK_THROWS_WITH((feature_map{0, [](auto x) { return x; }}), ContainsSubstring("at least 1 feature"));
  CHECK_THROWS_WITH((linear_state<float>(1, 0, 4, 4)), ContainsSubstring("linear_state"));
}

}  // namespace heed::test
