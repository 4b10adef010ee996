#pragma once

#include <heed/core/operand.hpp>

#include <vector>

namespace heed {
HEED_ISA_BEGIN
namespace reference {

/// The rows of one head at a time, `[len, dim]`, element by element as numbers of the arithmetic.
template <class Scalar>
class head_rows {
 public:
  explicit head_rows(operand const& from) : from_(from) {}

  Scalar const* operator()(index batch, index head, index row) {
    if (batch != batch_ || head != head_)
      load(batch, head);
    return rows_.data() + row * from_.extents[3];
  }

 private:
  void load(index batch, index head) {
    rows_.clear();
    for (index row = 0; row < from_.extents[2]; ++row)
      for (index c = 0; c < from_.extents[3]; ++c)
        rows_.push_back(static_cast<Scalar>(from_(batch, head, row, c)));
    batch_ = batch;
    head_ = head;
  }

  operand from_;
  index batch_ = -1, head_ = -1;
  std::vector<Scalar> rows_;
};

}  // namespace reference
HEED_ISA_END
}  // namespace heed
