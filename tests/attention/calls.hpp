#pragma once

#include <heed/attention/attention.hpp>

#include "attention/call.hpp"

/// What turns a request back into types: included by calls_*.cpp alone.

namespace heed::test {

/// The data of a request, as one modifier; what the types must tell stands beside it.
struct told {
  static constexpr auto kind = family::user;
  request const* of;
  void describe(description& d) const { of->describe(d); }
};
template <normalizer_rule Rule>
struct rule_of_request {
  static constexpr auto kind = family::normalizer;
  static constexpr auto rule = Rule;
};
struct entropy_of_request {
  static constexpr auto kind = family::entropy;
};

template <class T, class... Ms>
void attend_with(tensors<T> const& t, request const& r, any_executor const& place, Ms const&... ms) {
  heed::attention(t.q, t.k, t.v, t.out, told{&r}, on{place}, ms...);
}

/// Calls with the score maps that the request has, all eight sets of them.
template <class T, class... Ms>
void attend_with_maps(tensors<T> const& t, request const& r, any_executor const& place, Ms const&... ms) {
  auto const with_functor = [&](auto const&... more) {
    r.functor ? attend_with(t, r, place, score{bend{}}, more...) : attend_with(t, r, place, more...);
  };
  auto const with_slopes = [&](auto const&... more) {
    r.slopes ? with_functor(*r.slopes, more...) : with_functor(more...);
  };
  r.cap ? with_slopes(*r.cap, ms...) : with_slopes(ms...);
}

/// Calls with all three maps or none: for where a few instantiations must do.
template <class T, class... Ms>
void attend_with_all_or_none(tensors<T> const& t, request const& r, any_executor const& place, Ms const&... ms) {
  bool const all = r.cap && r.slopes && r.functor;
  detail::expect(all || (!r.cap && !r.slopes && !r.functor), "no such call is compiled: all maps or none");
  all ? attend_with(t, r, place, *r.cap, *r.slopes, score{bend{}}, ms...) : attend_with(t, r, place, ms...);
}

using softmax_of_request = rule_of_request<normalizer_rule::softmax>;
using squared_relu_of_request = rule_of_request<normalizer_rule::squared_relu>;
using l2_softmax_of_request = rule_of_request<normalizer_rule::l2_softmax>;

void attend_entropy(tensors<float> const&, request const&, any_executor const&);
void attend_other_rule(tensors<float> const&, request const&, any_executor const&);

}  // namespace heed::test
