#pragma once

#include <heed/attention/modifiers.hpp>

/// Which keys a query may see. Query i stands at position p = i + offset; key j at position j.

namespace heed {
HEED_ISA_BEGIN

/// The position of query 0; query i stands at `offset + i`. Default `kv_len − q_len`: the queries are the last rows
/// (`lengths[b] − q_len` with `lengths`). `offset{0}` gives the top-left causal mask of PyTorch and ONNX. May be
/// negative; one number, or one per batch.
template <class Held = borrowed>
struct offset {
  static constexpr auto kind = family::offset;

  explicit offset(std::integral auto position) : one(static_cast<index>(position)) {}
  template <class Range>
    requires(!std::integral<std::remove_cvref_t<Range>> && !std::same_as<std::remove_cvref_t<Range>, offset>)
  explicit offset(Range&& per_batch) : many(per_batch) {}

  void describe(description& d) const {
    if (many)
      d.offsets = many;
    else
      d.offset = one;
  }

  index one = 0;
  number_list many;
};
offset(std::integral auto) -> offset<borrowed>;
template <class Range>
  requires(!std::integral<std::remove_cvref_t<Range>>)
offset(Range&&) -> offset<impl::lifetime_of<Range>>;

/// Key j is visible iff `j ≤ position(i)`.
struct causal {
  static constexpr auto kind = family::causal;
  void describe(description& d) const { d.causal = true; }
};

/// Key j is visible iff `position − left ≤ j ≤ position + right`, both ends included; each ≥ 0 or `unbounded`.
struct window {
  static constexpr auto kind = family::window;
  index left = unbounded;
  index right = unbounded;

  void describe(description& d) const {
    detail::expect(left >= 0, "attention: window.left must be at least 0 or unbounded, got ", left);
    detail::expect(right >= 0, "attention: window.right must be at least 0 or unbounded, got ", right);
    d.windowed = true;
    d.left = left;
    d.right = right;
  }
};

/// Keys `j < count` stay visible whatever the window says (the Λ mask of LM-Infinite and StreamingLLM); causal and
/// lengths still hold.
struct sink_tokens {
  static constexpr auto kind = family::sink_tokens;
  index count = 0;

  void describe(description& d) const {
    detail::expect(count >= 0, "attention: sink_tokens must be at least 0, got ", count);
    d.sink_tokens = count;
  }
};

/// Per batch, only keys `j < lengths[b]` exist, and the default offset becomes `lengths[b] − q_len`. Where q is padded
/// like k, add `offset{0}`.
template <class Held = borrowed>
struct lengths {
  static constexpr auto kind = family::lengths;

  template <class Range>
    requires(!std::same_as<std::remove_cvref_t<Range>, lengths>)
  explicit lengths(Range&& per_batch) : many(per_batch) {}

  void describe(description& d) const { d.lengths = many; }

  number_list many;
};
template <class Range>
lengths(Range&&) -> lengths<impl::lifetime_of<Range>>;

/// Packed sequences: only equal ids see each other, a negative id sees nothing. int32 `[batch, q_len]` and
/// `[batch, kv_len]`, or rank 1 for a single batch. Positions do not restart at a segment.
template <class Held = borrowed>
struct segments {
  static constexpr auto kind = family::segments;

  template <class Q, class K>
  segments(Q&& q_ids, K&& k_ids) : queries(ids(q_ids)), keys(ids(k_ids)) {}

  void describe(description& d) const {
    d.query_segments = queries;
    d.key_segments = keys;
  }

  view<std::int32_t const, 2> queries, keys;

 private:
  template <class T>
  static view<std::int32_t const, 2> ids(T& tensor) {
    if constexpr (std::ranges::contiguous_range<T> && !requires { as_view(tensor); }) {
      return {std::ranges::data(tensor), {1, static_cast<index>(std::ranges::size(tensor))}};
    } else {
      auto const v = as_view(tensor);
      static_assert(std::same_as<typename decltype(v)::value_type, std::int32_t>, "heed: segment ids are int32");
      if constexpr (decltype(v)::rank == 1)
        return {v.data(), {1, v.extent(0)}, {0, v.stride(0)}};
      else
        return v;
    }
  }
};
template <class Q, class K>
segments(Q&&, K&&)
    -> segments<std::conditional_t<std::same_as<impl::lifetime_of<Q>, temporary>, temporary, impl::lifetime_of<K>>>;

/// A boolean tensor of rank 2 to 4, `[batch, heads_q, q_len, kv_len]` aligned to the right, extents of 1 broadcast:
/// true = visible. Several in one call are AND-ed.
template <class Held = borrowed>
struct mask {
  static constexpr auto kind = family::mask;

  template <class Tensor>
    requires(!std::same_as<std::remove_cvref_t<Tensor>, mask>)
  explicit mask(Tensor&& visible_keys) : values(make_operand(as_view(visible_keys))) {
    using element = typename decltype(as_view(visible_keys))::value_type;
    static_assert(std::same_as<element, bool>, "heed: a mask holds bool, true = visible; an additive mask is a bias");
  }

  void describe(description& d) const { d.masks.push(values, "masks"); }

  operand values;
};
template <class Tensor>
mask(Tensor&&) -> mask<impl::lifetime_of<Tensor>>;

HEED_ISA_END
}  // namespace heed
