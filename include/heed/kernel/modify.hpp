#pragma once

#include <heed/kernel/problem.hpp>
#include <heed/kernel/score_map.hpp>
#include <heed/kernel/weights.hpp>

/// The modify stage with queries in lanes: one sweep over a tile of scores that lies in the first-level cache. Fusing it
/// into the products was measured to be no faster (0.96 against 0.97) and to copy the micro-kernels per set of modifiers.

namespace heed {
HEED_ISA_BEGIN

/// What the sweep knows of its lanes, relative to the key block: bounds clamped into it, so that they are exact in
/// floating point whatever the positions are.
template <real T>
struct lane_facts {
  T* lo;  // keys of the block with lo ≤ t < hi or t < prefix are visible
  T* hi;
  T* prefix;
  T* position;  // of the lane, relative to `base`
  index* row;
  index* head;
  index base = 0;
};

/// Keys [begin, end) of a key block × a run of lane vectors: what one call of a product or sweep works on.
struct segment {
  index begin, end;
  int first, count;
};

template <real T>
struct modify_arguments {
  problem<T> const* call;
  lane_facts<T> lanes_of;
  index batch;
  index offset;         // position of row 0
  index block_begin;    // first key of the block
  T* s;                 // scores of the block, [key][lane]
  T* maximum;           // [lane]
  std::uint64_t* seen;  // [key], one bit a lane
  T* strip;             // [lanes][block_lanes]: planes, key by lane
  T* square;            // [lanes][lanes] + [lanes]
};

namespace impl {

/// The planes' numbers for one lane and a whole vector of keys, where one call loads them: a single plane in arithmetic
/// numbers or a mask, keys side by side.
template <real T>
HEED_ALWAYS_INLINE inline bool loads_at_once(problem<T> const& p, index n) {
  plane const& only = p.extra.items[0];
  if (p.extra.count != 1 || n != lanes<T> || only.values.strides[3] != 1)
    return false;
  return (only.from == plane::source::bias && only.values.kind == kind_of<T>()) || only.from == plane::source::mask;
}

/// strip[t][lane] = the planes' numbers for keys first_key + t of one lane vector.
template <real T>
HEED_NOINLINE void fill_strip(modify_arguments<T> const& a, int vector, index first_key, index n) {
  constexpr index w = lanes<T>, width = block_lanes<T>;
  batch<T> square[static_cast<std::size_t>(w)];
  index const* const row = a.lanes_of.row + vector * w;
  index const* const head = a.lanes_of.head + vector * w;
  if (loads_at_once(*a.call, n)) {
    plane const& only = a.call->extra.items[0];
    bool const mask = only.from == plane::source::mask;
    for (index i = 0; i < w; ++i) {
      std::byte const* const p = only.values.at(a.batch, head[i], row[i], first_key);
      square[i] = mask ? load_hidden<T>(p) : load(reinterpret_cast<T const*>(p));
    }
  } else {
    T* const spare = a.square + w * w;
    for (index i = 0; i < w; ++i)
      fill_planes(a.call->extra, a.batch, head[i], row[i], a.offset + row[i], first_key, n, a.square + i * w, spare);
    for (index i = 0; i < w; ++i)
      square[i] = load(a.square + i * w);
  }
  transpose<T>(square);
  for (index t = 0; t < n; ++t)
    store(a.strip + t * width + vector * w, square[t]);
}

/// One vector of scores through all stages: the heart of the sweep.
template <bool Band, bool Planes, real T, class Maps>
HEED_ALWAYS_INLINE inline batch<T> modified(Maps const& maps, batch<T> s, site<batch<T>> const& at, batch<T> plane_of,
                                            batch<T> key, batch<T> lo, batch<T> hi, batch<T> prefix,
                                            std::uint64_t& bits) {
  batch<T> const hidden(-std::numeric_limits<T>::infinity());
  s = maps.template apply<score_stage::softcap>(s, at);
  if constexpr (Planes)
    s = s + plane_of;
  s = maps.template apply<score_stage::bias>(s, at);
  s = maps.template apply<score_stage::function>(s, at);
  if constexpr (Band || Planes || Maps::hide_keys) {
    batch_mask<T> seen = key == key;
    if constexpr (Band)
      seen = ((key >= lo) & (key < hi)) | (key < prefix);
    if constexpr (Planes)
      seen = seen & not_equal<T>(plane_of, hidden);
    seen = maps.visible(seen, at);
    s = heed::select(seen, s, hidden);
    bits = mask_bits<T>(seen);
  }
  return s;
}

template <bool Band, bool Planes, real T, class Maps>
HEED_NOINLINE void modify_segment(modify_arguments<T> const& a, Maps const& maps, segment const& part) {
  constexpr index w = lanes<T>, width = block_lanes<T>;
  lane_facts<T> const& facts = a.lanes_of;
  for (index j = part.begin; j < part.end; ++j)
    a.seen[j] = 0;
  for (index begin = part.begin; begin < part.end; begin += w) {
    index const end = std::min(part.end, begin + w);
    for (int v = part.first; v < part.first + part.count; ++v) {
      index const lane = v * w;
      if constexpr (Planes)
        fill_strip(a, v, a.block_begin + begin, end - begin);
      batch<T> const lo = load(facts.lo + lane), hi = load(facts.hi + lane), prefix = load(facts.prefix + lane);
      batch<T> const position = load(facts.position + lane);
      batch<T> top = load(a.maximum + lane);
      maps.with_head(facts.head[lane], [&](auto const& here) HEED_LAMBDA_INLINE {
        for (index j = begin; j < end; ++j) {
          auto const from_base = static_cast<T>(a.block_begin + j - facts.base);
          site<batch<T>> const at(position + batch<T>(static_cast<T>(facts.base)),
                                  batch<T>(static_cast<T>(a.block_begin + j)), position - batch<T>(from_base), a.batch,
                                  facts.head[lane]);
          T* const place = a.s + j * width + lane;
          std::uint64_t bits = 0;
          batch<T> const plane_of = Planes ? load(a.strip + (j - begin) * width + lane) : lo;
          batch<T> const s = modified<Band, Planes>(here, load(place), at, plane_of, batch<T>(static_cast<T>(j)), lo,
                                                    hi, prefix, bits);
          if constexpr (Band || Planes || Maps::hide_keys)
            a.seen[j] |= bits << lane;
          top = heed::max(s, top);
          store(place, s);
        }
      });
      store(a.maximum + lane, top);
    }
  }
}

}  // namespace impl

/// Sends a segment of scores through softcap, planes, maps and masks, and takes the maxima of what comes out.
/// `mixed`: whether positions hide some of its pairs.
template <real T, class Maps>
void modify(modify_arguments<T> const& a, Maps const& maps, segment const& part, bool mixed) {
  bool const planes = a.call->additive();
  if (mixed && planes)
    impl::modify_segment<true, true>(a, maps, part);
  else if (mixed)
    impl::modify_segment<true, false>(a, maps, part);
  else if (planes)
    impl::modify_segment<false, true>(a, maps, part);
  else
    impl::modify_segment<false, false>(a, maps, part);
}

HEED_ISA_END
}  // namespace heed
