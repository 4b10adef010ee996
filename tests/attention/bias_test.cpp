#include "support/catch.hpp"

#include "attention/call.hpp"
#include "support/compare.hpp"

// bias, alibi, relative_bias.

namespace heed::test {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

void check_here(index q_len, request const& r, std::string const& what) {
  example<float> in({2, 4, 2, q_len, 131, 16, 24}, 21);
  check_call(in, r, what);
}

}  // namespace

TEST_CASE("Biases agree with the reference", "[reference][contract]") {
  generator random(22);
  for (index q_len : {70, 2}) {
    for (index_array<4> const& e : {index_array<4>{2, 4, q_len, 131}, {1, 4, 1, 131}, {2, 1, q_len, 1}, {1, 1, 1, 1}}) {
      auto b = normal_tensor<float, 4>(e, random);
      check_here(q_len, request(bias{b}), "bias");
      check_here(q_len, request(bias{b}, causal{}, log_n{512}), "bias, causal, log_n");
      if (e[3] > 1) {
        b(0, 0, 0, 5) = b(0, 0, 0, 77) = -infinity;
        check_here(q_len, request(bias{b}, window{50, 20}), "bias with −inf, window");
      }
    }
    auto const a = normal_tensor<float, 2>({q_len, 131}, random);
    auto const b = normal_tensor<double, 3>({4, 1, 131}, random);
    auto const c = normal_tensor<Eigen::half, 4>({2, 1, q_len, 131}, random);
    auto const d = normal_tensor<Eigen::bfloat16, 2>({1, 131}, random);
    check_here(q_len, request(bias{a}, bias{b}, bias{c}, bias{d}), "four biases of four types");
    // Transposed in memory.
    auto const turned = normal_tensor<float, 2>({131, q_len}, random);
    view<float const, 2> const columns(turned.data(), {q_len, 131}, {1, q_len});
    check_here(q_len, request(bias{columns}), "a bias stored by columns");
    example<double> wide({2, 4, 2, q_len, 131, 16, 24}, 21);
    check_call(wide, request(bias{a}, bias{b}), "double");
  }
}

TEST_CASE("ALiBi and relative_bias agree with the reference", "[reference][contract]") {
  std::vector<float> const slopes{0.5f, 0.25f, 0.125f, 1.f};
  generator random(23);
  auto const shared = normal_tensor<float, 1>({20}, random);
  auto const per_head = normal_tensor<float, 2>({4, 33}, random);
  for (index q_len : {70, 2}) {
    check_here(q_len, request(alibi{slopes}), "alibi");
    check_here(q_len, request(alibi{slopes}, causal{}), "alibi, causal");
    check_here(q_len, request(alibi::standard(4), causal{}, offset{1000000}), "alibi, far away");
    check_here(q_len, request(alibi::standard(4), window{9, 9}, scale{0.3}), "alibi, window");
    for (index first : {-10, 0, 3, 200, -200}) {
      check_here(q_len, request(relative_bias{shared, first}), "relative bias");
      check_here(q_len, request(relative_bias{per_head, first}, causal{}), "relative bias per head, causal");
    }
    check_here(q_len, request(relative_bias{per_head}, alibi{slopes}, softcap{3}), "both, and a softcap");
  }
}

TEST_CASE("A relative bias is the table at the clamped distance", "[contract][identities]") {
  for (index q_len : {70, 2}) {
    example<float> in({1, 2, 1, q_len, 100, 8, 8}, 24);
    generator random(25);
    auto const table = normal_tensor<float, 2>({2, 7}, random);
    tensor<float, 3> spelled({2, q_len, 100});
    for (index h = 0; h < 2; ++h)
      for (index i = 0; i < q_len; ++i)
        for (index j = 0; j < 100; ++j)
          spelled(h, i, j) = table(h, std::clamp<index>(100 - q_len + i - j + 2, 0, 6));
    auto const expected = in.attend(bias{spelled});
    CHECK(same_bits(in.attend(relative_bias{table, -2}), expected));
  }
}

TEST_CASE("A bias of minus infinity hides its key even if the score is NaN", "[edges][contract]") {
  for (index q_len : {70, 2}) {
    example<float> in({1, 2, 1, q_len, 100, 8, 8}, 26);
    tensor<float, 2> b({1, 100});
    b(0, 40) = b(0, 99) = -infinity;
    auto const expected = in.attend(bias{b});
    for (index j : {40, 99})
      for (index c = 0; c < 8; ++c)
        in.k(0, 0, j, c) = in.v(0, 0, j, c) = nan;
    CHECK(same_bits(in.attend(bias{b}), expected));
  }
}

TEST_CASE("Minus infinity in single pairs of a bias hides those pairs alone", "[edges][contract]") {
  generator random(27);
  auto b = normal_tensor<float, 2>({70, 131}, random);
  auto const hide = [&](index i, index j) { b(i, j) = -infinity; };
  for (index i = 0; i < 70; i += 3)
    for (index j : {index{7}, 33 + i % 40, index{130}})
      hide(i, j);
  for (index i = 0; i < 70; ++i)
    hide(i, 50);
  check_here(70, request(bias{b}), "single pairs");
  check_here(70, request(bias{b}, causal{}), "single pairs, causal");
  check_here(70, request(bias{b}, window{40, 3}, softcap{2}), "single pairs, window, softcap");
  for (auto normalizer : {0, 1}) {
    example<float> in({2, 4, 2, 70, 131, 16, 24}, 21);
    auto const call = [&] { return normalizer == 0 ? in.attend(bias{b}) : in.attend(bias{b}, squared_relu{fixed{9}}); };
    auto const expected = call();
    for (index c = 0; c < 24; ++c)
      in.v(0, 0, 50, c) = in.v(1, 1, 50, c) = nan;
    CHECK(same_bits(call(), expected));
  }
}

TEST_CASE("Standard ALiBi slopes are the paper's", "[contract]") {
  CHECK(alibi::standard(8)[0] == 0.5);
  CHECK(alibi::standard(8)[7] == std::exp2(-8));
  CHECK(alibi::standard(12)[8] == Approx(std::exp2(-0.5)));
  CHECK(alibi::standard(12)[11] == Approx(std::exp2(-3.5)));
}

}  // namespace heed::test
