#include "support/catch.hpp"

#include <heed/reference/attention.hpp>

#include "attention/call.hpp"
#include "support/compare.hpp"

namespace heed::test {
namespace {

/// All of a request for the reference, which listens to data and calls the functor, if there is one.
struct whole_request {
  static constexpr auto kind = family::user;
  static constexpr auto stage = score_stage::function;
  request const* of;

  void describe(description& d) const {
    of->describe(d);
    if (of->cap)
      of->cap->describe(d);
    if (of->slopes)
      of->slopes->describe(d);
  }
  template <class S, class Site>
  S apply(S s, Site const& at) const {
    return of->functor ? bend{}(s, at) : s;
  }
};

template <class Scalar, class T>
judgement judge_in(tensors<T> const& t, request const& r) {
  judgement result{tensor<double, 4>(t.out.extents()), {}};
  whole_request const all{&r};
  reference::attention<Scalar>(t.q, t.k, t.v, result.out, all);
  result.scores = reference::scores<Scalar>(t.q, t.k, all);
  return result;
}

template <class T>
void check(example<T>& in, request const& r, std::string const& what) {
  using rows = tensor<double, 3>;
  bool const softmax = r.rule == normalizer_rule::softmax;
  index_array<3> const extents{in.q.extent(0), in.q.extent(1), in.q.extent(2)};
  rows lse_got(extents), lse_expected(extents), entropy_got(extents), entropy_expected(extents);
  request got = r, expected = r;
  if (softmax) {
    got.add(lse{lse_got});
    expected.add(lse{lse_expected});
  }
  if (r.entropy) {
    got.add(entropy{entropy_got});
    expected.add(entropy{entropy_expected});
  }
  attend(in.views(), got);
  judgement const truth = judge(in.views(), expected);
  // A gate multiplies the result and its error.
  description said;
  r.describe(said);
  double magnitude = largest(in.v);
  if (said.gate)
    for_each_place(said.gate.extents, [&](index a, index b, index c, index d) {
      magnitude = std::max(magnitude, largest(in.v) * std::fabs(said.gate(a, b, c, d)));
    });
  double const scores = 1 + largest(truth.scores), epsilon = unit_roundoff<T>;
  auto const keys = static_cast<double>(in.k.extent(2));
  INFO(what << ": q " << in.q.extent(0) << "×" << in.q.extent(1) << "×" << in.q.extent(2) << "×" << in.q.extent(3)
            << ", k " << in.k.extent(1) << "×" << in.k.extent(2) << ", dim_v " << in.v.extent(3));
  if (softmax) {
    difference const d = difference_of(in.out, truth.out, std::max(magnitude, 1e-300));
    INFO(d.message() << "; bound " << 4 * epsilon * scores << ", share of it " << d.relative / (4 * epsilon * scores));
    CHECK(d.relative <= 4 * epsilon * scores);
    difference const l = difference_of(lse_got, lse_expected, 1);
    INFO("lse: " << l.message());
    // The contract bounds out; lse takes the rounding of a product of dim terms, which grows like √dim, as it is.
    double const product = std::max(1.0, std::sqrt(static_cast<double>(in.q.extent(3))) / 4);
    CHECK(l.absolute <= 4 * epsilon * (scores * product + std::log(1 + keys)));
  } else {
    // The weights are not shares of one: the error is relative to their sum.
    double const whole = std::max(largest(truth.out), magnitude);
    double const factor = r.rule == normalizer_rule::squared_relu ? scores : std::sqrt(keys + 1);
    difference const d = difference_of(in.out, truth.out, whole);
    INFO(d.message());
    CHECK(d.relative <= 4 * epsilon * scores * factor);
  }
  if (r.entropy) {
    difference const h = difference_of(entropy_got, entropy_expected, 1);
    INFO("entropy: " << h.message());
    CHECK(h.absolute <= 4 * epsilon * scores * (1 + std::log(1 + keys)));
  }
}

}  // namespace

judgement judge(tensors<float> const& t, request const& r) { return judge_in<double>(t, r); }
judgement judge(tensors<double> const& t, request const& r) { return judge_in<long double>(t, r); }

void check_call(example<float>& in, request const& r, std::string const& what) { check(in, r, what); }
void check_call(example<double>& in, request const& r, std::string const& what) { check(in, r, what); }

}  // namespace heed::test
