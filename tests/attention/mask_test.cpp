#include "support/catch.hpp"

#include <heed/position/rotary.hpp>

#include "attention/call.hpp"
#include "support/compare.hpp"

#include <numeric>

// causal, window, sink_tokens, lengths, offset, segments, mask: who sees whom, in both drivers.

namespace heed::test {
namespace {

/// A long shape (queries in lanes, several blocks of queries and keys), and a short one (few rows).
void check_lanes(request const& r, std::string const& what) {
  example<float> in({2, 4, 2, 70, 131, 16, 24}, 1);
  check_call(in, r, what + ", queries in lanes");
}
void check_few(request const& r, std::string const& what) {
  example<float> in({2, 4, 2, 3, 131, 16, 24}, 2);
  check_call(in, r, what + ", few rows");
  example<double> wide({2, 4, 2, 3, 131, 8, 8}, 2);
  check_call(wide, r, what + ", few rows, double");
}
void check_everywhere(request const& r, std::string const& what) {
  check_lanes(r, what);
  check_few(r, what);
}
/// The same, small: for what neither batch nor head can change.
void check_band(request const& r, std::string const& what) {
  for (index q_len : {70, 3}) {
    example<float> in({1, 2, 1, q_len, 131, 8, 8}, 3);
    check_call(in, r, what);
  }
  example<double> wide({1, 1, 1, 20, 131, 4, 4}, 3);
  check_call(wide, r, what + ", double");
}

}  // namespace

TEST_CASE("causal, offset and lengths agree with the reference", "[reference][contract]") {
  check_everywhere(request(), "plain");
  check_everywhere(request(causal{}), "causal");
  for (index p : {-140, -71, -70, -35, -1, 0, 1, 60, 61, 62, 130, 131, 500})
    check_everywhere(request(causal{}, offset{p}), "causal, offset " + std::to_string(p));
  std::vector<index> const lens{131, 40}, none{0, 97};
  check_everywhere(request(lengths{lens}), "lengths");
  check_everywhere(request(causal{}, lengths{lens}), "causal, lengths");
  check_everywhere(request(causal{}, lengths{none}), "causal, lengths with a 0");
  check_everywhere(request(causal{}, lengths{lens}, offset{0}), "causal, lengths, offset 0");
  example<double> wide({2, 4, 2, 35, 131, 16, 24}, 1);
  check_call(wide, request(causal{}, lengths{none}), "queries in lanes, double");
  std::vector<int> const starts{-5, 33};
  check_everywhere(request(causal{}, offset{starts}), "offset per batch");
  check_everywhere(request(causal{}, lengths{none}, offset{starts}), "offset and lengths per batch");
}

TEST_CASE("window and sink_tokens agree with the reference", "[reference][contract]") {
  for (index left : {index{0}, index{1}, index{16}, index{40}, index{96}, unbounded - 1, unbounded})
    for (index right : {index{0}, index{7}, unbounded}) {
      check_band(request(window{left, right}), "window");
      check_band(request(causal{}, window{left, right}, sink_tokens{4}), "causal, window, sinks");
    }
  for (index sinks : {0, 5, 64, 131})
    for (index p : {-100, -20, 61, 200}) {
      std::string const what = "sinks " + std::to_string(sinks) + ", offset " + std::to_string(p);
      check_band(request(window{9, 3}, sink_tokens{sinks}, offset{p}), "window, " + what);
      check_band(request(causal{}, window{9, 0}, sink_tokens{sinks}, offset{p}), "causal, window, " + what);
      check_band(request(sink_tokens{sinks}, offset{p}), "no window, " + what);
    }
}

TEST_CASE("segments and masks agree with the reference", "[reference][contract]") {
  generator random(5);
  for (index q_len : {70, 3}) {
    tensor<std::int32_t, 2> q_ids({2, q_len}), k_ids({2, 131});
    fill(q_ids.view(), [&] { return static_cast<double>(random.whole(-1, 2)); });
    fill(k_ids.view(), [&] { return static_cast<double>(random.whole(-1, 2)); });
    auto const check_here = [&](request const& r, std::string const& what) {
      q_len == 70 ? check_lanes(r, what) : check_few(r, what);
    };
    check_here(request(segments{q_ids, k_ids}), "segments");
    check_here(request(segments{q_ids, k_ids}, causal{}), "segments, causal");
    for (index_array<4> const& e :
         {index_array<4>{2, 4, q_len, 131}, {1, 1, q_len, 131}, {2, 1, 1, 131}, {1, 4, q_len, 1}, {1, 1, 1, 1}}) {
      auto const m = mask_tensor<4>(e, random);
      check_here(request(mask{m}), "mask");
      check_here(request(mask{m}, causal{}, window{20, 0}), "mask, causal, window");
    }
    auto const a = mask_tensor<2>({q_len, 131}, random, 0.8);
    auto const b = mask_tensor<3>({4, 1, 131}, random, 0.8);
    check_here(request(mask{a}, mask{b}), "two masks");
    check_here(request(mask{a}, segments{q_ids, k_ids}, mask{b}, causal{}), "everything that hides");
  }
}

TEST_CASE("A window as wide as the keys is no window, and causal is a window", "[identities][contract]") {
  for (index q_len : {70, 3}) {
    example<float> in({2, 4, 2, q_len, 131, 16, 24}, 3);
    auto const full = in.attend(), triangle = in.attend(causal{});
    CHECK(same_bits(in.attend(window{131, 131}), full));
    CHECK(same_bits(in.attend(window{}), full));
    CHECK(same_bits(in.attend(window{unbounded - 1, unbounded - 1}), full));
    CHECK(same_bits(in.attend(sink_tokens{7}), full));
    CHECK(same_bits(in.attend(offset{131 - q_len}), full));
    CHECK(same_bits(in.attend(window{unbounded, 0}), triangle));
    CHECK(same_bits(in.attend(causal{}, window{unbounded, unbounded}), triangle));
    CHECK(same_bits(in.attend(causal{}, window{131, 0}), triangle));
    CHECK(same_bits(in.attend(causal{}, offset{131 - q_len}), triangle));
    CHECK(same_bits(in.attend(causal{}, window{3, 0}, sink_tokens{131}), triangle));
    CHECK(!same_bits(in.attend(causal{}, window{3, 0}), triangle));
    CHECK(!same_bits(in.attend(causal{}, offset{0}), triangle));
  }
}

TEST_CASE("Both ends of a window are inclusive, and a sink token counts once", "[contract]") {
  // Scores are 0, values are the powers of two: a row tells which keys it saw.
  example<double> in({1, 1, 1, 12, 12, 1, 1}, 4);
  fill(in.k.view(), [] { return 0.0; });
  double power = 1;
  fill(in.v.view(), [&] { return std::exchange(power, 2 * power); });
  auto const seen = [&](index row, index keys) { return in.out(0, 0, row, 0) * static_cast<double>(keys); };
  in.attend(window{2, 1}, offset{0});
  CHECK(seen(5, 4) == Approx(8 + 16 + 32 + 64));
  CHECK(seen(0, 2) == Approx(1 + 2));
  CHECK(seen(11, 3) == Approx(512 + 1024 + 2048));
  in.attend(causal{}, window{2, 0}, sink_tokens{4}, offset{0});
  CHECK(seen(5, 6) == Approx(1 + 2 + 4 + 8 + 16 + 32));  // key 3 is a sink and in the window
  CHECK(seen(9, 7) == Approx(1 + 2 + 4 + 8 + 128 + 256 + 512));
  CHECK(seen(1, 2) == Approx(1 + 2));  // causal holds for sinks
}

TEST_CASE("A mask is true where the key is visible", "[contract]") {
  example<double> in({1, 1, 1, 1, 3, 1, 1}, 4);
  fill(in.k.view(), [] { return 0.0; });
  in.v(0, 0, 0, 0) = 1, in.v(0, 0, 1, 0) = 10, in.v(0, 0, 2, 0) = 100;
  tensor<bool, 2> m({1, 3});
  m(0, 0) = m(0, 2) = true;
  CHECK(in.attend(mask{m})(0, 0, 0, 0) == Approx(50.5));
  tensor<bool, 2> other({1, 3});
  other(0, 1) = other(0, 2) = true;
  CHECK(in.attend(mask{m}, mask{other})(0, 0, 0, 0) == 100);
}

TEST_CASE("The default offset makes the queries the last rows, of each batch's own length", "[contract]") {
  example<double> in({2, 1, 1, 2, 8, 1, 1}, 4);
  fill(in.k.view(), [] { return 0.0; });
  for_each_place(in.v.extents(),
                 [&](index b, index h, index j, index c) { in.v(b, h, j, c) = static_cast<double>(j); });
  in.attend(causal{});
  CHECK(in.out(0, 0, 0, 0) == Approx(3));    // keys 0…6
  CHECK(in.out(0, 0, 1, 0) == Approx(3.5));  // keys 0…7
  std::vector<index> const lens{8, 5};
  in.attend(causal{}, lengths{lens});
  CHECK(in.out(0, 0, 0, 0) == Approx(3));
  CHECK(in.out(1, 0, 0, 0) == Approx(1.5));  // keys 0…3
  in.attend(causal{}, lengths{lens}, offset{0});
  CHECK(in.out(1, 0, 1, 0) == Approx(0.5));  // keys 0, 1
  in.attend(causal{}, offset{-1});
  CHECK(in.out(0, 0, 0, 0) == 0);  // sees nothing
  CHECK(in.out(0, 0, 1, 0) == 0);  // sees key 0, whose value is 0
}

TEST_CASE("Segments see only equal ids that are not negative", "[contract]") {
  example<double> in({1, 1, 1, 3, 4, 1, 1}, 4);
  fill(in.k.view(), [] { return 0.0; });
  for (index j = 0; j < 4; ++j)
    in.v(0, 0, j, 0) = std::exp2(j);
  std::vector<std::int32_t> const q_ids{0, 1, -1}, k_ids{0, 1, 1, -1};
  in.attend(segments{q_ids, k_ids});
  CHECK(in.out(0, 0, 0, 0) == 1);
  CHECK(in.out(0, 0, 1, 0) == Approx(3));
  CHECK(in.out(0, 0, 2, 0) == 0);
}

TEST_CASE("Positions do not restart at a segment", "[contract][identities]") {
  rotary const rope{frequencies::standard(16), layout::half};
  for (index q_len : {70, 3}) {
    example<float> in({1, 2, 1, q_len, 131, 16, 8}, 6);
    tensor<std::int32_t, 2> q_ids({1, q_len}), k_ids({1, 131});
    tensor<bool, 2> same({q_len, 131});
    for (index j = 0; j < 131; ++j)
      k_ids(0, j) = static_cast<std::int32_t>(j / 50);
    for (index i = 0; i < q_len; ++i) {
      q_ids(0, i) = static_cast<std::int32_t>((131 - q_len + i) / 50);
      for (index j = 0; j < 131; ++j)
        same(i, j) = q_ids(0, i) == k_ids(0, j);
    }
    request const others(causal{}, rope, log_n_beyond{20}, alibi::standard(2));
    auto masked = others, cut = others;
    attend(in.views(), masked.add(mask{same}));
    auto const expected = in.out;
    attend(in.views(), cut.add(segments{q_ids, k_ids}));
    CHECK(same_bits(in.out, expected));
  }
}

}  // namespace heed::test
