#include "support/catch.hpp"

#include "attention/call.hpp"
#include "support/compare.hpp"

// softmax, squared_relu, l2_softmax, and rows that see nothing.

namespace heed::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

void check_everywhere(request const& r, std::string const& what) {
  for (index q_len : {70, 2}) {
    example<float> in({2, 4, 2, q_len, 131, 16, 24}, 41);
    check_call(in, r, what);
    example<double> wide({2, 4, 2, q_len, 131, 16, 24}, 41);
    check_call(wide, r, what + ", double");
  }
}

}  // namespace

TEST_CASE("The other normalisers agree with the reference", "[reference][contract]") {
  generator random(42);
  tensor<bool, 2> const holes = mask_tensor<2>({1, 131}, random);
  auto const with_visibility = [&](auto const& rule, std::string const& what) {
    check_everywhere(request(rule), what);
    check_everywhere(request(rule, causal{}), what + ", causal");
    check_everywhere(request(rule, causal{}, offset{-30}, scale{0.1}), what + ", causal, negative offset");
    check_everywhere(request(rule, window{9, 4}, sink_tokens{3}), what + ", window");
    check_everywhere(request(rule, mask{holes}, log_n{100}), what + ", mask, log_n");
    check_everywhere(request(rule, softcap{2}, alibi::standard(4), score{bend{}}, causal{}), what + ", all maps");
  };
  check_everywhere(request(softmax{}), "softmax by name");
  with_visibility(squared_relu{fixed{131}}, "squared_relu fixed");
  with_visibility(squared_relu{visible{}}, "squared_relu visible");
  with_visibility(squared_relu{row_sum{}}, "squared_relu row_sum");
  with_visibility(l2_softmax{}, "l2_softmax");
}

TEST_CASE("Naming softmax changes no bit", "[identities]") {
  example<float> in({1, 2, 1, 70, 131, 16, 24}, 43);
  auto const plain = in.attend(causal{});
  CHECK(same_bits(in.attend(softmax{}, causal{}), plain));
}

TEST_CASE("Divisors: fixed, visible, row_sum, and 0", "[contract]") {
  // q·k = 2 for key 0, −1 for key 1, 4 for key 2; values 1, 10, 100.
  example<double> in({1, 1, 1, 1, 3, 1, 1}, 4);
  in.q(0, 0, 0, 0) = 1;
  double const keys[] = {2, -1, 4}, values[] = {1, 10, 100};
  for (index j = 0; j < 3; ++j) {
    in.k(0, 0, j, 0) = keys[j];
    in.v(0, 0, j, 0) = values[j];
  }
  auto const result = [&](auto const&... ms) { return in.attend(scale{1}, ms...)(0, 0, 0, 0); };
  CHECK(result(squared_relu{fixed{8}}) == Approx((4 * 1 + 16 * 100) / 8.0));
  CHECK(result(squared_relu{visible{}}) == Approx((4 * 1 + 16 * 100) / 3.0));
  CHECK(result(squared_relu{row_sum{}}) == Approx((4 * 1 + 16 * 100) / 20.0));
  CHECK(result(squared_relu{fixed{1}}, scale{1.0}) == Approx(4 * 1 + 16 * 100));
  double const squares = std::exp(4.0) + std::exp(-2.0) + std::exp(8.0);
  CHECK(result(l2_softmax{}) ==
        Approx((std::exp(2.0) + 10 * std::exp(-1.0) + 100 * std::exp(4.0)) / std::sqrt(squares)));
  in.k(0, 0, 0, 0) = in.k(0, 0, 2, 0) = -1;  // every score below 0: the sum is 0
  CHECK(result(squared_relu{row_sum{}}) == 0);
  CHECK(result(squared_relu{visible{}}) == 0);
  tensor<bool, 2> const nothing({1, 3});
  CHECK(result(squared_relu{visible{}}, mask{nothing}) == 0);
}

TEST_CASE("A row that sees nothing is zero, with every normaliser and gate", "[edges][contract]") {
  std::vector<double> const sinks{1.5, 1.5, 1.5, 1.5};
  std::vector<index> const lens{0, 131};
  tensor<double, 4> u({1, 1, 1, 1});
  tensor<bool, 2> const nothing({1, 1});
  tensor<double, 2> hiding({1, 1});
  hiding(0, 0) = -infinity;
  for (double gate_of : {nan, infinity, 2.0})
    for (index q_len : {70, 2}) {
      u(0, 0, 0, 0) = gate_of;
      example<double> in({2, 4, 2, q_len, 131, 16, 24}, 44);
      for_each_place(in.v.extents(), [&](index b, index h, index j, index c) {
        if (b == 0)
          in.v(b, h, j, c) = nan;
      });
      tensor<double, 3> l({2, 4, q_len}), h({2, 4, q_len});
      auto const check_zero = [&](double expected_lse, auto const&... ms) {
        fill(in.out.view(), [] { return 7.0; });
        in.attend(ms..., gate{u});
        bool zero = true;
        for (index head = 0; head < 4; ++head)
          for (index i = 0; i < q_len; ++i) {
            for (index c = 0; c < 24; ++c)
              zero = zero && in.out(0, head, i, c) == 0;
            CHECK(l(0, head, i) == expected_lse);
            CHECK(h(0, head, i) == 0);
          }
        INFO("gate " << gate_of << ", q_len " << q_len << ", lse " << expected_lse);
        CHECK(zero);
      };
      lengths const short_one{lens};
      check_zero(-infinity, lse{l}, entropy{h}, short_one);
      check_zero(-infinity, lse{l}, entropy{h}, short_one, log_n{512}, causal{});
      check_zero(-infinity, lse{l}, entropy{h}, causal{}, offset{-q_len});
      check_zero(-infinity, lse{l}, entropy{h}, mask{nothing});
      check_zero(-infinity, lse{l}, entropy{h}, bias{hiding}, log_n{512});
      check_zero(1.5, lse{l}, entropy{h}, sink_logits{sinks}, short_one);
      check_zero(1.5, lse{l}, entropy{h}, sink_logits{sinks}, mask{nothing});
      fill(l.view(), [] { return -1.0; });
      fill(h.view(), [] { return 0.0; });
      check_zero(-1, squared_relu{row_sum{}}, short_one);
      check_zero(-1, squared_relu{visible{}}, short_one);
      check_zero(-1, squared_relu{fixed{3}}, short_one);
      check_zero(-1, l2_softmax{}, short_one);
      check_zero(-1, squared_relu{row_sum{}}, mask{nothing});
      check_zero(-1, squared_relu{visible{}}, mask{nothing});
      check_zero(-1, squared_relu{fixed{3}}, mask{nothing});
      check_zero(-1, l2_softmax{}, mask{nothing});
    }
}

TEST_CASE("Scores of minus 1e5 normalise properly", "[edges][contract]") {
  for (index q_len : {70, 2}) {
    example<double> in({1, 1, 1, q_len, 131, 4, 4}, 45);
    auto const plain = in.attend();
    tensor<double, 2> down({1, 1});
    down(0, 0) = -1e5;
    in.attend(bias{down});
    CHECK(difference_of(in.out, plain).relative < 1e-10);
  }
}

}  // namespace heed::test
