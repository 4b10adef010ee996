#include "support/catch.hpp"

#include <heed/attention/attention.hpp>
#include <heed/reference/attention.hpp>

#include "attention/call.hpp"
#include "support/compare.hpp"

// softcap, score, and modifiers of the user's own.

namespace heed::test {
namespace {

/// KERPLE, as the header of modifiers shows it.
struct kerple {
  static constexpr auto stage = score_stage::bias;
  float r1, r2;
  template <class S, class Site>
  S apply(S s, Site const& at) const {
    return s - r1 * heed::log(S(1.0f) + r2 * heed::abs(at.distance()));
  }
};

/// Two that do not commute.
struct stretched {
  static constexpr auto stage = score_stage::function;
  template <class S, class Site>
  S apply(S s, Site const& at) const {
    return s * S(2.0f) + at.distance() * 0.01f;
  }
};
struct cut_off {
  static constexpr auto stage = score_stage::function;
  template <class S, class Site>
  S apply(S s, Site const&) const {
    return heed::min(s, S(0.5f));
  }
};

/// A mask of the user's own: near keys, far keys, and the first.
struct near_and_far {
  template <class Site>
  auto visible(Site const& at) const {
    auto const far = at.distance();
    using S = std::remove_cvref_t<decltype(far)>;
    return (far < S(10.0f)) | (far > S(50.0f)) | (at.key() < S(1.0f));
  }
};

tensor<bool, 2> near_and_far_keys(index q_len, index kv_len) {
  tensor<bool, 2> m({q_len, kv_len});
  for (index i = 0; i < q_len; ++i)
    for (index j = 0; j < kv_len; ++j) {
      index const distance = kv_len - q_len + i - j;
      m(i, j) = distance < 10 || distance > 50 || j < 1;
    }
  return m;
}

template <class... Ms>
void check_spelled(example<float>& in, Ms const&... ms) {
  attention(in.q, in.k, in.v, in.out, ms...);
  tensor<double, 4> expected(in.out.extents());
  reference::attention(in.q, in.k, in.v, expected, ms...);
  auto const result = accuracy_of(in.out, expected, in.v, reference::scores(in.q, in.k, ms...));
  INFO(result.message());
  CHECK(result.within_bound());
}

}  // namespace

TEST_CASE("softcap and functors agree with the reference", "[reference][contract]") {
  for (index q_len : {70, 2}) {
    example<float> in({2, 4, 2, q_len, 131, 16, 24}, 31, 4);
    for (double cap : {0.5, 5.0, 50.0, 1e6}) {
      check_call(in, request(softcap{cap}), "softcap");
      check_call(in, request(softcap{cap}, causal{}, window{40, 0}), "softcap, causal, window");
    }
    check_call(in, request(score{bend{}}), "functor");
    check_call(in, request(score{bend{}}, causal{}, offset{3}), "functor, causal");
    check_call(in, request(score{bend{}}, softcap{2}, alibi::standard(4), causal{}), "softcap, ALiBi, functor");
  }
}

TEST_CASE("A user's own modifiers and lambdas agree with the reference", "[reference][contract]") {
  for (index q_len : {70, 2}) {
    example<float> in({2, 4, 2, q_len, 131, 16, 24}, 32);
    check_spelled(in, causal{}, kerple{0.5f, 1.0f});
    check_spelled(in, score{[](auto s, auto site) { return s - 0.1f * heed::abs(site.distance()); }}, causal{});
    check_spelled(in, near_and_far{}, causal{}, log_n{512});
  }
}

TEST_CASE("Modifiers of the user's own act in one order, whatever the order of the arguments",
          "[identities][contract]") {
  for (index q_len : {70, 2}) {
    example<float> in({1, 2, 1, q_len, 131, 16, 8}, 37);
    attention(in.q, in.k, in.v, in.out, stretched{}, cut_off{}, causal{});
    auto const expected = in.out;
    attention(in.q, in.k, in.v, in.out, causal{}, cut_off{}, stretched{});
    CHECK(same_bits(in.out, expected));
    attention(in.q, in.k, in.v, in.out, modifiers(cut_off{}, causal{}), stretched{});
    CHECK(same_bits(in.out, expected));
    // By name: cut_off, then stretched.
    attention(in.q, in.k, in.v, in.out, causal{}, score{[](auto s, auto at) {
                using S = decltype(s);
                return heed::min(s, S(0.5f)) * S(2.0f) + at.distance() * 0.01f;
              }});
    CHECK(same_bits(in.out, expected));
  }
}

TEST_CASE("A user's mask is a mask", "[identities][contract]") {
  for (index q_len : {70, 2}) {
    example<float> in({2, 4, 2, q_len, 131, 16, 24}, 33);
    auto const keys = near_and_far_keys(q_len, 131);
    in.v(0, 0, 20, 3) = std::numeric_limits<float>::quiet_NaN();
    auto const expected = in.attend(mask{keys}, causal{}, log_n{512});
    attention(in.q, in.k, in.v, in.out, near_and_far{}, causal{}, log_n{512});
    CHECK(same_bits(in.out, expected));
  }
}

TEST_CASE("A functor may use everything it is promised", "[contract]") {
  for (index q_len : {70, 2}) {
    example<float> in({1, 2, 1, q_len, 50, 8, 8}, 34);
    check_spelled(in, score{[](auto s, auto at) {
                    using S = decltype(s);
                    S const a = heed::min(heed::max(s, S(-2.0f)), S(2.0f));
                    S const b = heed::exp(-heed::abs(a)) + heed::log(S(1.0f) + a * a) + heed::tanh(a * 0.5f);
                    S const c = at.query() - at.key() - at.distance() + static_cast<float>(at.batch() + at.head());
                    return heed::select(a > S(0.0f), b, a / S(2.0f)) + c * s * 0.125f - 0.5f;
                  }});
  }
}

TEST_CASE("The functor comes last and sees the score in natural units", "[contract]") {
  // It returns what it is given only if it is q·k · scale, capped, plus the bias.
  for (index q_len : {70, 2}) {
    example<float> in({1, 1, 1, q_len, 20, 4, 4}, 35);
    fill(in.q.view(), [] { return 1.0; });
    fill(in.k.view(), [] { return 2.0; });  // q·k = 8, · 0.25 = 2, capped by 1: tanh 2, − 0.5
    std::vector<float> const slopes{0};
    tensor<float, 2> b({1, 1});
    b(0, 0) = -0.5f;
    tensor<float, 3> l({1, 1, q_len});
    attention(in.q, in.k, in.v, in.out, scale{0.25}, softcap{1}, bias{b}, alibi{slopes}, lse{l},
              score{[](auto s, auto) { return (s - 0.46402758f) * 1000.0f; }});
    for (index i = 0; i < q_len; ++i)
      CHECK(l(0, 0, i) == Approx(1000 * (std::tanh(2.0) - 0.96402758) + std::log(20.0)).margin(1e-3));
  }
}

TEST_CASE("Minus infinity from a functor weighs nothing but hides nothing", "[edges][contract]") {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  auto const without_30 = score{[](auto s, auto at) {
    using S = decltype(s);
    return heed::select(at.key() == S(30.0f), S(-std::numeric_limits<float>::infinity()), s);
  }};
  for (index q_len : {70, 2}) {
    example<float> in({1, 1, 1, q_len, 100, 8, 8}, 36);
    attention(in.q, in.k, in.v, in.out, without_30);
    auto const finite = in.out;
    attention(in.q, in.k, in.v, in.out, without_30, log_n{100});  // nor does it lower n_i
    CHECK(same_bits(in.out, finite));
    in.v(0, 0, 30, 5) = 1e30f;
    attention(in.q, in.k, in.v, in.out, without_30);
    CHECK(same_bits(in.out, finite));
    in.v(0, 0, 30, 5) = nan;
    attention(in.q, in.k, in.v, in.out, without_30);
    for (index i = 0; i < q_len; ++i)
      for (index c = 0; c < 8; ++c)
        CHECK(std::isnan(in.out(0, 0, i, c)) == (c == 5));
  }
}

}  // namespace heed::test
