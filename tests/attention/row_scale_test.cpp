#include "support/catch.hpp"

#include "attention/call.hpp"
#include "support/compare.hpp"

// scale, log_n, log_n_clamped, log_n_beyond, scalable.

namespace heed::test {
namespace {

void check_everywhere(request const& r, std::string const& what) {
  for (index q_len : {70, 2}) {
    example<float> in({2, 4, 2, q_len, 131, 16, 24}, 11);
    check_call(in, r, what);
    example<double> wide({2, 4, 2, q_len, 131, 16, 24}, 11);
    check_call(wide, r, what + ", double");
  }
}

}  // namespace

TEST_CASE("Scales and row scales agree with the reference", "[reference][contract]") {
  std::vector<double> const per_head{0.3, -0.2, 0.05, 1};
  std::vector<index> const lens{90, 131};
  generator random(3);
  tensor<bool, 2> const holes = mask_tensor<2>({1, 131}, random);
  tensor<float, 2> hiding({1, 131});
  hiding(0, 3) = hiding(0, 100) = -std::numeric_limits<float>::infinity();
  for (double s : {1.0, -0.5, 0.0, 1e-3})
    check_everywhere(request(scale{s}), "scale");
  auto const with_visibility = [&](auto const& row_scale, std::string const& what) {
    check_everywhere(request(row_scale), what);
    check_everywhere(request(row_scale, causal{}), what + ", causal");
    check_everywhere(request(row_scale, causal{}, offset{-40}), what + ", causal, negative offset");
    check_everywhere(request(row_scale, window{5, 2}, sink_tokens{2}), what + ", window, sinks");
    check_everywhere(request(row_scale, causal{}, lengths{lens}, scale{0.2}), what + ", causal, lengths, scale");
    check_everywhere(request(row_scale, causal{}, mask{holes}), what + ", causal, mask");
    check_everywhere(request(row_scale, causal{}, bias{hiding}), what + ", causal, hiding bias");
  };
  with_visibility(log_n{512}, "log_n");
  with_visibility(log_n_clamped{512, 16}, "log_n_clamped");
  with_visibility(log_n_beyond{50}, "log_n_beyond");
  with_visibility(scalable{per_head}, "scalable");
}

TEST_CASE("A row scale at its base changes no bit", "[identities][contract]") {
  for (index q_len : {70, 2}) {
    example<float> in({1, 2, 2, q_len, 131, 16, 8}, 12);
    auto const plain = in.attend(), triangle = in.attend(causal{});
    CHECK(same_bits(in.attend(log_n{131}), plain));
    CHECK(same_bits(in.attend(log_n_clamped{131, 16}), plain));
    CHECK(same_bits(in.attend(log_n_clamped{200, 200}), plain));
    CHECK(same_bits(in.attend(log_n_beyond{131}, causal{}), triangle));
    CHECK(same_bits(in.attend(log_n_beyond{4096}, causal{}), triangle));
    CHECK(!same_bits(in.attend(log_n{130}), plain));
    CHECK(!same_bits(in.attend(log_n_beyond{130}, causal{}), triangle));
    CHECK(same_bits(in.attend(scale{0.25}), plain));  // 1/√16
    // n_i is lowered by masks, not by biases: 100 keys are left of 131 under both.
    tensor<bool, 2> shown({1, 131});
    tensor<float, 2> hidden({1, 131});
    for (index j = 0; j < 131; ++j) {
      shown(0, j) = j < 100;
      hidden(0, j) = j < 100 ? 0 : -std::numeric_limits<float>::infinity();
    }
    auto const of_mask = in.attend(mask{shown}), of_bias = in.attend(bias{hidden});
    CHECK(same_bits(in.attend(mask{shown}, log_n{100}), of_mask));
    CHECK(same_bits(in.attend(bias{hidden}, log_n{131}), of_bias));
    CHECK(!same_bits(in.attend(bias{hidden}, log_n{100}), of_bias));
    // Nor does a sink logit count.
    std::vector<double> const sinks{0.5, -1};
    auto const of_sinks = in.attend(sink_logits{sinks});
    CHECK(same_bits(in.attend(sink_logits{sinks}, log_n{131}), of_sinks));
  }
}

TEST_CASE("Row scales do not multiply biases, and one visible key has weight 1", "[contract]") {
  for (index q_len : {40, 2}) {
    example<double> in({1, 1, 1, q_len, 40, 4, 3}, 13);
    fill(in.k.view(), [] { return 0.0; });  // scores are the bias alone
    generator random(14);
    auto const added = normal_tensor<double, 2>({q_len, 40}, random);
    auto const plain = in.attend(bias{added});
    CHECK(same_bits(in.attend(bias{added}, log_n{3}), plain));
    CHECK(same_bits(in.attend(bias{added}, scale{7}), plain));
    in.attend(causal{}, offset{0}, log_n{512});
    for (index c = 0; c < 3; ++c)
      CHECK(in.out(0, 0, 0, c) == in.v(0, 0, 0, c));
  }
}

TEST_CASE("With one visible key log-n is 0: the score is 0, the weight 1", "[contract][edges]") {
  std::vector<double> const ones{1};
  for (index q_len : {40, 2}) {
    example<double> in({1, 1, 1, q_len, 40, 4, 3}, 15);
    tensor<double, 3> l({1, 1, q_len});
    auto const check = [&](auto const& row_scale) {
      in.attend(causal{}, offset{0}, row_scale, lse{l});
      CHECK(l(0, 0, 0) == 0);
      CHECK(l(0, 0, 1) != 0);
      for (index c = 0; c < 3; ++c)
        CHECK(in.out(0, 0, 0, c) == in.v(0, 0, 0, c));
    };
    check(log_n{512});
    check(log_n_clamped{512, 1});
    check(scalable{ones});
  }
}

}  // namespace heed::test
