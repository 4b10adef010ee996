#pragma once

#include <heed/core/description.hpp>

#include <algorithm>

/// Where the queries stand, who sees whom, and how many.

namespace heed {
HEED_ISA_BEGIN
namespace reference {

/// The sizes of a call: q `[batch, heads_q, q_len, dim]`, k `[batch, heads_kv, kv_len, dim]`.
struct shape {
  index batch, heads_q, heads_kv, q_len, kv_len, dim;

  /// The key head that a query head reads: h0, h0, h1, h1, …
  index key_head(index head) const { return head / (heads_q / heads_kv); }
};

/// a + b, held at the ends of the range.
inline index saturating_add(index a, index b) {
  index sum = 0;
  if (__builtin_add_overflow(a, b, &sum))
    return b < 0 ? std::numeric_limits<index>::min() : unbounded;
  return sum;
}

/// Visible iff every rule that was named allows the pair. Query i stands at p = offset + i, key j at j:
///
///     lengths       j < lengths[b]
///     causal        j ≤ p
///     window        p − left ≤ j ≤ p + right, or j < sink_tokens
///     segments      q_ids[b, i] = k_ids[b, j] ≥ 0
///     mask          mask[b, h, i, j], of every mask
///
/// A bias does not belong here: it may hide a key, but never changes the count n_i.
class visibility {
 public:
  visibility(description const& said, shape const& of) : said_(said), of_(of) {
    for (operand const& m : said.masks)
      masks_.push(broadcast(m, {of.batch, of.heads_q, of.q_len, of.kv_len}, "reference", "mask"), "masks");
    if (said.lengths)
      expect_size(said.lengths, of.batch, "lengths");
    if (said.offsets)
      expect_size(said.offsets, of.batch, "offset");
    for (index b = 0; said.lengths && b < of.batch; ++b)
      detail::expect(said.lengths.whole(b) >= 0 && said.lengths.whole(b) <= of.kv_len, "reference: lengths[", b,
                     "] must be in [0, ", of.kv_len, "], got ", said.lengths.whole(b));
    if (said.query_segments)
      expect_ids(*said.query_segments, of.q_len, "segments.q_ids");
    if (said.key_segments)
      expect_ids(*said.key_segments, of.kv_len, "segments.k_ids");
  }

  /// The keys that exist in this batch.
  index key_count(index batch) const { return said_.lengths ? said_.lengths.whole(batch) : of_.kv_len; }

  /// Without an explicit offset the queries are the last rows.
  index position(index batch, index query) const {
    if (said_.offset)
      return saturating_add(*said_.offset, query);
    if (said_.offsets)
      return saturating_add(said_.offsets.whole(batch), query);
    return key_count(batch) - of_.q_len + query;
  }

  bool operator()(index batch, index head, index query, index key) const {
    index const p = position(batch, query);
    return key < key_count(batch) && (!said_.causal || key <= p) && in_window(p, key) &&
           same_segment(batch, query, key) &&
           std::all_of(masks_.begin(), masks_.end(), [&](operand const& m) { return m(batch, head, query, key) != 0; });
  }

 private:
  bool in_window(index p, index key) const {
    if (!said_.windowed || key < said_.sink_tokens)
      return true;
    return saturating_add(p, -said_.left) <= key && key <= saturating_add(p, said_.right);
  }

  bool same_segment(index batch, index query, index key) const {
    if (!said_.query_segments)
      return true;
    auto const& q = *said_.query_segments;
    auto const& k = *said_.key_segments;
    auto const q_id = q(q.extent(0) == 1 ? 0 : batch, query);
    auto const k_id = k(k.extent(0) == 1 ? 0 : batch, key);
    return q_id == k_id && q_id >= 0;
  }

  static void expect_size(number_list const& list, index size, char const* what) {
    detail::expect(list.size() == size, "reference: ", what, " must have ", size, " entries, got ", list.size());
  }
  void expect_ids(view<std::int32_t const, 2> const& ids, index length, char const* what) const {
    detail::expect(ids.extent(0) == of_.batch || ids.extent(0) == 1, "reference: ", what, " must have ", of_.batch,
                   " rows, got ", ids.extent(0));
    detail::expect(ids.extent(1) == length, "reference: ", what, " must have ", length, " columns, got ",
                   ids.extent(1));
  }

  description const& said_;
  shape of_;
  short_list<operand, 8> masks_;
};

}  // namespace reference
HEED_ISA_END
}  // namespace heed
