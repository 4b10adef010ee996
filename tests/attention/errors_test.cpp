#include "support/catch.hpp"

#include <heed/attention/attention.hpp>
#include <heed/position/rotary.hpp>

#include "attention/call.hpp"
#include "support/compare.hpp"

#include <sstream>

// Bad input is refused by message before anything is written.

namespace heed::test {
namespace {

/// Views to spoil, over memory that is large enough for whatever is tried.
struct inputs {
  std::vector<float> qm, km, vm, om;
  view<float const, 4> q, k, v;
  view<float, 4> out;

  inputs() : qm(4096, 1), km(4096, 1), vm(4096, 1), om(8192, 7) {
    q = view<float const, 4>(qm.data(), {2, 4, 3, 8});
    k = view<float const, 4>(km.data(), {2, 2, 5, 8});
    v = view<float const, 4>(vm.data(), {2, 2, 5, 6});
    out = view<float, 4>(om.data(), {2, 4, 3, 6});
  }

  bool untouched() const {
    return std::all_of(om.begin(), om.end(), [](float x) { return x == 7; });
  }
};

/// The message of a call that must be refused, and must not have written anything.
std::string refusal(inputs const& in, request const& r = request()) {
  try {
    attend({in.q, in.k, in.v, in.out}, r);
  } catch (argument_error const& error) {
    CHECK(in.untouched());
    std::invalid_argument const& as_standard = error;
    return as_standard.what();
  }
  return "not refused";
}

/// The same where naming the modifier is already refused, or reading it.
template <class F>
std::string refusal_of(F const& make) {
  try {
    description d;
    make().describe(d);
  } catch (argument_error const& error) {
    return error.what();
  }
  return "not refused";
}

}  // namespace

TEST_CASE("The inputs as they are spoilt below are not refused", "[errors]") {
  inputs in;
  CHECK(refusal(in) == "not refused");
  CHECK(!in.untouched());
}

TEST_CASE("Extents that do not belong together are refused by name", "[errors][contract]") {
  auto const with = [](auto const& spoil) {
    inputs in;
    spoil(in);
    return refusal(in);
  };
  auto const of = [](auto const& x, index_array<4> const& e) { return std::remove_cvref_t<decltype(x)>(x.data(), e); };
  CHECK(with([&](inputs& in) { in.k = of(in.k, {2, 2, 5, 4}); }) == "attention: k.extent(dim) must equal q's 8, got 4");
  CHECK(with([&](inputs& in) { in.k = of(in.k, {1, 2, 5, 8}); }) ==
        "attention: k.extent(batch) must equal q's 2, got 1");
  CHECK(with([&](inputs& in) { in.v = of(in.v, {3, 2, 5, 6}); }) ==
        "attention: v.extent(batch) must equal q's 2, got 3");
  CHECK(with([&](inputs& in) { in.v = of(in.v, {2, 1, 5, 6}); }) ==
        "attention: v.extent(heads) must equal k's 2, got 1");
  CHECK(with([&](inputs& in) { in.v = of(in.v, {2, 2, 4, 6}); }) == "attention: v.extent(len) must equal k's 5, got 4");
  CHECK(with([&](inputs& in) { in.q = of(in.q, {2, 3, 3, 8}); }) ==
        "attention: q.extent(heads) must be a multiple of k's 2, got 3");
  CHECK(with([&](inputs& in) {
          in.k = of(in.k, {2, 0, 5, 8});
          in.v = of(in.v, {2, 0, 5, 6});
        }) == "attention: q.extent(heads) must be a multiple of k's 0, got 4");
  CHECK(with([&](inputs& in) { in.out = of(in.out, {2, 4, 3, 5}); }) ==
        "attention: out.extent(dim) must equal v's 6, got 5");
  CHECK(with([&](inputs& in) { in.out = of(in.out, {2, 4, 2, 6}); }) ==
        "attention: out.extent(len) must equal q's 3, got 2");
  CHECK(with([&](inputs& in) { in.out = of(in.out, {2, 2, 3, 6}); }) ==
        "attention: out.extent(heads) must equal q's 4, got 2");
  CHECK(with([&](inputs& in) { in.out = of(in.out, {1, 4, 3, 6}); }) ==
        "attention: out.extent(batch) must equal q's 2, got 1");
  CHECK(with([&](inputs& in) {
          in.q = of(in.q, {2, 4, 3, 0});
          in.k = of(in.k, {2, 2, 5, 0});
        }) == "attention: q.extent(dim) must be at least 1, got 0");
  CHECK(with([&](inputs& in) {
          in.v = of(in.v, {2, 2, 5, 0});
          in.out = of(in.out, {2, 4, 3, 0});
        }) == "attention: v.extent(dim_v) must be at least 1, got 0");
  CHECK(with([&](inputs& in) { in.q = of(in.q, {2, 4, -3, 8}); }) ==
        "attention: q's extents must not be negative, got -3");
  CHECK(with([&](inputs& in) { in.k = view<float const, 4>(nullptr, {2, 2, 5, 8}); }) ==
        "attention: k.data must not be null");
  CHECK(with([&](inputs& in) { in.out = view<float, 4>(nullptr, {2, 4, 3, 6}); }) ==
        "attention: out.data must not be null");
}

TEST_CASE("Results that share memory are refused", "[errors][contract]") {
  auto const with = [](auto const& spoil) {
    inputs in;
    spoil(in);
    return refusal(in);
  };
  CHECK(with([](inputs& in) { in.out = view<float, 4>(in.om.data(), {2, 4, 3, 6}, {72, 18, 0, 1}); }) ==
        "attention: out must not have a zero stride: its elements would share memory");
  CHECK_THAT(
      with([](inputs& in) { in.out = view<float, 4>(in.om.data(), {2, 4, 3, 6}, {72, 18, 5, 1}); }),
      ContainsSubstring("attention: out must not overlap itself: stride 5 is smaller than the 6 elements below it"));
  CHECK_THAT(with([](inputs& in) { in.out = view<float, 4>(in.om.data(), {2, 4, 3, 6}, {10, 18, 6, 1}); }),
             ContainsSubstring("attention: out must not overlap itself"));
  CHECK(with([](inputs& in) { in.q = view<float const, 4>(in.om.data() + 143, {2, 4, 3, 8}); }) ==
        "attention: out must not share memory with q");
  CHECK(with([](inputs& in) { in.k = view<float const, 4>(in.om.data(), {2, 2, 5, 8}); }) ==
        "attention: out must not share memory with k");
  CHECK(with([](inputs& in) { in.v = view<float const, 4>(in.om.data(), {2, 2, 5, 6}); }) ==
        "attention: out must not share memory with v");
  CHECK(with([](inputs& in) { in.q = view<float const, 4>(in.om.data() + 144, {2, 4, 3, 8}); }) == "not refused");
  inputs in;
  auto const rows_at = [](float* p) { return view<float, 3>(p, {2, 4, 3}); };
  tensor<float, 3> rows({2, 4, 3});
  CHECK(refusal(in, request(lse{rows_at(in.om.data() + 143)})) == "attention: out must not share memory with lse");
  CHECK(refusal(in, request(entropy{rows_at(in.om.data())})) == "attention: out must not share memory with entropy");
  CHECK(refusal(in, request(lse{rows}, entropy{rows})) == "attention: lse must not share memory with entropy");
  CHECK(refusal(in, request(lse{rows_at(in.qm.data())})) == "attention: lse must not share memory with q");
  CHECK(refusal(in, request(entropy{rows_at(in.vm.data())})) == "attention: entropy must not share memory with v");
  CHECK(refusal(in, request(lse{view<float, 3>(rows.data(), {2, 4, 3}, {12, 3, 0})})) ==
        "attention: lse must not have a zero stride: its elements would share memory");
}

TEST_CASE("Modifiers of the wrong extents are refused by name", "[errors][contract]") {
  inputs in;
  std::vector<index> const one{3}, none, too_long{5, 6}, negative{-1, 5};
  std::vector<double> const two{1, 2};
  CHECK(refusal(in, request(lengths{one})) == "attention: lengths must have one number per batch, 2, got 1");
  CHECK(refusal(in, request(lengths{none})) == "attention: lengths must have one number per batch, 2, got 0");
  CHECK(refusal(in, request(lengths{too_long})) == "attention: lengths[1] must lie in [0, 5], got 6");
  CHECK(refusal(in, request(lengths{negative})) == "attention: lengths[0] must lie in [0, 5], got -1");
  CHECK(refusal(in, request(offset{one})) == "attention: offset must have one number per batch, 2, got 1");
  CHECK(refusal(in, request(offset{none})) == "attention: offset must have one number per batch, 2, got 0");
  CHECK_THAT(refusal(in, request(offset{unbounded})),
             ContainsSubstring("attention: offset must lie within ±2^60, got "));
  CHECK(refusal(in, request(scalable{two})) == "attention: scalable must have one number per query head, 4, got 2");
  CHECK(refusal(in, request(sink_logits{two})) ==
        "attention: sink_logits must have one number per query head, 4, got 2");
  CHECK(refusal(in, request(sink_logits{none})) ==
        "attention: sink_logits must have one number per query head, 4, got 0");
  CHECK(refusal(in, request(alibi{two})) == "attention: alibi must have one number per query head, 4, got 2");
  CHECK(refusal(in, request(alibi::standard(8))) == "attention: alibi::standard must be made for q's 4 heads, got 8");
  tensor<std::int32_t, 2> ids3({2, 3}), ids5({2, 5}), three({3, 3});
  CHECK(refusal(in, request(segments{three, ids5})) ==
        "attention: segments.q_ids.extent(batch) must equal q's 2, got 3");
  CHECK(refusal(in, request(segments{ids5, ids5})) == "attention: segments.q_ids.extent(len) must equal q's 3, got 5");
  CHECK(refusal(in, request(segments{ids3, ids3})) == "attention: segments.k_ids.extent(len) must equal k's 5, got 3");
  tensor<bool, 2> const m({3, 4});
  CHECK(refusal(in, request(mask{m})) == "attention: mask must have 1 or 5 columns, got 4");
  tensor<float, 3> const b({3, 3, 5});
  CHECK(refusal(in, request(bias{b})) == "attention: bias must have 1 or 4 heads, got 3");
  tensor<float, 2> const u({3, 5}), table({3, 7}), empty_table({4, 0});
  CHECK(refusal(in, request(gate{u})) == "attention: gate must have 1 or 6 columns, got 5");
  CHECK(refusal(in, request(relative_bias{table})) == "attention: relative_bias must have 1 or 4 rows, got 3");
  CHECK_THAT(refusal(in, request(relative_bias{empty_table})), ContainsSubstring("attention: relative_bias must "));
  tensor<float, 3> rows({2, 4, 2});
  CHECK(refusal(in, request(lse{rows})) == "attention: lse.extent(len) must equal q's 3, got 2");
  CHECK(refusal(in, request(entropy{rows})) == "attention: entropy.extent(len) must equal q's 3, got 2");
  rotary const wide{frequencies::standard(16), layout::half};
  CHECK(refusal(in, request(wide)) ==
        "attention: rotary's frequencies must turn 1 to 4 pairs of q's 8 channels, got 8");
  request many;
  tensor<bool, 2> const shown({1, 1});
  for (int i = 0; i < 9; ++i)
    many.add(mask{shown});
  CHECK(refusal(in, many) == "attention: at most 8 masks in one call");
}

TEST_CASE("Modifiers without memory are refused by name", "[errors][contract]") {
  inputs in;
  auto const none = view<float const, 2>(nullptr, {3, 6}), pairs = view<float const, 2>(nullptr, {3, 5});
  CHECK(refusal(in, request(gate{none})) == "attention: gate.data must not be null");
  CHECK(refusal(in, request(bias{pairs})) == "attention: bias.data must not be null");
  CHECK(refusal(in, request(mask{view<bool const, 2>(nullptr, {3, 5})})) == "attention: mask.data must not be null");
  CHECK(refusal(in, request(relative_bias{none})) == "attention: relative_bias must have 1 or 4 rows, got 3");
  CHECK(refusal(in, request(relative_bias{view<float const, 1>(nullptr, {7})})) ==
        "attention: relative_bias.data must not be null");
  view<std::int32_t const, 2> const q_ids(nullptr, {2, 3}), k_ids(nullptr, {2, 5});
  CHECK(refusal(in, request(segments{q_ids, k_ids})) == "attention: segments.q_ids.data must not be null");
  view<float, 3> const rows(nullptr, {2, 4, 3});
  CHECK(refusal(in, request(lse{rows})) == "attention: lse.data must not be null");
  CHECK(refusal(in, request(entropy{rows})) == "attention: entropy.data must not be null");
  // What has no elements has no memory either, but is no less there.
  Eigen::MatrixXf const nothing;
  Eigen::MatrixXf no_rows;
  CHECK(refusal(in, request(gate{nothing})) == "attention: gate must have 1 or 3 rows, got 0");
  CHECK(refusal(in, request(bias{nothing})) == "attention: bias must have 1 or 3 rows, got 0");
  CHECK(refusal(in, request(lse{no_rows})) == "attention: lse.extent(batch) must equal q's 2, got 1");
  CHECK(refusal(in, request(entropy{view<float, 3>{}})) == "attention: entropy.extent(batch) must equal q's 2, got 0");
}

TEST_CASE("A gate that shares memory with a result is refused, unless it is out itself", "[errors][contract]") {
  inputs in;
  auto const at = [&](index shift, index_array<4> const& extents, index_array<4> const& strides) {
    return gate{view<float const, 4>(in.om.data() + shift, extents, strides)};
  };
  std::string const refused = "attention: out must not share memory with gate";
  CHECK(refusal(in, request(at(1, {2, 4, 3, 6}, {72, 18, 6, 1}))) == refused);
  CHECK(refusal(in, request(at(143, {2, 4, 3, 6}, {72, 18, 6, 1}))) == refused);
  CHECK(refusal(in, request(at(0, {2, 4, 1, 6}, {72, 18, 18, 1}))) == refused);
  CHECK(refusal(in, request(at(0, {2, 4, 3, 6}, {72, 18, 1, 3}))) == refused);
  CHECK(refusal(in, request(gate{view<Eigen::half const, 4>(reinterpret_cast<Eigen::half const*>(in.om.data()),
                                                            {2, 4, 3, 6})})) == refused);
  std::vector<float> rows(200, 5);
  lse const l{view<float, 3>(rows.data(), {2, 4, 3})};
  CHECK(refusal(in, request(l, gate{view<float const, 2>(rows.data() + 20, {3, 6})})) ==
        "attention: lse must not share memory with gate");
  CHECK(rows == std::vector<float>(200, 5));
  CHECK(refusal(in, request(at(144, {2, 4, 3, 6}, {72, 18, 6, 1}))) == "not refused");
  inputs again;
  CHECK(refusal(again, request(gate{again.out})) == "not refused");
}

TEST_CASE("Numbers out of range are refused by name", "[errors][contract]") {
  constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(refusal_of([] { return scale{infinity}; }) == "attention: scale must be finite, got inf");
  CHECK_THAT(refusal_of([] { return scale{nan}; }), ContainsSubstring("attention: scale must be finite, got "));
  for (double base : {1.0, 0.5, -3.0}) {
    std::ostringstream text;
    text << base;
    CHECK(refusal_of([&] { return log_n{base}; }) == "attention: log_n.base must be greater than 1, got " + text.str());
    CHECK(refusal_of([&] { return log_n_clamped{base, 16}; }) ==
          "attention: log_n_clamped.base must be greater than 1, got " + text.str());
  }
  CHECK_THAT(refusal_of([] { return log_n{nan}; }), ContainsSubstring("log_n.base must be greater than 1"));
  CHECK(refusal_of([] { return log_n_clamped{512, 0}; }) ==
        "attention: log_n_clamped.minimum must be at least 1, got 0");
  CHECK(refusal_of([] { return log_n_beyond{1.5}; }) ==
        "attention: log_n_beyond.train_len must be at least 2, got 1.5");
  CHECK(refusal_of([] { return softcap{0}; }) == "attention: softcap must be positive and finite, got 0");
  CHECK(refusal_of([] { return softcap{-1}; }) == "attention: softcap must be positive and finite, got -1");
  CHECK(refusal_of([] { return softcap{infinity}; }) == "attention: softcap must be positive and finite, got inf");
  CHECK(refusal_of([] { return squared_relu{fixed{0}}; }) ==
        "attention: squared_relu's fixed divisor must be positive and finite, got 0");
  CHECK(refusal_of([] { return squared_relu{fixed{-2}}; }) ==
        "attention: squared_relu's fixed divisor must be positive and finite, got -2");
  CHECK(refusal_of([] { return window{-1, 0}; }) == "attention: window.left must be at least 0 or unbounded, got -1");
  CHECK(refusal_of([] { return window{0, -2}; }) == "attention: window.right must be at least 0 or unbounded, got -2");
  CHECK(refusal_of([] { return sink_tokens{-1}; }) == "attention: sink_tokens must be at least 0, got -1");
  CHECK(refusal_of([] { return alibi::standard(0); }) == "alibi::standard: heads must be at least 1, got 0");
  // In a call, too, and before anything is written.
  inputs in;
  CHECK(refusal(in, request(log_n{1})) == "attention: log_n.base must be greater than 1, got 1");
  CHECK(refusal(in, request(softcap{-1})) == "attention: softcap must be positive and finite, got -1");
}

TEST_CASE("A workspace that is too small is refused", "[errors][contract]") {
  example<float> in({1, 2, 1, 70, 131, 16, 8}, 71);
  fill(in.out.view(), [] { return 7.0; });
  std::size_t const bytes = workspace_bytes(in.q, in.k, in.v, causal{});
  workspace small(bytes - 1);
  std::ostringstream expected;
  expected << "attention: with's workspace must have at least " << bytes << " bytes, got " << bytes - 1;
  std::string got = "not refused";
  try {
    attention(in.q, in.k, in.v, in.out, causal{}, with{small});
  } catch (argument_error const& error) {
    got = error.what();
  }
  CHECK(got == expected.str());
  CHECK(largest(in.out) == 7);
}

}  // namespace heed::test
