#include "attention/calls.hpp"

namespace heed::test {

void attend(tensors<double> const& t, request const& r, any_executor const& place) {
  if (r.rule == normalizer_rule::squared_relu)
    attend_with_all_or_none(t, r, place, squared_relu_of_request{});
  else if (r.rule == normalizer_rule::l2_softmax)
    attend_with_all_or_none(t, r, place, l2_softmax_of_request{});
  else if (r.entropy)
    attend_with_all_or_none(t, r, place, softmax_of_request{}, entropy_of_request{});
  else
    attend_with_all_or_none(t, r, place, softmax_of_request{});
}

}  // namespace heed::test
