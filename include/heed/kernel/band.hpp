#pragma once

#include <heed/core/view.hpp>

#include <algorithm>

namespace heed {
HEED_ISA_BEGIN

/// Which keys a row sees, as far as positions tell: an interval [lo, hi) and a prefix [0, prefix). Everything that
/// causal, window, sink_tokens, lengths and offset say, in run-time numbers; all three bounds grow with the row.
struct band {
  index offset = 0;         // position of row 0
  index left = unbounded;   // position − left ≤ key
  index right = unbounded;  // key ≤ position + right; 0 under causal
  index prefix_keys = 0;    // sink tokens
  bool causal = false;
  index kv_len = 0;  // keys that exist

  index position(index row) const { return offset + row; }

  index lo(index row) const {
    index const p = position(row);
    return left == unbounded || p <= left ? 0 : p - left;
  }
  index hi(index row) const {
    index const p = position(row);
    if (right == unbounded || p > kv_len - 1 - right)
      return kv_len;
    return std::max<index>(0, p + right + 1);
  }
  index prefix(index row) const {
    index const most = std::min(prefix_keys, kv_len);
    return causal ? std::clamp<index>(position(row) + 1, 0, most) : most;
  }

  /// How many keys the row sees.
  index count(index row) const {
    index const a = lo(row), b = hi(row), p = prefix(row);
    if (b <= a)
      return p;
    return p >= a ? std::max(b, p) : (b - a) + p;
  }
  bool sees(index row, index key) const { return key >= 0 && ((key >= lo(row) && key < hi(row)) || key < prefix(row)); }
};

/// An interval of keys, empty when begin ≥ end.
struct key_range {
  index begin = 0;
  index end = 0;
  bool empty() const { return begin >= end; }
};

/// The keys in [keys.begin, keys.end) that any of the rows first…last may see, as one interval.
inline key_range hull(band const& b, index first, index last, key_range keys) {
  key_range r{std::max(keys.begin, b.lo(first)), std::min(keys.end, b.hi(last))};
  index const prefix = std::min(keys.end, b.prefix(last));
  if (prefix > keys.begin) {
    r.end = r.empty() ? prefix : std::max(r.end, prefix);
    r.begin = keys.begin;
  }
  return r;
}

/// Whether every row first…last sees every key of the range.
inline bool all_visible(band const& b, index first, index last, key_range keys) {
  if (keys.end <= b.prefix(first))
    return true;
  index const seen_below = b.prefix(first) >= b.lo(last) ? 0 : b.lo(last);
  return keys.begin >= seen_below && keys.end <= b.hi(first);
}

/// Walks the key blocks that rows first…last can see at all, in ascending order: those the prefix touches, then those
/// of the interval.
class block_walk {
 public:
  block_walk(band const& b, index first, index last, index step)
      : prefix_end_(b.prefix(last)), interval_begin_(b.lo(first) / step * step),
        end_(std::max(prefix_end_, b.hi(last) > b.lo(first) ? b.hi(last) : 0)), at_(next(0)), step_(step) {}

  bool done() const { return at_ >= end_; }
  index begin() const { return at_; }
  void advance() { at_ = next(at_ + step_); }

 private:
  index next(index at) const { return at < prefix_end_ ? at : std::max(at, interval_begin_); }

  index prefix_end_, interval_begin_, end_, at_, step_;
};

HEED_ISA_END
}  // namespace heed
