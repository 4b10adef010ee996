#include "attention/calls.hpp"

namespace heed::test {

void attend_other_rule(tensors<float> const& t, request const& r, any_executor const& place) {
  r.rule == normalizer_rule::squared_relu ? attend_with_all_or_none(t, r, place, squared_relu_of_request{})
                                          : attend_with_all_or_none(t, r, place, l2_softmax_of_request{});
}

}  // namespace heed::test
