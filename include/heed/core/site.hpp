#pragma once

#include <heed/core/view.hpp>

namespace heed {

/// Where a score stands, in the type of the score: one number, or one SIMD batch of them. Which index runs along the
/// lanes is the kernel's business: a functor that uses these four never needs to know.
///
/// - `query()`, `key()`: positions; exact while they fit the scalar's mantissa (2^24 for float);
/// - `distance()`: query − key, signed, exact while the distance itself fits;
/// - `batch()`, `head()`: whole numbers, the query head's.
template <class S>
class site {
 public:
  HEED_ALWAYS_INLINE site(S query, S key, S distance, index batch, index head)
      : query_(query), key_(key), distance_(distance), batch_(batch), head_(head) {}

  HEED_ALWAYS_INLINE S query() const { return query_; }
  HEED_ALWAYS_INLINE S key() const { return key_; }
  HEED_ALWAYS_INLINE S distance() const { return distance_; }
  HEED_ALWAYS_INLINE index batch() const { return batch_; }
  HEED_ALWAYS_INLINE index head() const { return head_; }

 private:
  S query_, key_, distance_;
  index batch_, head_;
};

}  // namespace heed
