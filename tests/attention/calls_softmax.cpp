#include "attention/calls.hpp"

namespace heed::test {

void attend(tensors<float> const& t, request const& r, any_executor const& place) {
  if (r.rule != normalizer_rule::softmax)
    attend_other_rule(t, r, place);
  else if (r.entropy)
    attend_entropy(t, r, place);
  else
    attend_with_maps(t, r, place, softmax_of_request{});
}

}  // namespace heed::test
