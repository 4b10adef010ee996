#include "support/catch.hpp"

#include <heed/attention/attention.hpp>
#include <heed/core/openmp.hpp>
#include <heed/core/thread_pool.hpp>
#include <heed/position/rotary.hpp>
#include <heed/reference/attention.hpp>

#include "attention/call.hpp"
#include "support/compare.hpp"
#include "support/golden.hpp"

#include <Eigen/Dense>

// The front door: what the contract spells, ranks, layouts, storage types, executors, order.

namespace heed::test {
namespace {

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// The same numbers in a memory layout of our own: `strides` in elements, from `origin`.
template <class T>
struct laid_out {
  std::vector<T> memory;
  view<T const, 4> seen;

  laid_out(tensor<T, 4> const& x, index_array<4> const& strides, index origin, index size)
      : memory(static_cast<std::size_t>(size)) {
    view<T, 4> const to(memory.data() + origin, x.extents(), strides);
    for_each_place(x.extents(), [&](index a, index b, index c, index d) { to(a, b, c, d) = x(a, b, c, d); });
    seen = to;
  }
};

}  // namespace

TEST_CASE("The contract's spellings compile and run", "[contract]") {
  Eigen::MatrixXf const q = Eigen::MatrixXf::Random(3, 16), k = Eigen::MatrixXf::Random(9, 16),
                        v = Eigen::MatrixXf::Random(9, 8);
  Eigen::MatrixXf out(5, 8), expected(3, 8);
  index const left = -1;
  auto const w = window{left < 0 ? unbounded : left, unbounded};
  auto const m = modifiers(causal{}, w);
  attention(q, k, v, out.topRows(3), m, scale{0.1f}, softcap{30.f});
  reference::attention(q, k, v, expected, causal{}, scale{0.1f}, softcap{30.f});
  CHECK((out.topRows(3) - expected).cwiseAbs().maxCoeff() < 1e-6f);

  auto const returned = attention(q, k, v, causal{});
  static_assert(std::same_as<std::remove_const_t<decltype(returned)>, tensor<float, 2>>);
  attention(q, k, v, expected, causal{});
  CHECK(returned.matrix() == expected);
  attention(q, k, v, expected);
  CHECK(attention(q, k, v).matrix() == expected);

  example<float> in({2, 4, 2, 3, 9, 16, 8}, 71);
  std::vector<std::ptrdiff_t> const vector_of_ptrdiff{9, 5}, per_batch_vector{3, 1};
  attention(in.q, in.k, in.v, in.out, lengths{vector_of_ptrdiff}, offset{3});
  attention(in.q, in.k, in.v, in.out, lengths{std::vector<std::ptrdiff_t>{9, 5}}, offset{per_batch_vector});
  generator random(72);
  auto const bool_view4 = mask_tensor<4>({2, 1, 3, 9}, random);
  auto const float_view4 = normal_tensor<float, 4>({1, 4, 1, 9}, random);
  attention(in.q, in.k, in.v, in.out, mask{bool_view4.view()}, bias{float_view4.view()});
  attention(in.q, in.k, in.v, in.out.view(), mask{bool_view4}, bias{float_view4});
  rotary const rope{frequencies::standard(16), layout::half};
  attention(in.q, in.k, in.v, in.out, causal{}, rope, log_n{512});
  tensor<float, 3> l({2, 4, 3});
  attention(in.q, in.k, in.v, in.out, causal{}, window{4095, 0}, sink_tokens{4}, lse{l});
  attention(in.q, in.k, in.v, in.out, score{[](auto s, auto site) { return s - 0.1f * heed::abs(site.distance()); }});
}

TEST_CASE("Views are spelled as the contract spells them", "[contract]") {
  std::vector<float> memory(8192);
  memory[static_cast<std::size_t>(64 * 1 + 512 * 2 + 3)] = 7;
  float const* const p = memory.data();
  std::array<std::ptrdiff_t, 4> e{1, 8, 16, 64}, s{8192, 64, 512, 1};
  view<float const, 4> a(p, e), b(p, {1, 8, 16, 64}), c(p, {1, 8, 16, 64}, {8192, 64, 512, 1}), d(p, e, s);
  std::ptrdiff_t const n = a.extent(2), t = a.stride(2);
  CHECK(n == 16);
  CHECK(t == 64);
  CHECK(b.stride(1) == 1024);
  CHECK(c(0, 1, 2, 3) == 7);
  CHECK(d(0, 1, 2, 3) == 7);
  CHECK(&a(0, 1, 2, 3) == p + 1024 + 128 + 3);
}

TEST_CASE("Rank 2 is a head, rank 3 heads, rank 4 batches of heads", "[contract][identities]") {
  for (index q_len : {5, 40}) {
    example<float> in({2, 4, 2, q_len, 33, 8, 12}, 73);
    auto const expected = in.attend(causal{});
    tensor<float, 3> three({4, q_len, 12});
    tensor<float, 2> two({q_len, 12});
    bool same = true;
    for (index b = 0; b < 2; ++b) {
      auto const batch = [&](auto const& x) {
        return view<float const, 3>(&x(b, 0, 0, 0), {x.extent(1), x.extent(2), x.extent(3)});
      };
      attention(batch(in.q), batch(in.k), batch(in.v), three, causal{});
      for_each_place({1, 4, q_len, 12},
                     [&](index, index h, index i, index c) { same = same && three(h, i, c) == expected(b, h, i, c); });
    }
    CHECK(same);
    // One head alone has another shape (no group), so its bits may differ, but not by much.
    attention(in.q.view().matrix(1, 3), in.k.matrix(1, 1), in.v.matrix(1, 1), two, causal{});
    double worst = 0;
    for_each_place({1, 1, q_len, 12}, [&](index, index, index i, index c) {
      worst = std::max(worst, std::fabs(static_cast<double>(two(i, c)) - static_cast<double>(expected(1, 3, i, c))));
    });
    double const bound = 4 * unit_roundoff<float> * (1 + largest(reference::scores(in.q, in.k))) * largest(in.v);
    INFO(worst << " of " << bound);
    CHECK(worst <= bound);
  }
}

TEST_CASE("Cut along batch or into whole key-head groups, a call keeps its bits", "[identities][contract]") {
  std::vector<float> const slopes{0.1f, 0.2f, 0.3f, 0.4f};
  for (index q_len : {1, 3, 70, 300}) {
    example<float> in({3, 4, 2, q_len, q_len == 1 ? 9000 : 300, 16, 8}, 74);
    auto const whole = in.attend(causal{}, alibi{slopes});
    auto const plain = in.attend(causal{});
    bool same = true;
    for (index b = 0; b < 3; ++b)
      for (index g = 0; g < 2; ++g) {
        auto const part = [&](auto& x, index first, index count) {
          return as_view(x).extent(1) == 0
                     ? as_view(x)
                     : decltype(as_view(x))(&x(b, first, 0, 0), {1, count, x.extent(2), x.extent(3)}, x.strides());
        };
        auto const compare = [&](tensor<float, 4> const& expected) {
          for_each_place({1, 2, q_len, 8}, [&](index, index h, index i, index c) {
            same = same && in.out(b, 2 * g + h, i, c) == expected(b, 2 * g + h, i, c);
          });
        };
        std::vector<float> const own{slopes[static_cast<std::size_t>(2 * g)],
                                     slopes[static_cast<std::size_t>(2 * g + 1)]};
        tensors<float> const t{part(std::as_const(in.q), 2 * g, 2), part(std::as_const(in.k), g, 1),
                               part(std::as_const(in.v), g, 1), part(in.out, 2 * g, 2)};
        attend(t, request(causal{}));
        compare(plain);
        attend(t, request(causal{}, alibi{own}));
        compare(whole);
      }
    CHECK(same);
  }
}

TEST_CASE("The order of modifiers, and sets of them, change no bit", "[identities][contract]") {
  generator random(75);
  auto const a = normal_tensor<float, 2>({70, 131}, random), b = normal_tensor<float, 2>({1, 131}, random);
  auto const shown = mask_tensor<2>({70, 131}, random);
  example<float> in({1, 2, 1, 70, 131, 16, 8}, 76);
  auto const slopes = alibi::standard(2);
  attention(in.q, in.k, in.v, in.out, causal{}, window{50, 0}, bias{a}, bias{b}, mask{shown}, slopes, softcap{3},
            log_n{30});
  auto const expected = in.out;
  attention(in.q, in.k, in.v, in.out, log_n{30}, softcap{3}, slopes, mask{shown}, bias{b}, bias{a}, window{50, 0},
            causal{});
  CHECK(same_bits(in.out, expected));
  auto const inner = modifiers(softcap{3}, bias{b});
  auto const set = modifiers(window{50, 0}, inner, slopes);
  attention(in.q, in.k, in.v, in.out, mask{shown}, set, log_n{30}, modifiers(bias{a}, causal{}));
  CHECK(same_bits(in.out, expected));
  test::attend(in.views(),
               request(causal{}, window{50, 0}, bias{a}, bias{b}, mask{shown}, slopes, softcap{3}, log_n{30}));
  CHECK(same_bits(in.out, expected));
  // Sums of three depend on their order: the call's must not.
  auto const c = normal_tensor<float, 2>({70, 131}, random, 1000, 10);
  bias const x{a}, y{b}, z{c};
  auto const sum = in.attend(x, y, z);
  CHECK(same_bits(in.attend(z, y, x), sum));
  CHECK(same_bits(in.attend(y, z, x), sum));
  CHECK(same_bits(in.attend(x, z, y), sum));
}

TEST_CASE("Every executor gives the same bits", "[identities][contract]") {
  for (auto const& e :
       {std::array<index, 7>{2, 4, 2, 300, 300, 16, 8}, {2, 4, 2, 2, 9000, 16, 8}, {1, 8, 1, 1, 70, 8, 8}}) {
    example<float> in(e, 77);
    for (auto const& r : {request(causal{}), request(squared_relu{visible{}}, causal{})}) {
      attend(in.views(), r);
      auto const expected = in.out;
      for (int threads : {1, 2, 3}) {
        Eigen::ThreadPool pool(threads);
        for (int repeat = 0; repeat < 5; ++repeat) {
          fill(in.out.view(), [] { return 9.0; });
          attend(in.views(), r, any_executor(thread_pool{pool}));
          CHECK(same_bits(in.out, expected));
        }
      }
#if defined(_OPENMP)
      attend(in.views(), r, any_executor(openmp{}));
      CHECK(same_bits(in.out, expected));
#endif
    }
  }
  // By type, too: variables and temporaries.
  example<float> in({1, 2, 1, 300, 300, 16, 8}, 78);
  auto const expected = in.attend(causal{});
  Eigen::ThreadPool threads(2);
  thread_pool pool{threads};
  attention(in.q, in.k, in.v, in.out, causal{}, on{pool});
  CHECK(same_bits(in.out, expected));
  attention(in.q, in.k, in.v, in.out, on{thread_pool{threads}}, causal{});
  CHECK(same_bits(in.out, expected));
}

TEST_CASE("Any strides of q, k and v: padded, by columns, backwards, heads inside", "[contract][identities]") {
  for (index q_len : {3, 70}) {
    index const kv = 50, d = 12;
    example<float> in({2, 2, 2, q_len, kv, d, d}, 79);
    auto const plain = in.attend(causal{});
    auto const check_with = [&](char const* name, auto const& layout_of) {
      INFO(name << ", q_len " << q_len);
      laid_out<float> const q = layout_of(in.q), k = layout_of(in.k), v = layout_of(in.v);
      attend({q.seen, k.seen, v.seen, in.out.view()}, request(causal{}));
      CHECK(same_bits(in.out, plain));
    };
    using T4 = tensor<float, 4>;
    check_with("row stride > dim", [](T4 const& x) {
      index const n = x.extent(2), w = x.extent(3) + 5;
      return laid_out<float>(x, {2 * n * w, n * w, w, 1}, 0, 4 * n * w);
    });
    check_with("column-major", [](T4 const& x) {
      index const n = x.extent(2), w = x.extent(3);
      return laid_out<float>(x, {2 * n * w, n * w, 1, n}, 0, 4 * n * w);
    });
    check_with("every third channel", [](T4 const& x) {
      index const n = x.extent(2), w = 3 * x.extent(3);
      return laid_out<float>(x, {2 * n * w, n * w, w, 3}, 0, 4 * n * w);
    });
    check_with("rows backwards", [](T4 const& x) {
      index const n = x.extent(2), w = x.extent(3);
      return laid_out<float>(x, {2 * n * w, n * w, -w, 1}, (n - 1) * w, 4 * n * w);
    });
    check_with("everything backwards", [](T4 const& x) {
      index const n = x.extent(2), w = x.extent(3);
      return laid_out<float>(x, {-2 * n * w, -n * w, -w, -1}, 4 * n * w - 1, 4 * n * w);
    });
    check_with("[batch, len, heads, dim]", [](T4 const& x) {
      index const n = x.extent(2), w = x.extent(3);
      return laid_out<float>(x, {2 * n * w, w, 2 * w, 1}, 0, 4 * n * w);
    });
  }
}

TEST_CASE("Zero strides broadcast an input", "[contract][identities]") {
  for (index q_len : {3, 70}) {
    example<float> in({2, 2, 2, q_len, 50, 12, 12}, 80);
    auto const repeat = [](tensor<float, 4>& x) {
      for_each_place(x.extents(), [&](index b, index h, index i, index c) { x(b, h, i, c) = x(0, 0, i, c); });
      return view<float const, 4>(x.data(), x.extents(), {0, 0, x.stride(2), 1});
    };
    auto const k = repeat(in.k), v = repeat(in.v);
    auto const expected = in.attend(causal{});
    attend({in.q.view(), k, v, in.out.view()}, request(causal{}));
    CHECK(same_bits(in.out, expected));
    // One row of values for all keys: every row is that row.
    view<float const, 4> const one(in.v.data(), in.v.extents(), {0, 0, 0, 1});
    attend({in.q.view(), k, one, in.out.view()}, request());
    double worst = 0;
    for_each_place(in.out.extents(), [&](index b, index h, index i, index c) {
      worst = std::max(worst, std::fabs(static_cast<double>(in.out(b, h, i, c) - in.v(0, 0, 0, c))));
    });
    double const bound = 4 * unit_roundoff<float> * (1 + largest(reference::scores(in.q, k))) * largest(in.v);
    INFO(worst << " of " << bound);
    CHECK(worst <= bound);
  }
}

TEST_CASE("Packed projections and [batch, len, heads, dim] are strides", "[contract][identities]") {
  generator random(81);
  auto const packed = normal_tensor<float, 3>({2, 20, (4 + 2 * 2) * 8}, random);
  auto const parts = split_packed_qkv(packed.view(), 4, 2);
  example<float> in({2, 4, 2, 20, 20, 8, 8}, 82);
  for_each_place(in.q.extents(),
                 [&](index b, index h, index i, index c) { in.q(b, h, i, c) = packed(b, i, h * 8 + c); });
  for_each_place(in.k.extents(), [&](index b, index h, index i, index c) {
    in.k(b, h, i, c) = packed(b, i, (4 + h) * 8 + c);
    in.v(b, h, i, c) = packed(b, i, (6 + h) * 8 + c);
  });
  auto const expected = in.attend(causal{});
  tensor<float, 4> out({2, 20, 4, 8});
  attention(parts.q, parts.k, parts.v, heads_first(out.view()), causal{});
  bool same = true;
  for_each_place(expected.extents(),
                 [&](index b, index h, index i, index c) { same = same && out(b, i, h, c) == expected(b, h, i, c); });
  CHECK(same);
}

TEST_CASE("Eigen objects of every kind: Map, Block, Ref, transpose, both orders", "[contract]") {
  for (index rows : {3, 40}) {
    Eigen::MatrixXf const q = Eigen::MatrixXf::Random(rows, 8), k = Eigen::MatrixXf::Random(30, 8),
                          v = Eigen::MatrixXf::Random(30, 5);
    matrix const qr = q, kr = k, vr = v;
    matrix expected(rows, 5);
    attention(qr, kr, vr, expected, causal{});
    Eigen::MatrixXf const kt = k.transpose();
    Eigen::MatrixXf wide = Eigen::MatrixXf::Random(40, 20);
    wide.block(3, 4, 30, 8) = k;
    Eigen::MatrixXf out(rows, 5);
    attention(q, kt.transpose(), v, out, causal{});
    CHECK(out == expected);
    attention(q, wide.block(3, 4, 30, 8), v, out, causal{});
    CHECK(out == expected);
    Eigen::Ref<Eigen::MatrixXf const> const ref = q;
    Eigen::MatrixXf turned(5, rows);
    attention(ref, Eigen::Map<matrix const>(kr.data(), 30, 8), v, turned.transpose(), causal{});
    CHECK(turned.transpose() == expected);
  }
}

TEST_CASE("The golden rows of the formulas, through the kernels", "[contract]") {
  golden_rows rows;
  auto const check = [&](char const* name, std::array<double, 3> const& last, double sum, auto const&... ms) {
    INFO(name);
    attend({view<double const, 4>(rows.q.data(), {1, 1, 6, 4}, {0, 0, 1, 6}),
            view<double const, 4>(rows.k.data(), {1, 1, 6, 4}, {0, 0, 1, 6}),
            view<double const, 4>(rows.v.data(), {1, 1, 6, 3}, {0, 0, 1, 6}),
            view<double, 4>(rows.out.data(), {1, 1, 6, 3}, {18, 18, 1, 6})},
           request(ms...));
    rows.check_out(last[0], last[1], last[2], sum);
  };
  std::vector<double> const ones{1};
  check("softmax causal", {0.25677934, 0.24021222, 0.07793559}, 7.3433745990, causal{});
  check("softmax full", {0.25677934, 0.24021222, 0.07793559}, 5.6978869948);
  check("log_512 n", {0.26323261, 0.35745256, 0.23484659}, 8.3263472971, causal{}, log_n{512});
  check("softmax_plus", {0.26159575, 0.33080414, 0.19935117}, 8.0678561643, causal{}, log_n_clamped{512, 16});
  check("dagger", {0.25536361, 0.14933744, -0.04727482}, 6.8252038536, causal{}, log_n_beyond{3});
  check("SSMax", {0.25589578, 0.12871728, -0.07653939}, 6.6897314684, causal{}, scalable{ones});
  check("window", {0.03408187, -0.20414386, -0.31853867}, 5.4671514432, causal{}, window{2, 0});
  check("Λ mask", {0.03015168, -0.09787979, -0.16653868}, 6.2571682264, causal{}, window{2, 0}, sink_tokens{1});
  check("RoPE interleaved", {0.30245705, 0.52669168, 0.43144220}, 8.4923906688, causal{},
        rotary{frequencies::standard(4), layout::interleaved});
  check("RoPE half", {0.20276478, 0.29234821, 0.20459714}, 8.0807554850, causal{},
        rotary{frequencies::standard(4), layout::half});
  check("relu²/(n s) full", {0.03812620, -0.01178843, -0.05455236}, 0.4337387498, squared_relu{fixed{6}});
  check("relu²/n² full", {0.02541747, -0.00785895, -0.03636824}, 0.2891591665, squared_relu{fixed{1}}, scale{1.0 / 6});
  check("relu²/(n_i s) causal", {0.03812620, -0.01178843, -0.05455236}, 0.7159823265, causal{},
        squared_relu{visible{}});
  check("l2-normalised", {0.58345890, 0.54581477, 0.17708674}, 11.1065787008, causal{}, l2_softmax{});
  std::vector<double> h(6);
  std::vector<double> const expected{0.0, 0.64873821, 1.00806024, 1.36613581, 1.53269735, 1.70866262};
  view<double, 1> const h_view(h.data(), {6});
  check("entropy", {0.25677934, 0.24021222, 0.07793559}, 7.3433745990, causal{}, entropy{h_view});
  for (std::size_t i = 0; i < 6; ++i)
    CHECK(h[i] == Approx(expected[i]).margin(0.6e-8).epsilon(0));
}

}  // namespace heed::test
