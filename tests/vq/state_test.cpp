#include "support/catch.hpp"

#include "vq/calls.hpp"

#include <vector>

namespace heed::test {
namespace {

template <class T>
view<T const, 3> token(tensor<T, 4> const& x, index row) {
  return {&x(0, 0, row, 0), {x.extent(1), 1, x.extent(3)}, {x.stride(1), x.stride(2), x.stride(3)}};
}
template <class T>
view<T, 3> token(tensor<T, 4>& x, index row) {
  return {&x(0, 0, row, 0), {x.extent(1), 1, x.extent(3)}, {x.stride(1), x.stride(2), x.stride(3)}};
}

/// One sequence, token by token, against the blocks.
template <class T, class... Ms>
void check_steps(vq_inputs<T> const& in, index recent, double tolerance, Ms const&... ms) {
  tensor<T, 4> out(in.out_extents()), stepped(in.out_extents());
  tensor<T, 3> sums({1, in.q.extent(1), in.q.extent(2)}), stepped_sums(sums.extents());
  vq_attention(in.q, in.k, in.v, out, in.book, in.block, causal{}, heed::lse{sums}, ms...);
  vq_state<T> state(in.book, in.v.extent(3), recent);
  for (index i = 0; i < in.q.extent(2); ++i) {
    view<T, 2> const row(&stepped_sums(0, 0, i), {in.q.extent(1), 1}, {stepped_sums.stride(1), 1});
    state.step(token(in.q, i), token(in.k, i), token(in.v, i), token(stepped, i), heed::lse{row}, causal{}, ms...);
    REQUIRE(state.size() == i + 1);
  }
  auto const error = difference_of(stepped, out), sum_error = difference_of(stepped_sums, sums);
  INFO("recent " << recent << ": " << error.message() << "; lse: " << sum_error.message());
  CHECK(error.absolute <= tolerance);
  CHECK(sum_error.absolute <= tolerance * 10);
}

}  // namespace

TEST_CASE("vq_state steps equal vq_attention's rows", "[identities][vq]") {
  generator random(201);
  INFO(random);
  vq_inputs<> const in({1, 4, 2, 37, 37, 6, 5, 7, 8}, random);
  std::vector<double> const per_head{0.3, -1.0, 2.0, 0.7};
  tensor<double, 2> const table = normal_tensor<double, 2>({4, 5}, random);
  rerope const code{rotary{frequencies::standard(6), layout::interleaved}, 4};
  for (index recent : {0, 1, 2, 5, 16, 40}) {
    check_steps(in, recent, 1e-13);
    check_steps(in, recent, 1e-13, log_n{9}, softcap{2}, scale{0.8});
    check_steps(in, recent, 1e-13, scalable{per_head}, sink_logits{per_head});
    check_steps(in, recent, 1e-13, log_n_beyond{4});
    if (recent < 4)
      continue;
    check_steps(in, recent, 1e-13, relative_bias{table});
    check_steps(in, recent, 1e-13, code);
    check_steps(in, recent, 1e-13, code, relative_bias{table, 1}, log_n{9});
  }
}

TEST_CASE("vq_state in float, from codes, in one go and as a copy", "[identities][vq]") {
  generator random(202);
  INFO(random);
  vq_inputs<float> const in({1, 2, 1, 50, 50, 8, 8, 9, 16}, random);
  check_steps(in, 0, 1e-5);
  check_steps(in, 7, 1e-5);

  index const half = 25;
  auto const rows = [&](auto const& x, index first, index count) {
    return view<float const, 3>(&x(0, 0, first, 0), {x.extent(1), count, x.extent(3)},
                                {x.stride(1), x.stride(2), x.stride(3)});
  };
  vq_state<float> one(in.book, 8, 3), other(in.book, 8, 3);
  for (index i = 0; i < half; ++i)
    one.append(token(in.k, i), token(in.v, i));
  other.append(view<std::int32_t const, 2>(in.codes.data(), {1, half}), rows(in.v, 0, half));
  vq_state<float> copy = one;
  tensor<float, 4> a({1, 2, 1, 8}), b({1, 2, 1, 8}), c({1, 2, 1, 8});
  for (index i = half; i < 50; ++i) {
    one.step(token(in.q, i), token(in.k, i), token(in.v, i), token(a, 0));
    other.step(token(in.q, i), view<std::int32_t const, 2>(&in.codes(0, 0, i), {1, 1}), token(in.v, i), token(b, 0));
    CHECK(same_bits(a, b));
  }
  for (index i = half; i < 50; ++i)
    copy.step(token(in.q, i), token(in.k, i), token(in.v, i), token(c, 0));
  CHECK(same_bits(a, c));
}

TEST_CASE("vq_state holds counts and means, and no more with length", "[resources][vq]") {
  generator random(203);
  INFO(random);
  vq_inputs<> const in({1, 2, 2, 300, 300, 4, 3, 6, 8}, random);
  for (index recent : {0, 10}) {
    vq_state<double> state(in.book, 3, recent);
    tensor<double, 4> out({1, 2, 1, 3});
    state.step(token(in.q, 0), token(in.k, 0), token(in.v, 0), token(out, 0));
    std::size_t const bytes = state.bytes();
    for (index i = 1; i < 300; ++i)
      state.step(token(in.q, i), token(in.k, i), token(in.v, i), token(out, 0));
    CHECK(state.bytes() == bytes);
    for (index h = 0; h < 2; ++h)
      for (index c = 0; c < 6; ++c) {
        index count = 0;
        double sum = 0;
        for (index j = 0; j < 300 - recent; ++j)
          if (in.codes(0, h, j) == c)
            ++count, sum += in.v(0, h, j, 1);
        CHECK(state.counts()(h, c) == count);
        CHECK(state.means()(h, c, 1) == Approx(count == 0 ? 0 : sum / static_cast<double>(count)).margin(1e-14));
      }
  }
}

TEST_CASE("vq_state's means do not wear out", "[edges][vq]") {
  // Sums in float would have lost the small values after some ten thousand tokens,
  // and means in float half their digits.
  index const len = 200000;
  tensor<float, 2> v({len, 1});
  generator random(205);
  INFO(random);
  double sum = 0;
  for (index j = 0; j < len; ++j)
    sum += static_cast<double>(v(j, 0) = static_cast<float>(1000 + random.uniform()));
  codebook<float> const book(tensor<float, 2>({1, 2}));
  tensor<std::int32_t, 1> const codes({len});
  vq_state<float> state(book, 1);
  state.append(codes, v);
  CHECK(state.counts()(0, 0) == len);
  CHECK(state.means()(0, 0, 0) == static_cast<float>(sum / static_cast<double>(len)));
}

TEST_CASE("vq_state refuses what does not fit, and takes nothing in then", "[errors][vq]") {
  generator random(204);
  vq_inputs<> in({1, 4, 2, 4, 4, 6, 5, 7, 8}, random);
  auto const says = [](std::string const& text) { return ContainsSubstring(text); };
  vq_state<double> state(in.book, 5, 3);
  tensor<double, 4> out(in.out_extents());
  auto const q = token(in.q, 0), k = token(in.k, 0), v = token(in.v, 0);
  rerope const code{rotary{frequencies::standard(6), layout::half}, 4};
  CHECK_THROWS_WITH(state.step(q, k, v, token(out, 0), code), says("recent must be at least 4"));
  CHECK_THROWS_WITH(state.step(q, k, k, token(out, 0)), says("vq_state: v must be [2, 1, 5]"));
  CHECK_THROWS_WITH(state.step(k, k, v, token(in.q, 1)), says("attention: out.extent(heads)"));
  CHECK_THROWS_WITH(state.append(q, v), says("k.extent(heads) must equal the codebook's 2, got 4"));
  tensor<std::int32_t, 2> codes({2, 1});
  codes(1, 0) = 7;
  CHECK_THROWS_WITH(state.step(q, codes, v, token(out, 0)), says("vq_state: codes must lie in [0, 7), got 7"));
  in.k(0, 1, 0, 3) = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(state.step(q, token(in.k, 0), v, token(out, 0)), says("vq_state: k must be finite"));
  CHECK(state.size() == 0);
  CHECK_THROWS_WITH(vq_state<double>(in.book, 0), says("dim_v must be at least 1"));
}

}  // namespace heed::test
