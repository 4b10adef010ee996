#include "support/golden.hpp"

#include <heed/attention/bias.hpp>
#include <heed/attention/mask.hpp>
#include <heed/attention/normalizer.hpp>
#include <heed/attention/outputs.hpp>
#include <heed/attention/row_scale.hpp>
#include <heed/attention/score.hpp>
#include <heed/position/rotary.hpp>
#include <heed/reference/attention.hpp>

#include <array>
#include <vector>

// Rows computed once by an independent program in double, to the digits printed (formulas, section I):
//
//     Q[i,t] = sin(0.7 i + 1.3 t + 0.1)   K[i,t] = cos(0.9 i − 0.5 t + 0.2)   V[i,t] = sin(0.3 i² + 0.8 t)
//
// n = 6, d = 4, dv = 3, scale 0.5, causal unless the name says full. A row: o_5, and the sum of all outputs.

namespace heed::test {
namespace {

struct golden {
  std::array<double, 3> last_row;
  double sum;
};

/// Position encodings that the library's own modifiers do not offer here: a description as it stands.
struct described_position {
  position_description said;
  void describe(description& d) const { d.position = said; }
};

template <class Scalar, class... Ms>
void check_in(golden const& expected, Ms const&... modifiers) {
  golden_rows rows;
  reference::attention<Scalar>(rows.q, rows.k, rows.v, rows.out, modifiers...);
  rows.check_out(expected.last_row[0], expected.last_row[1], expected.last_row[2], expected.sum);
}

template <class... Ms>
void check(char const* name, golden const& expected, Ms const&... modifiers) {
  INFO(name);
  check_in<double>(expected, modifiers...);
  check_in<long double>(expected, modifiers...);
}

}  // namespace

TEST_CASE("The reference gives the golden rows: scales", "[reference]") {
  std::vector<double> const ones{1};
  check("softmax causal", {{0.25677934, 0.24021222, 0.07793559}, 7.3433745990}, causal{});
  check("softmax full", {{0.25677934, 0.24021222, 0.07793559}, 5.6978869948});
  check("log_512 n", {{0.26323261, 0.35745256, 0.23484659}, 8.3263472971}, causal{}, log_n{512});
  check("softmax_plus", {{0.26159575, 0.33080414, 0.19935117}, 8.0678561643}, causal{}, log_n_clamped{512, 16});
  check("dagger", {{0.25536361, 0.14933744, -0.04727482}, 6.8252038536}, causal{}, log_n_beyond{3});
  check("SSMax", {{0.25589578, 0.12871728, -0.07653939}, 6.6897314684}, causal{}, scalable{ones});
}

TEST_CASE("The reference gives the golden rows: windows and ALiBi", "[reference]") {
  std::vector<double> const half{0.5};
  check("window", {{0.03408187, -0.20414386, -0.31853867}, 5.4671514432}, causal{}, window{2, 0});
  check("window alone", {{0.03408187, -0.20414386, -0.31853867}, 5.4671514432}, window{2, 0});
  check("Λ mask", {{0.03015168, -0.09787979, -0.16653868}, 6.2571682264}, causal{}, window{2, 0}, sink_tokens{1});
  golden const alibi_row{{0.18773481, 0.13127341, -0.00481667}, 5.7912221497};
  check("ALiBi", alibi_row, causal{}, alibi{half});
  check("ALiBi as a functor", alibi_row, causal{},
        score{[](auto s, auto at) { return s - decltype(s)(0.5) * heed::abs(at.distance()); }});
}

TEST_CASE("The reference gives the golden rows: normalisers", "[reference]") {
  check("relu²/(n s) full", {{0.03812620, -0.01178843, -0.05455236}, 0.4337387498}, squared_relu{fixed{6}});
  check("relu²/n² full", {{0.02541747, -0.00785895, -0.03636824}, 0.2891591665}, squared_relu{fixed{1}},
        scale{1.0 / 6});
  check("relu²/(n s) causal", {{0.03812620, -0.01178843, -0.05455236}, 0.0849702934}, causal{}, squared_relu{fixed{6}});
  check("relu²/(n_i s) causal", {{0.03812620, -0.01178843, -0.05455236}, 0.7159823265}, causal{},
        squared_relu{visible{}});
  check("l2-normalised", {{0.58345890, 0.54581477, 0.17708674}, 11.1065787008}, causal{}, l2_softmax{});
}

TEST_CASE("The reference gives the golden rows: rotary positions", "[reference]") {
  using scaling = rope_scaling;
  auto const interleaved = [](frequencies const& f) { return rotary{f, layout::interleaved}; };
  check("RoPE interleaved", {{0.30245705, 0.52669168, 0.43144220}, 8.4923906688}, causal{},
        interleaved(frequencies::standard(4)));
  check("RoPE half", {{0.20276478, 0.29234821, 0.20459714}, 8.0807554850}, causal{},
        rotary{frequencies::standard(4), layout::half});
  check("PI", {{0.19686970, 0.45697539, 0.43988595}, 8.4192924067}, causal{},
        interleaved(frequencies::linear(4, scaling{.factor = 2})));
  check("NTK-aware", {{0.30317807, 0.52890105, 0.43379976}, 8.5049061266}, causal{},
        interleaved(frequencies::ntk_aware(4, scaling{.factor = 2})));
  check("NTK-old", {{0.30288162, 0.52798968, 0.43282628}, 8.4997251256}, causal{},
        interleaved(frequencies::ntk_old(4, scaling{.factor = 2})));
  check("NTK-fixed", {{0.22239565, 0.51582142, 0.49635684}, 8.5987100847}, causal{},
        interleaved(frequencies::ntk_fixed(4, scaling{.factor = 2})));
  check("NTK-mixed", {{0.20888793, 0.50284190, 0.49177872}, 8.5717943275}, causal{},
        interleaved(frequencies::ntk_mixed(4, {.factor = 2})));
}

TEST_CASE("The reference gives the golden rows: rectified positions", "[reference]") {
  std::array const theta{1.0, 0.01};
  position_description said{position_rule::rerope, theta.data(), 2, 1, true, 2, 1, 1};
  check("ReRoPE", {{0.23981179, 0.54439716, 0.51875852}, 8.8048061830}, causal{}, described_position{said});
  said.rule = position_rule::leaky_rerope;
  said.slope_inverse = 2;
  check("Leaky ReRoPE", {{0.24763989, 0.57099272, 0.54798903}, 8.7777781532}, causal{}, described_position{said});

  golden const rope{{0.30245705, 0.52669168, 0.43144220}, 8.4923906688};
  said.slope_inverse = 1;
  check("Leaky ReRoPE, k = 1, is RoPE", rope, causal{}, described_position{said});
  said.rule = position_rule::self_extend;
  check("self_extend, group 1, is RoPE", rope, causal{}, described_position{said});
  said.group = 2;
  said.window = 6;
  check("self_extend in its window is RoPE", rope, causal{}, described_position{said});
  said.rule = position_rule::rerope;
  check("ReRoPE in its window is RoPE", rope, causal{}, described_position{said});
}

TEST_CASE("The reference's effective distances", "[reference]") {
  position_description said;
  said.window = 5;
  said.group = 3;
  said.slope_inverse = 4;
  auto const distance = [&](position_rule rule, index p, index key) {
    said.rule = rule;
    return reference::effective_distance<double>(said, p, key);
  };
  CHECK(distance(position_rule::rotary, 20, 3) == 17);
  CHECK(distance(position_rule::rerope, 7, 3) == 4);
  CHECK(distance(position_rule::rerope, 20, 3) == 5);
  CHECK(distance(position_rule::rerope, 3, 20) == -5);
  CHECK(distance(position_rule::rerope, 3, 7) == -4);
  CHECK(distance(position_rule::leaky_rerope, 8, 3) == 5);
  CHECK(distance(position_rule::leaky_rerope, 15, 3) == 5 + 7 / 4.0);
  CHECK(distance(position_rule::leaky_rerope, 3, 15) == -(5 + 7 / 4.0));
  CHECK(distance(position_rule::self_extend, 7, 3) == 4);
  CHECK(distance(position_rule::self_extend, 9, 4) == 3 - 1 + 5 - 1);   // rel = w is far
  CHECK(distance(position_rule::self_extend, 20, 3) == 6 - 1 + 5 - 1);  // ⌊20/3⌋ − ⌊3/3⌋ + 5 − ⌊5/3⌋
  CHECK(distance(position_rule::self_extend, 3, 20) == -(6 - 1 + 5 - 1));
  CHECK(distance(position_rule::self_extend, -1, 9) == -1 - 3 - 5 + 1);  // ⌊−1/3⌋ = −1
}

TEST_CASE("The reference gives the golden entropies, and ln Σ e^s", "[reference]") {
  golden_rows const in;
  Eigen::MatrixXd out(6, 3);
  std::vector<double> h(6), l(6);
  view<double, 1> const h_view(h.data(), {6}), l_view(l.data(), {6});
  reference::attention(in.q, in.k, in.v, out, causal{}, entropy{h_view}, lse{l_view});
  std::array const expected{0.0, 0.64873821, 1.00806024, 1.36613581, 1.53269735, 1.70866262};
  auto const s = reference::scores(in.q, in.k, causal{});
  for (index i = 0; i < 6; ++i) {
    auto const at = static_cast<std::size_t>(i);
    CHECK(h[at] == Approx(expected[at]).margin(0.6e-8).epsilon(0));
    double sum = 0;
    for (index j = 0; j <= i; ++j)
      sum += std::exp(0.5 * in.q.row(i).dot(in.k.row(j)));
    CHECK(l[at] == Approx(std::log(sum)).epsilon(1e-14));
    for (index j = 0; j < 6; ++j)
      if (j <= i)
        CHECK(s(0, 0, i, j) == Approx(0.5 * in.q.row(i).dot(in.k.row(j))).margin(1e-15));
      else
        CHECK(s(0, 0, i, j) == -std::numeric_limits<double>::infinity());
  }
}

TEST_CASE("Log-n scaling keeps a signal's share of the row", "[reference][identities]") {
  // One key scores c, the others 0, row scale ln n: its weight is n^c / (n^c + n − 1).
  std::vector<double> const ones{1};
  for (index n : {2, 8, 64, 512})
    for (double c : {1.0, 2.0, 0.5}) {
      Eigen::MatrixXd q = Eigen::MatrixXd::Constant(1, 1, 1), k = Eigen::MatrixXd::Zero(n, 1);
      k(n / 2, 0) = c;
      auto const w = reference::weights(q, k, scale{1}, scalable{ones});
      auto const count = static_cast<double>(n);
      CHECK(w(0, 0, 0, n / 2) == Approx(std::pow(count, c) / (std::pow(count, c) + count - 1)).epsilon(1e-13));
    }
}

TEST_CASE("The reference's standard ALiBi slopes are the paper's", "[reference]") {
  for (index h = 0; h < 8; ++h)
    CHECK(reference::standard_slope(h, 8) == std::exp2(-static_cast<double>(h + 1)));
  // 12 heads: those of 8, then every second one of 16.
  CHECK(reference::standard_slope(7, 12) == std::exp2(-8));
  CHECK(reference::standard_slope(8, 12) == Approx(std::exp2(-0.5)));
  CHECK(reference::standard_slope(11, 12) == Approx(std::exp2(-3.5)));
  CHECK(reference::standard_slope(0, 1) == std::exp2(-8));
  CHECK(reference::standard_slope(2, 3) == Approx(std::exp2(-2)));
  for (index heads : {1, 3, 7, 12, 25})
    for (index h = 0; h < heads; ++h)
      CHECK(alibi::standard(heads)[h] == Approx(reference::standard_slope(h, heads)).epsilon(1e-15));
}

}  // namespace heed::test
