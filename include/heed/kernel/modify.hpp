#pragma once

#include <heed/core/transpose.hpp>
#include <heed/kernel/problem.hpp>
#include <heed/kernel/score_map.hpp>
#include <heed/kernel/weights.hpp>

/// The modify stage with queries in lanes: one sweep over a tile of scores that lies in the first-level cache. Fusing
/// it into the products was measured to be no faster (0.96 against 0.97)
/// and to copy the micro-kernels per set of modifiers.

namespace heed {
HEED_ISA_BEGIN

/// Keys [begin, end) of a key block × a run of lane vectors: what one call of a product works on.
struct segment {
  index begin, end;
  int first, count;
  unsigned mixed = 0;  // bit v: positions hide some of its pairs from lane vector v

  bool is_mixed(int vector) const { return (mixed >> vector & 1U) != 0; }

  /// Its lanes, one bit each.
  std::uint64_t lane_bits(int lanes_of_vector) const {
    return ~std::uint64_t{0} >> (64 - count * lanes_of_vector) << (first * lanes_of_vector);
  }
};

/// Where the positions of a block of rows lie against a key block: numbers for its first row, counted from the first
/// key. A lane that is `step` rows behind adds that, and sees keys lo ≤ t < hi, and t < prefix where `most_prefix`
/// allows. Clamped far outside of the block, so that all of it is exact in floating point.
template <real T>
struct lane_bounds {
  T position, lo, hi, prefix, most_prefix;

  lane_bounds(band const& b, index first_row, index block_begin) {
    index const at = b.position(first_row) - block_begin;
    position = static_cast<T>(at);
    lo = clamped(at - std::min(b.left, endless));
    hi = clamped(at + std::min(b.right, endless) + 1);
    prefix = b.causal ? clamped(at + 1) : far;
    most_prefix = clamped(std::min(b.prefix_keys, b.kv_len) - block_begin);
  }

 private:
  static constexpr T far = T(1 << 20);
  static constexpr index endless = index{1} << 61;

  static T clamped(index key) { return static_cast<T>(std::clamp<index>(key, -(1 << 20), 1 << 20)); }
};

template <real T>
struct modify_arguments {
  problem<T> const* call;
  lane_bounds<T> bounds;
  T const* step;      // [lane] rows behind the block's first
  index const* row;   // [lane]
  index const* head;  // [lane]
  index batch;
  index offset;         // position of row 0
  index block_begin;    // first key of the block
  T* s;                 // scores of the block, [key][lane]
  T* maximum;           // [lane]
  std::uint64_t* seen;  // [key], one bit a lane; null where nobody asks
  T* strip;             // [lanes][lanes]: planes, key by lane
  T* square;            // [lanes][lanes] + [lanes]
};

namespace impl {

/// 0, 1, 2, …: the keys of a block. Loading one to all lanes costs less than converting it.
template <real T>
inline constexpr auto key_numbers = [] {
  std::array<T, static_cast<std::size_t>(most_keys)> n{};
  for (std::size_t i = 0; i < n.size(); ++i)
    n[i] = static_cast<T>(i);
  return n;
}();

/// The planes' numbers for the rows of one lane vector, brought into lanes square by square.
template <real T>
class plane_rows {
 public:
  static constexpr index w = lanes<T>;
  using square = batch<T>[static_cast<std::size_t>(w)];

  plane_rows(modify_arguments<T> const& a, int vector) : a_(a), first_(vector * w) {
    plane const& only = a.call->extra.items[0];
    bool const values = only.from == plane::source::bias && only.values.kind == kind_of<T>();
    mask_ = only.from == plane::source::mask;
    at_once_ = a.call->extra.count == 1 && only.values.strides[3] == 1 && (values || mask_);
    if (at_once_)
      for (index i = 0; i < w; ++i)
        rows_[i] = only.values.at(a.batch, a.head[first_ + i], a.row[first_ + i], a.block_begin);
  }

  /// numbers[t][lane] for n ≤ lanes keys from `first_key` of the block on; returns whether any is −inf.
  HEED_ALWAYS_INLINE bool read(index first_key, index n, square& numbers) const {
    if (!at_once_ || n != w) {
      fill_square(first_key, n);
      load_transposed<T>([&](index i) HEED_LAMBDA_INLINE { return a_.square + i * w; }, numbers);
    } else if (mask_) {
      unroll<w>([&](int i) HEED_LAMBDA_INLINE { numbers[i] = load_hidden<T>(rows_[i] + first_key); });
      transpose<T>(numbers);
    } else {
      load_transposed<T>([&](index i) HEED_LAMBDA_INLINE { return reinterpret_cast<T const*>(rows_[i]) + first_key; },
                         numbers);
    }
    batch<T> least(T(0));
    unroll<w>([&](int t) HEED_LAMBDA_INLINE { least = heed::min(numbers[t], least); });
    return heed::any<T>(least == batch<T>(-std::numeric_limits<T>::infinity()));
  }

  /// The same into the strip, [key][lane].
  HEED_NOINLINE bool fill(index first_key, index n) const {
    square numbers;
    bool const hides = read(first_key, n, numbers);
    unroll<w>([&](int t) HEED_LAMBDA_INLINE { store(a_.strip + t * w, numbers[t]); });
    return hides;
  }

 private:
  HEED_NOINLINE void fill_square(index first_key, index n) const {
    std::fill_n(a_.square, w * w, T(0));
    for (index i = 0; i < w; ++i)
      fill_planes(a_.call->extra, a_.batch, a_.head[first_ + i], a_.row[first_ + i], a_.offset + a_.row[first_ + i],
                  a_.block_begin + first_key, n, a_.square + i * w, a_.square + w * w);
  }

  modify_arguments<T> const& a_;
  index first_;
  bool mask_, at_once_;
  std::byte const* rows_[static_cast<std::size_t>(w)];
};

/// Adds planes to the scores of a part and one lane vector, where no map comes before or after; returns whether they
/// hide any pair. The scores go through registers once, with their square of numbers.
/// @param maximum [lane] takes the greatest sums, or null
template <real T>
HEED_NOINLINE bool add_planes(modify_arguments<T> const& a, segment const& part, int vector, T* maximum) {
  constexpr index w = lanes<T>, width = block_lanes<T>;
  constexpr std::uint64_t every_lane = ~std::uint64_t{0} >> (64 - w);
  batch<T> const hidden(-std::numeric_limits<T>::infinity());
  index const lane = vector * w;
  plane_rows<T> const rows(a, vector);
  bool any_hidden = false;
  batch<T> top = maximum ? load(maximum + lane) : hidden, other = top;
  for (index begin = part.begin; begin < part.end; begin += w) {
    index const n = std::min(part.end - begin, w);
    T* const s = a.s + begin * width + lane;
    batch<T> numbers[static_cast<std::size_t>(w)];
    bool const hides = rows.read(begin, n, numbers);
    if (!hides && n == w) {
      unroll<w>([&](int t) HEED_LAMBDA_INLINE {
        batch<T> const score = load(s + t * width) + numbers[t];
        store(s + t * width, score);
        top = heed::max(score, std::exchange(other, top));
      });
      continue;
    }
    any_hidden = any_hidden || hides;
    for (index t = 0; t < n; ++t) {
      batch_mask<T> const visible = not_equal<T>(numbers[t], hidden);
      batch<T> const score = heed::select(visible, load(s + t * width) + numbers[t], hidden);
      store(s + t * width, score);
      top = heed::max(score, top);
      if (a.seen)
        a.seen[begin + t] &= ~((mask_bits<T>(visible) ^ every_lane) << lane);
    }
  }
  if (maximum)
    store(maximum + lane, heed::max(top, other));
  return any_hidden;
}

/// The same where a call may have none.
template <bool Planes, real T>
struct planes_of : plane_rows<T> {
  using plane_rows<T>::plane_rows;
};
template <real T>
struct planes_of<false, T> {
  planes_of(modify_arguments<T> const&, int) {}
  static constexpr bool fill(index, index) { return false; }
};

/// One vector of scores through all stages that change it.
template <bool Planes, real T, class Maps>
HEED_ALWAYS_INLINE inline batch<T> changed(Maps const& maps, batch<T> s, site<batch<T>> const& at, batch<T> plane_of) {
  s = maps.template apply<score_stage::softcap>(s, at);
  if constexpr (Planes)
    s = s + plane_of;
  s = maps.template apply<score_stage::bias>(s, at);
  return maps.template apply<score_stage::function>(s, at);
}

/// Which of a vector's pairs are seen: what the band, planes and maps say.
template <bool Band, bool Planes, real T, class Maps>
HEED_ALWAYS_INLINE inline batch_mask<T> seen_pairs(Maps const& maps, site<batch<T>> const& at, batch<T> plane_of,
                                                   batch<T> key, batch<T> lo, batch<T> hi, batch<T> prefix) {
  batch_mask<T> seen = key == key;
  if constexpr (Band)
    seen = ((key >= lo) & (key < hi)) | (key < prefix);
  if constexpr (Planes)
    seen = seen & not_equal<T>(plane_of, batch<T>(-std::numeric_limits<T>::infinity()));
  return maps.visible(seen, at);
}

/// Both, for the pass of a few rows (few_rows.hpp), whose vectors hold keys of one row.
template <bool Band, bool Planes, real T, class Maps>
HEED_ALWAYS_INLINE inline batch<T> modified(Maps const& maps, batch<T> s, site<batch<T>> const& at, batch<T> plane_of,
                                            batch<T> key, batch<T> lo, batch<T> hi, batch<T> prefix,
                                            std::uint64_t& bits) {
  s = changed<Planes>(maps, s, at, plane_of);
  if constexpr (Band || Planes || Maps::hide_keys) {
    batch_mask<T> const seen = seen_pairs<Band, Planes>(maps, at, plane_of, key, lo, hi, prefix);
    s = heed::select(seen, s, batch<T>(-std::numeric_limits<T>::infinity()));
    bits = mask_bits<T>(seen);
  }
  return s;
}

/// Where the rows of V lane vectors stand, and which keys they see: a row's position itself and from the block's first key,
/// and the ends of its visible keys.
template <real T, int V>
struct swept_lanes {
  batch<T> query[V], position[V], lo[V], hi[V], prefix[V];

  HEED_ALWAYS_INLINE swept_lanes(modify_arguments<T> const& a, index lane) {
    unroll<V>([&](int v) HEED_LAMBDA_INLINE {
      batch<T> const step = load(a.step + lane + v * lanes<T>);
      position[v] = step + batch<T>(a.bounds.position);
      query[v] = position[v] + batch<T>(static_cast<T>(a.block_begin));
      lo[v] = step + batch<T>(a.bounds.lo);
      hi[v] = step + batch<T>(a.bounds.hi);
      prefix[v] = heed::min(step + batch<T>(a.bounds.prefix), batch<T>(a.bounds.most_prefix));
    });
  }
};

/// The sweep over a run of keys and V lane vectors, key by key; returns whether planes hide any pair. Two maxima or more
/// are on their way at a time: with one, each key would wait for the last. All vectors of a register tile at once bring
/// ALiBi from 5 to 3.3 % of a call (`heed_bench_attention --benchmark_filter=modifier/alibi`, both in turns).
template <bool Band, bool Planes, int V, real T, class Maps>
HEED_ALWAYS_INLINE inline bool sweep(modify_arguments<T> const& a, Maps const& maps, segment const& part, int vector) {
  static_assert(!Planes || V == 1, "the strip has one lane vector");
  constexpr index w = lanes<T>, width = block_lanes<T>;
  constexpr int at_once = V == 1 ? 2 : std::max(1, 4 / V);
  constexpr std::uint64_t every_lane = ~std::uint64_t{0} >> (64 - w);
  index const lane = vector * w, head = a.head[lane];
  batch<T> const hidden(-std::numeric_limits<T>::infinity());
  swept_lanes<T, V> const rows(a, lane);
  batch<T> top[at_once][V];
  unroll<at_once * V>([&](int i) HEED_LAMBDA_INLINE { top[i / V][i % V] = load(a.maximum + lane + i % V * w); });
  T* const s = a.s + lane;
  T const* const strip = a.strip;
  std::uint64_t* const seen = a.seen;
  planes_of<Planes, T> const planes(a, vector);
  bool any_hidden = false;
  index const run = Planes ? w : part.end - part.begin;  // what the strip holds
  for (index begin = part.begin; begin < part.end; begin += run) {
    index const end = std::min(part.end, begin + run);
    bool const plane_hides = planes.fill(begin, end - begin), hides = plane_hides || Band || Maps::hide_keys;
    any_hidden = any_hidden || plane_hides;
    auto const one = [&](index j, batch<T>(&greatest)[V]) HEED_LAMBDA_INLINE {
      batch<T> const key(key_numbers<T>[static_cast<std::size_t>(j)]);
      batch<T> const absolute(static_cast<T>(a.block_begin + j));
      batch<T> const plane_of = Planes ? load(strip + (j - begin) * w) : hidden;
      unroll<V>([&](int v) HEED_LAMBDA_INLINE {
        site<batch<T>> const at(rows.query[v], absolute, rows.position[v] - key, a.batch, head);
        T* const place = s + j * width + v * w;
        batch<T> score = changed<Planes>(maps, load(place), at, plane_of);
        if (hides) {
          batch_mask<T> const visible =
              seen_pairs<Band, Planes>(maps, at, plane_of, key, rows.lo[v], rows.hi[v], rows.prefix[v]);
          score = heed::select(visible, score, hidden);
          if (seen)
            seen[j] &= ~((mask_bits<T>(visible) ^ every_lane) << (lane + v * w));
        }
        store(place, score);
        greatest[v] = heed::max(score, greatest[v]);
      });
    };
    index j = begin;
    for (; j + at_once <= end; j += at_once)
      unroll<at_once>([&](int i) HEED_LAMBDA_INLINE { one(j + i, top[i]); });
    for (; j < end; ++j)
      one(j, top[0]);
  }
  unroll<V>([&](int v) HEED_LAMBDA_INLINE {
    for (int i = 1; i < at_once; ++i)
      top[0][v] = heed::max(top[0][v], top[i][v]);
    store(a.maximum + lane + v * w, top[0][v]);
  });
  return any_hidden;
}

template <bool Band, bool Planes, int V, real T, class Maps>
HEED_NOINLINE bool modify_vectors(modify_arguments<T> const& a, Maps const& maps, segment const& part, int vector) {
  bool hides = false;
  maps.with_head(a.head[0],
                 [&](auto const& here) HEED_LAMBDA_INLINE { hides = sweep<Band, Planes, V>(a, here, part, vector); });
  return hides;
}

}  // namespace impl

/// Sends the parts of a tile through softcap, planes, maps and masks, and takes the maxima of what comes out.
/// Returns whether planes hide any pair.
/// @param all whether lane vectors that see all keys of a part are to be swept as well
template <real T, class Maps>
bool modify(modify_arguments<T> const& a, Maps const& maps, segment const* parts, int count, bool all) {
  constexpr int together = register_tile<T>::vectors;
  bool const planes = a.call->additive();
  bool hides = false;
  maps.with_head(a.head[0], [&](auto const& here) {
    for (segment const* part = parts; part != parts + count; ++part) {
      if (a.seen)
        std::fill(a.seen + part->begin, a.seen + part->end, part->lane_bits(lanes<T>));
      int v = part->first, end = v + part->count;
      if constexpr (Maps::any)
        if (all && !planes && part->mixed == 0)
          for (; v + together <= end; v += together)
            impl::modify_vectors<false, false, together>(a, here, *part, v);
      for (; v < end; ++v) {
        bool const mixed = part->is_mixed(v);
        if constexpr (Maps::any) {
          if (mixed && planes)
            hides |= impl::modify_vectors<true, true, 1>(a, here, *part, v);
          else if (planes)
            hides |= impl::modify_vectors<false, true, 1>(a, here, *part, v);
        } else if (planes) {
          hides |= impl::add_planes(a, *part, v, mixed ? nullptr : a.maximum);
        }
        if (mixed && !(planes && Maps::any))
          impl::modify_vectors<true, false, 1>(a, here, *part, v);
        else if (all && !planes)
          impl::modify_vectors<false, false, 1>(a, here, *part, v);
      }
    }
  });
  return hides;
}

HEED_ISA_END
}  // namespace heed
