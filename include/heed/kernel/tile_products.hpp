#pragma once

#include <heed/kernel/multiply_tiles.hpp>
#include <heed/kernel/products.hpp>
#include <heed/kernel/query_block.hpp>
#include <heed/kernel/tile_keys.hpp>
#include <heed/kernel/weights.hpp>

/// The two products on AMX tiles, for calls whose queries are bfloat16, keys and values bfloat16 or int8, and the weights
/// between them, which lie in pairs of keys. Scores `[key][lane]` and accumulators `[channel][lane]` are the pass's, and so
/// is the modify stage. Scores and sums are float; weights are rounded to bfloat16, and the row sum takes them in rounded.
/// What positions turn, and int8 codes times their scales, are rounded to bfloat16, too.

namespace heed {
HEED_ISA_BEGIN

/// Query blocks that walk over the keys together on tiles (`pass_shape` may double them): values are packed once per key
/// block, which costs a tenth of the whole with 4 of them and half of that with 8.
inline constexpr int most_blocks_on_tiles = 8;

/// Keys whose scores are made at once where nothing modifies them: with 64 lanes 8 KiB, which stay in the first-level
/// cache beside the queries and the weights. 64 keys cost 2 %, 128 keys 6 %.
inline constexpr index keys_of_scores = 32;

/// Why the pass with queries in lanes keeps to float products, or null where it takes the tiles.
template <real T>
char const* why_not_tiles(problem<T> const& p) {
  auto const wide = [](operand const& x) {
    return x.kind != scalar_kind::bfloat16 && x.kind != scalar_kind::int8_code;
  };
  if (char const* const reason = why_no_tiles(p))
    return reason;
  if (p.q.kind != scalar_kind::bfloat16 || wide(p.k) || wide(p.v))
    return "q must be bfloat16, k and v bfloat16 or int8";
  if (p.said.normalizer == normalizer_rule::none)
    return "scores alone are asked for";
  return nullptr;
}

#if defined(HEED_HAS_AMX)

namespace impl {

/// Lanes of a row of weights: two vectors, as many as a product takes at once.
inline constexpr index pair_lanes = 2 * lanes<float>;

/// s[j][lane] · factor[lane] replaces the score, with `Store`, and is taken into maximum[lane], if there is one.
template <bool Store>
HEED_NOINLINE void scale_scores(float* s, index n, int vectors, float const* factor, float* maximum) {
  constexpr index width = block_lanes<float>;
  for (int v = 0; v < vectors; ++v) {
    index const lane = v * lanes<float>;
    batch<float> const f = load(factor + lane);
    batch<float> top[2] = {batch<float>(-std::numeric_limits<float>::infinity()), top[0]};
    auto const scale = [&](index j, batch<float>& most) HEED_LAMBDA_INLINE {
      batch<float> const x = load(s + j * width + lane) * f;
      if constexpr (Store)
        store(s + j * width + lane, x);
      most = heed::max(x, most);
    };
    index j = 0;
    for (; j + 2 <= n; j += 2) {
      scale(j, top[0]);
      scale(j + 1, top[1]);
    }
    if (j < n)
      scale(j, top[0]);
    if (maximum)
      store(maximum + lane, heed::max(heed::max(top[0], load(maximum + lane)), top[1]));
  }
}

/// One batch of weights, not yet rounded, from one batch of scores.
template <normalizer_rule Rule, bool Scaled>
HEED_ALWAYS_INLINE inline batch<float> weight_to_round(batch<float> const& s, batch<float> const& maximum) {
  if constexpr (!has_maximum<Rule>)
    return weight_of<Rule, Scaled>(s, maximum);
  else if constexpr (Scaled)
    return exp2_to_round((s - maximum) * batch<float>(log2_e<float>));
  else
    return exp2_to_round(s - maximum);
}

/// Scores [row][lane] of one lane vector, an even number of rows, times `factor`, become weights in pairs:
/// w[t][lane] = (row 2t, row 2t + 1). Returns whether one of them exceeds `most`.
template <normalizer_rule Rule, bool Scaled, bool Entropy>
HEED_NOINLINE bool weigh_pairs(float const* s, index rows, batch<float> factor, float const* maximum, float* w,
                               float* sum, float* entropy, Eigen::bfloat16 most) {
  constexpr index width = block_lanes<float>;
  batch<float> const top = safe_maximum<float>(load(maximum)), zero(0.0f);
  batch<float> total[2] = {zero, zero}, spread = zero, greatest = zero;
  for (index j = 0; j < rows; j += 2, w += pair_lanes) {
    batch<float> const a = load(s + j * width) * factor, b = load(s + (j + 1) * width) * factor;
    batch<float> const pairs =
        round_to_pairs(weight_to_round<Rule, Scaled>(a, top), weight_to_round<Rule, Scaled>(b, top));
    batch<float> const even = even_of_pairs(pairs), odd = odd_of_pairs(pairs);
    store(w, pairs);
    greatest = greater_pairs(pairs, greatest);
    total[0] = added_to_sum<Rule>(even, total[0]);
    total[1] = added_to_sum<Rule>(odd, total[1]);
    if constexpr (Entropy)
      spread = added_to_entropy(odd, b, top, added_to_entropy(even, a, top, spread));
  }
  store(sum, load(sum) + (total[0] + total[1]));
  if constexpr (Entropy)
    store(entropy, load(entropy) + spread);
  return any_pair_above(greatest, most);
}

/// A row of bfloat16s with stride 1: the row itself, or its numbers gathered.
inline Eigen::bfloat16 const* unit_row(std::byte const* row, index stride, index n, Eigen::bfloat16* spare) {
  auto const* const from = reinterpret_cast<Eigen::bfloat16 const*>(row);
  if (stride == 1)
    return from;
  for (index c = 0; c < n; ++c)
    spare[c] = from[c * stride];
  return spare;
}

/// Up to 16 query rows as the right operand: [step of 32 channels][pair][lane], 0 where there is no channel.
inline void pack_query_tiles(Eigen::bfloat16 const* const* rows, index count, index dim, float* to) {
  for (index c = 0; c < dim; c += tile_pairs, to += tile_size * tile_size) {
    batch<float> square[static_cast<std::size_t>(tile_size)];
    for (index i = 0; i < tile_size; ++i)
      square[i] = i < count ? load_pairs(rows[i] + c, std::min(tile_pairs, dim - c)) : batch<float>(0.0f);
    transpose<float>(square);
    for (index i = 0; i < tile_size; ++i)
      store(to + i * tile_size, square[i]);
  }
}

/// What is known of values.
struct value_range {
  bool small = true;  // below `large_value`
  bool finite = true;
};

/// 16 channels of up to 32 value rows as a left operand, [channel][key], 0 where there is no key or channel, and where
/// a value is not finite: a weight of 0 must not make a NaN of it. `range` takes in what there was.
template <bool Whole>
HEED_ALWAYS_INLINE inline void pack_value_tile(Eigen::bfloat16 const* const* rows, index count, index channel,
                                               index channels, float* to, value_range& range) {
  static constexpr Eigen::bfloat16 nothing[static_cast<std::size_t>(tile_size)] = {};
  batch<float> square[static_cast<std::size_t>(tile_size)];
  std::uint32_t large = 0;
  auto const row = [&](index i) HEED_LAMBDA_INLINE { return Whole || i < count ? rows[i] + channel : nothing; };
  unroll<static_cast<int>(tile_size)>([&](int i) HEED_LAMBDA_INLINE {
    square[i] = interleave(row(2 * i), row(2 * i + 1), Whole ? tile_size : channels);
    large |= large_in_pairs(square[i], Eigen::bfloat16(large_value));
  });
  if (large != 0) [[unlikely]] {
    range.small = false;
    for (batch<float>& pairs : square)
      pairs = finite_pairs(pairs, range.finite);
  }
  transpose<float>(square);
  unroll<static_cast<int>(tile_size)>([&](int i) HEED_LAMBDA_INLINE { store(to + i * tile_size, square[i]); });
}

/// All channels; `place` tells where the tile of a channel goes.
template <class Place>
void pack_value_tiles(Eigen::bfloat16 const* const* rows, index count, index dim_v, value_range& range, Place place) {
  for (index c = 0; c < dim_v; c += tile_size) {
    index const channels = std::min(tile_size, dim_v - c);
    if (count == tile_pairs && channels == tile_size)
      pack_value_tile<true>(rows, count, c, channels, place(c), range);
    else
      pack_value_tile<false>(rows, count, c, channels, place(c), range);
  }
}

}  // namespace impl

/// What the pass asks of the tiles for one task: the keys and values of the block at hand, packed on first use, and the
/// weights of one query block. Lane vectors are taken two by two, in halves of a block, as the products take them.
class tile_products {
 public:
  static constexpr index width = block_lanes<float>;

  tile_products() = default;

  /// @param most the most keys of a block
  tile_products(arena& scratch, problem<float> const& p, turners<float>* turning, index most) : call_(&p) {
    most_ = round_up(most, impl::tile_pairs);
    values_ = scratch.take<float>(most_ / 2 * round_up(channels(p), 2 * impl::tile_size));
    spare_ = scratch.take<Eigen::bfloat16>(impl::tile_pairs * most_padded(p));
    wide_ = scratch.take<float>(impl::tile_size * most_padded(p));
    keys_ = tile_keys(scratch, p, turning, most_, wide_);
    sums_ = scratch.take<float>(2 * width);
    weights_ = scratch.take<float>(most_halves * most_ / 2 * impl::pair_lanes);
  }

  /// Channels of a block's accumulators.
  static index channels(problem<float> const& p) { return round_up(p.dim_v, impl::tile_size); }

  /// Queries into a block, for each product of the position code, unscaled: a factor that is no power of two would cost
  /// bits.
  void pack(query_block<float>& to, query_packer<float>& from, band const& b) const {
    for (int product = 0; product < call_->position.products(); ++product)
      for (int v = 0; v < to.vectors; ++v)
        pack_vector(to, v, static_cast<position_code::product>(product), from, b);
  }

  /// Points at keys [block.begin, block.end) of one key head.
  void open(index batch, index head, key_range block) {
    batch_ = batch;
    head_ = head;
    block_ = block;
    ready_ = false;
    keys_.open(batch, head, block);
  }

  /// Takes note of the keys that the parts give to each lane vector of a query block.
  void begin(query_block<float>& block, segment const* parts, int count) {
    if (!ready_) {
      take_values();
      ready_ = true;
    }
    block_at_hand_ = &block;
    take_ranges(parts, count);
  }

  /// All keys of the block's halves, in whole steps.
  key_range keys() const { return keys_of_; }

  /// Whether a half of the block meets the 32 keys from `row` on.
  bool meets(int half, index row) const { return row >= shared_[half].begin && row < shared_[half].end; }
  int halves() const { return (block_at_hand_->vectors + 1) / 2; }
  int vectors(int half) const { return std::min(2, block_at_hand_->vectors - 2 * half); }

  /// Scores of these 32 keys in the lanes of one half, not yet scaled: key `row` at s.
  void score(position_code::product which, index row, int half, float* s) {
    index const vector = padded_dim(*call_) * 2 * lanes<float>;  // bytes
    tile_keys::group const first = keys_.at(which, row / impl::tile_size),
                           second = keys_.at(which, row / impl::tile_size + 1);
    auto const* const q = reinterpret_cast<std::byte const*>(block_at_hand_->q[which]) + 2 * half * vector;
    impl::multiply_tiles<Eigen::bfloat16, width, false>({{{first.data, second.data}, {first.stride, second.stride}, 64},
                                                         {{q, q + vector}, {64, 64}, 1024},
                                                         padded_dim(*call_) / impl::tile_pairs,
                                                         s + half * impl::pair_lanes,
                                                         2,
                                                         vectors(half)});
  }

  /// Scales the scores of a part and takes their maxima, where wanted: key 0 at s.
  void scale(segment const& part, float* s, float* maximum) const {
    index const lane = part.first * lanes<float>;
    impl::scale_scores<true>(s + part.begin * width + lane, part.end - part.begin, part.count,
                             block_at_hand_->factor + lane, maximum ? maximum + lane : nullptr);
  }
  /// Only takes the maxima that scores of these keys, all visible, would have: key rows.begin at s.
  void take_maximum(key_range rows, float* s, float* maximum) const {
    impl::scale_scores<false>(s, rows.end - rows.begin, block_at_hand_->vectors, block_at_hand_->factor, maximum);
  }

  /// Rows that a lane vector does not have, but its half does, are made to weigh nothing: key 0 at s, scaled scores.
  void hide_rows(key_range rows, float* s) const {
    batch<float> const hidden(-std::numeric_limits<float>::infinity());
    for (int v = 0; v < block_at_hand_->vectors; ++v)
      for (index j = std::max(rows.begin, shared_[v / 2].begin); j < shared_[v / 2].end; ++j)
        if (j < of_[v].begin || j >= of_[v].end)
          store(s + j * width + v * lanes<float>, hidden);
  }

  /// Scores of these keys become weights, pair by pair: key rows.begin at s. Returns whether a maximum turned out to be
  /// too old for them.
  /// @param scaled whether scores are; those that are not are of keys that every lane vector has
  template <normalizer_rule Rule, bool Entropy>
  bool weigh(key_range rows, bool scaled, float const* s) const {
    query_block<float>& block = *block_at_hand_;
    std::fill_n(sums_, 2 * width, 0.0f);
    Eigen::bfloat16 const most(std::ldexp(1.0f, lag()));
    bool exceeds = false;
    for (int v = 0; v < block.vectors; ++v) {
      index const begin = std::max(rows.begin, shared_[v / 2].begin), end = std::min(rows.end, shared_[v / 2].end);
      index const lane = v * lanes<float>;
      batch<float> const factor = scaled ? batch<float>(1.0f) : load(block.factor + lane);
      auto const weigh = [&](auto natural) {
        return impl::weigh_pairs<Rule, decltype(natural)::value, Entropy>(
            s + (begin - rows.begin) * width + lane, end - begin, factor, block.m + lane, weights_at(begin, v),
            sums_ + lane, sums_ + width + lane, most);
      };
      bool const above = has_maximum<Rule> && call_->natural ? weigh(std::bool_constant<has_maximum<Rule>>{})
                                                             : weigh(std::false_type{});
      exceeds = exceeds || above;
    }
    return has_maximum<Rule> && exceeds && !scaled;
  }

  /// The block's sums take in those of the weights made last.
  template <bool Entropy>
  void add_sums() const {
    query_block<float>& block = *block_at_hand_;
    for (index lane = 0; lane < block.vectors * lanes<float>; lane += lanes<float>) {
      store(block.l + lane, load(block.l + lane) + load(sums_ + lane));
      if constexpr (Entropy)
        store(block.u + lane, load(block.u + lane) + load(sums_ + width + lane));
    }
  }

  /// o += the values of these keys, weighted.
  void accumulate(key_range rows) const {
    query_block<float>& block = *block_at_hand_;
    constexpr index row = impl::pair_lanes * 4;
    index const groups = channels(*call_) / impl::tile_size;
    for (index g = 0; g < groups; g += 2)
      for (int half = 0; half < halves(); ++half) {
        index const begin = std::max(rows.begin, shared_[half].begin), end = std::min(rows.end, shared_[half].end);
        if (begin >= end)
          continue;
        auto const* const pairs = reinterpret_cast<std::byte const*>(weights_at(begin, 2 * half));
        auto const* const tile = reinterpret_cast<std::byte const*>(value_tiles(begin / impl::tile_pairs, g));
        impl::multiply_tiles<Eigen::bfloat16, width, true>(
            {{{tile, tile + 1024}, {64, 64}, 2048},
             {{pairs, pairs + 64}, {row, row}, impl::tile_size * row},
             (end - begin) / impl::tile_pairs,
             block.o + g * impl::tile_size * width + half * impl::pair_lanes,
             g + 1 < groups ? 2 : 1,
             vectors(half)});
      }
  }

  /// Whether packed values are all there is; what they leave out is added by `add_not_finite`.
  bool finite() const { return values_range_.finite; }
  /// How far weights over this block may outgrow the maximum.
  int lag() const { return values_range_.small ? usual_lag : lag_of_large_values; }

  /// What the packed values left out reaches the rows that see it, and no other row changes by a bit.
  /// @param seen one bit a lane for each key that the block's parts hold, or null where they see all of them, as
  /// they do of the first `plain`
  void add_not_finite(std::uint64_t const* seen, index plain) const {
    query_block<float>& block = *block_at_hand_;
    batch<float> const zero(0.0f);
    for (index j = 0; j < block_.end - block_.begin; ++j) {
      load_rows(call_->v, batch_, head_, block_.begin + j, 1, call_->dim_v, wide_, call_->dim_v);
      for (index c = 0; c < call_->dim_v; ++c) {
        float const x = wide_[c];
        if (std::isfinite(x))
          continue;
        for (int v = 0; v < block.vectors; ++v) {
          if (j < of_[v].begin || j >= of_[v].end)
            continue;
          index const lane = v * lanes<float>;
          batch<float> const pairs = load(weights_at(j, v));
          batch<float> const w = j % 2 == 0 ? impl::even_of_pairs(pairs) : impl::odd_of_pairs(pairs);
          auto const here = mask_from_bits<float>(seen && j >= plain ? seen[j] >> lane : ~std::uint64_t{0});
          float* const place = block.o + c * width + lane;
          store(place, load(place) + heed::select(here, w * batch<float>(x), zero));
        }
      }
    }
  }

  /// o ← o · rescale.
  void follow_maximum(float const* rescale) const {
    query_block<float>& block = *block_at_hand_;
    for (int v = 0; v < block.vectors; ++v) {
      index const lane = v * lanes<float>;
      batch<float> const factor = load(rescale + lane);
      if (!heed::any<float>(not_equal<float>(factor, batch<float>(1.0f))))
        continue;
      for (index c = 0; c < call_->dim_v; ++c)
        store(block.o + c * width + lane, load(block.o + c * width + lane) * factor);
    }
  }

 private:
  static constexpr int most_vectors = register_tile<float>::vectors, most_halves = (most_vectors + 1) / 2;

  void pack_vector(query_block<float>& to, int vector, position_code::product which, query_packer<float>& from,
                   band const& b) const {
    operand const& q = call_->q;
    Eigen::bfloat16 const* rows[static_cast<std::size_t>(impl::tile_size)];
    index const lane = vector * lanes<float>, count = std::min<index>(lanes<float>, to.count - lane);
    tile_rows_at<float> const turned =
        call_->position.rotates() ? from.turned_rows(to, vector, which, b) : tile_rows_at<float>{};
    for (index i = 0; i < count; ++i) {
      Eigen::bfloat16* const spare = spare_ + i * padded_dim(*call_);
      rows[i] = turned.data != nullptr ? impl::rounded_row(turned.data + i * turned.ld, call_->dim, spare)
                                       : impl::unit_row(q.at(to.batch, to.head[lane + i], to.row[lane + i], 0),
                                                        q.strides[3], call_->dim, spare);
    }
    impl::pack_query_tiles(rows, count, call_->dim, to.q[which] + vector * padded_dim(*call_) / 2 * lanes<float>);
  }

  /// The weights of key `row`, an even one, and the next.
  float* weights_at(index row, int v) const {
    return weights_ + ((v / 2 * most_ + row) / 2) * impl::pair_lanes + v % 2 * lanes<float>;
  }

  void take_ranges(segment const* parts, int count) {
    std::fill_n(of_, most_vectors, key_range{});
    for (int i = 0; i < count; ++i)
      for (int v = parts[i].first; v < parts[i].first + parts[i].count; ++v)
        of_[v] = {of_[v].empty() ? parts[i].begin : of_[v].begin, parts[i].end};
    keys_of_ = {most_, 0};
    for (int half = 0; half < halves(); ++half) {
      key_range& both = shared_[half] = {most_, 0};
      for (int v = 2 * half; v < 2 * half + vectors(half); ++v)
        if (!of_[v].empty())
          both = {std::min(both.begin, of_[v].begin), std::max(both.end, of_[v].end)};
      both = {both.begin / impl::tile_pairs * impl::tile_pairs, round_up(both.end, impl::tile_pairs)};
      keys_of_ = {std::min(keys_of_.begin, both.begin), std::max(keys_of_.end, both.end)};
    }
  }

  /// Tiles of two groups of channels lie side by side, and step by step of 32 keys, as the product walks.
  float* value_tiles(index step, index group) const {
    return values_ +
           ((group / 2 * (most_ / impl::tile_pairs) + step) * 2 + group % 2) * impl::tile_size * impl::tile_size;
  }

  static index padded_dim(problem<float> const& p) { return tile_keys::padded_dim(p); }
  /// Room for a row of q, k or v.
  static index most_padded(problem<float> const& p) { return round_up(std::max(p.dim, p.dim_v), impl::tile_pairs); }

  void take_values() {
    index const n = block_.end - block_.begin;
    values_range_ = {};
    for (index j = 0; j < n; j += impl::tile_pairs) {
      Eigen::bfloat16 const* rows[static_cast<std::size_t>(impl::tile_pairs)];
      index const count = std::min(impl::tile_pairs, n - j);
      for (index i = 0; i < count; ++i)
        rows[i] = value_row(block_.begin + j + i, spare_ + i * most_padded(*call_));
      impl::pack_value_tiles(rows, count, call_->dim_v, values_range_,
                             [&](index c) { return value_tiles(j / impl::tile_pairs, c / impl::tile_size); });
    }
  }

  Eigen::bfloat16 const* value_row(index key, Eigen::bfloat16* spare) const {
    operand const& v = call_->v;
    if (v.kind == scalar_kind::bfloat16)
      return impl::unit_row(v.at(batch_, head_, key, 0), v.strides[3], call_->dim_v, spare);
    load_rows(v, batch_, head_, key, 1, call_->dim_v, wide_, most_padded(*call_));
    return impl::rounded_row(wide_, call_->dim_v, spare);
  }

  problem<float> const* call_ = nullptr;
  tile_keys keys_;
  float* values_ = nullptr;           // tiles of [16 channels][32 keys]
  Eigen::bfloat16* spare_ = nullptr;  // [32][padded dim or dim_v]
  float* wide_ = nullptr;             // [16][the same], what is to be rounded
  float* sums_ = nullptr;             // of the weights made last: l [lane], u [lane]
  float* weights_ = nullptr;          // [half][two keys][lane of the half]
  query_block<float>* block_at_hand_ = nullptr;
  key_range of_[most_vectors];     // keys of a lane vector
  key_range shared_[most_halves];  // and of a half, in whole steps
  key_range keys_of_;              // and of all
  index most_ = 0;                 // keys of a block, in whole steps
  index batch_ = 0, head_ = 0;
  key_range block_;
  bool ready_ = false;
  impl::value_range values_range_;
};

#else

// What the pass holds where there are no tiles.
class tile_products {};

#endif

HEED_ISA_END
}  // namespace heed
