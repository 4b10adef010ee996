#pragma once

#include <heed/core/amx.hpp>
#include <heed/kernel/products.hpp>
#include <heed/kernel/query_block.hpp>
#include <heed/kernel/weights.hpp>

/// The two products on AMX tiles, for calls whose queries, keys and values are bfloat16: the same score tile
/// `[key][lane]` and the same accumulators `[channel][lane]` as in float, so that every stage between the products is
/// the pass's own. Scores and sums are float; weights are rounded to bfloat16, and the row sum takes them in rounded.

namespace heed {
HEED_ISA_BEGIN

/// Query blocks that walk over the keys together on tiles: values are packed once per key block, which costs a tenth
/// of the whole with 4 of them and half of that with 8.
inline constexpr int most_blocks_on_tiles = 8;

/// Why a call keeps to float products, or null where it takes the tiles.
template <real T>
char const* why_not_tiles(problem<T> const& p) {
  auto const wide = [](operand const& x) { return x.kind != scalar_kind::bfloat16; };
  if (!p.said.amx)
    return "not asked for by with_amx";
  if (!has_tiles<T>)
    return std::same_as<T, double> ? "arithmetic is double" : "this build has no AMX";
  if (!p.said.amx_granted)
    return "the permit was not granted";
  if (wide(p.q) || wide(p.k) || wide(p.v))
    return "q, k and v must all be bfloat16";
  if (p.position.rotates())
    return "positions are turned in float";
  if (p.said.normalizer == normalizer_rule::none)
    return "scores alone are asked for";
  return nullptr;
}

#if defined(HEED_HAS_AMX)

namespace impl {

/// Up to two tiles side by side, and how far it is from one step of the inner dimension to the next. Bytes.
struct tile_operand {
  std::byte const* tile[2] = {};
  index stride[2] = {};
  index step = 0;
};

/// sum[r][c] (+)= Σ_t left[r](t) · right[c](t), tiles of 16 × 16 floats: `sum` has `stride` bytes a row.
///
/// Two by two is the most that eight registers hold: four sums, two of each operand, one load per product.
template <int Rows, int Columns, bool Accumulate>
HEED_ALWAYS_INLINE inline void tile_block(tile_operand const& left, tile_operand const& right, index steps, float* sum,
                                          index stride) {
  auto* const out = reinterpret_cast<std::byte*>(sum);
  auto const each = [&](auto&& f) HEED_LAMBDA_INLINE {
    unroll<Rows * Columns>([&](auto i) HEED_LAMBDA_INLINE {
      constexpr int r = i / Columns, c = i % Columns;
      f(std::integral_constant<int, r>{}, std::integral_constant<int, c>{}, out + r * tile_size * stride + c * 64);
    });
  };
  each([&](auto r, auto c, std::byte* place) HEED_LAMBDA_INLINE {
    if constexpr (Accumulate)
      tile_load<2 * r + c>(place, stride);
    else
      tile_zero<2 * r + c>();
  });
  for (index t = 0; t < steps; ++t) {
    unroll<Rows>([&](auto r) HEED_LAMBDA_INLINE { tile_load<4 + r>(left.tile[r] + t * left.step, left.stride[r]); });
    unroll<Columns>([&](auto c)
                        HEED_LAMBDA_INLINE { tile_load<6 + c>(right.tile[c] + t * right.step, right.stride[c]); });
    each([&](auto r, auto c, std::byte*) HEED_LAMBDA_INLINE { tile_multiply<2 * r + c, 4 + r, 6 + c>(); });
  }
  each([&](auto r, auto c, std::byte* place) HEED_LAMBDA_INLINE { tile_store<2 * r + c>(place, stride); });
}

template <bool Accumulate>
HEED_NOINLINE void tile_block(index rows, index columns, tile_operand const& left, tile_operand const& right,
                              index steps, float* sum, index stride) {
  if (rows == 2 && columns == 2)
    return tile_block<2, 2, Accumulate>(left, right, steps, sum, stride);
  if (rows == 2)
    return tile_block<2, 1, Accumulate>(left, right, steps, sum, stride);
  if (columns == 2)
    return tile_block<1, 2, Accumulate>(left, right, steps, sum, stride);
  return tile_block<1, 1, Accumulate>(left, right, steps, sum, stride);
}

/// s[j][lane] ← s[j][lane] · factor[lane]; with `maximum`, takes the greatest of each lane.
HEED_NOINLINE inline void scale_scores(float* s, index n, int vectors, float const* factor, float* maximum) {
  constexpr index width = block_lanes<float>;
  for (int v = 0; v < vectors; ++v) {
    index const lane = v * lanes<float>;
    batch<float> const f = load(factor + lane);
    batch<float> top[2] = {batch<float>(-std::numeric_limits<float>::infinity()), top[0]};
    auto const scale = [&](index j, batch<float>& most) HEED_LAMBDA_INLINE {
      batch<float> const x = load(s + j * width + lane) * f;
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

/// Scores [row][lane] of one lane vector, an even number of rows, become weights: pairs (row 2t, row 2t + 1) where row
/// 2t was.
template <normalizer_rule Rule, bool Scaled, bool Entropy>
HEED_NOINLINE void weigh_pairs(float* s, index rows, float const* maximum, float* sum, float* entropy) {
  constexpr index width = block_lanes<float>;
  batch<float> const top = safe_maximum<float>(load(maximum));
  batch<float> total[2] = {batch<float>(0.0f), total[0]}, spread = total[0];
  for (index j = 0; j < rows; j += 2) {
    batch<float> const a = load(s + j * width), b = load(s + (j + 1) * width);
    batch<float> even = weight_of<Rule, Scaled>(a, top), odd = weight_of<Rule, Scaled>(b, top);
    store(s + j * width, round_to_pairs(even, odd));
    total[0] = added_to_sum<Rule>(even, total[0]);
    total[1] = added_to_sum<Rule>(odd, total[1]);
    if constexpr (Entropy)
      spread = added_to_entropy(odd, b, top, added_to_entropy(even, a, top, spread));
  }
  store(sum, load(sum) + (total[0] + total[1]));
  if constexpr (Entropy)
    store(entropy, load(entropy) + spread);
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

/// Up to 32 value rows as left operands: for each 16 channels [channel][key], 0 where there is no key or channel, and
/// where a value is not finite: a weight of 0 must not make a NaN of it. Returns whether all are finite.
inline bool pack_value_tiles(Eigen::bfloat16 const* const* rows, index count, index dim_v, float* to) {
  static constexpr Eigen::bfloat16 nothing[static_cast<std::size_t>(tile_size)] = {};
  bool finite = true;
  for (index c = 0; c < dim_v; c += tile_size, to += tile_size * tile_size) {
    index const channels = std::min(tile_size, dim_v - c);
    batch<float> square[static_cast<std::size_t>(tile_size)];
    for (index i = 0; i < tile_size; ++i) {
      auto const* const even = 2 * i < count ? rows[2 * i] + c : nothing;
      auto const* const odd = 2 * i + 1 < count ? rows[2 * i + 1] + c : nothing;
      square[i] = finite_pairs(interleave(even, odd, channels), finite);
    }
    transpose<float>(square);
    for (index i = 0; i < tile_size; ++i)
      store(to + i * tile_size, square[i]);
  }
  return finite;
}

}  // namespace impl

/// What the pass asks of the tiles for one task: the keys and values of the block at hand, packed on first use.
class tile_products {
 public:
  static constexpr index width = block_lanes<float>;

  tile_products() = default;

  /// @param most the most keys of a block
  tile_products(arena& scratch, problem<float> const& p, index most) : call_(&p) {
    index const rows = round_up(most, impl::tile_pairs);
    keys_ = scratch.take<Eigen::bfloat16>(rows * padded_dim(p));
    values_ = scratch.take<float>(rows / 2 * channels(p));
    spare_ = scratch.take<Eigen::bfloat16>(impl::tile_pairs * std::max(p.dim, p.dim_v));
  }

  /// Floats that a block's packed queries take up, and channels of its accumulators.
  static index query_floats(problem<float> const& p) { return padded_dim(p) / 2 * width; }
  static index channels(problem<float> const& p) { return round_up(p.dim_v, impl::tile_size); }

  /// Queries into a block, unscaled: a factor that is no power of two would cost bits.
  void pack(query_block<float>& to) const {
    operand const& q = call_->q;
    Eigen::bfloat16 const* rows[static_cast<std::size_t>(impl::tile_size)];
    for (int v = 0; v < to.vectors; ++v) {
      index const lane = v * lanes<float>, count = std::min<index>(lanes<float>, to.count - lane);
      for (index i = 0; i < count; ++i)
        rows[i] = impl::unit_row(q.at(to.batch, to.head[lane + i], to.row[lane + i], 0), q.strides[3], call_->dim,
                                 spare_ + i * call_->dim);
      impl::pack_query_tiles(rows, count, call_->dim, to.q[0] + v * padded_dim(*call_) / 2 * lanes<float>);
    }
  }

  /// Points at keys [block.begin, block.end) of one key head.
  void open(index batch, index head, key_range block) {
    batch_ = batch;
    head_ = head;
    block_ = block;
    keys_ready_ = values_ready_ = false;
  }

  /// Scores of the parts, and the maxima where they are wanted at once.
  void score(query_block<float> const& block, segment const* parts, int count, float* s, float* maximum) {
    if (!keys_ready_)
      take_keys();
    for (int i = 0; i < count; ++i)
      multiply(block, parts[i], s);
    for (int i = 0; i < count; ++i) {
      index const lane = parts[i].first * lanes<float>;
      impl::scale_scores(s + parts[i].begin * width + lane, parts[i].end - parts[i].begin, parts[i].count,
                         block.factor + lane, maximum ? maximum + lane : nullptr);
    }
  }

  /// Scores become weights, pair by pair. Rows that a lane vector does not have are made to weigh nothing.
  template <normalizer_rule Rule, bool Entropy>
  void weigh(query_block<float>& block, segment const* parts, int count, float* s) {
    take_ranges(parts, count, block.vectors);
    for (int v = 0; v < block.vectors; ++v) {
      key_range const rows = shared_[v / 2];
      if (rows.empty())
        continue;
      index const lane = v * lanes<float>;
      hide_rows(s + lane, rows.begin, of_[v].empty() ? rows.end : of_[v].begin);
      if (!of_[v].empty())
        hide_rows(s + lane, of_[v].end, rows.end);
      float* const from = s + rows.begin * width + lane;
      if (has_maximum<Rule> && call_->natural)
        impl::weigh_pairs<Rule, has_maximum<Rule>, Entropy>(from, rows.end - rows.begin, block.m + lane, block.l + lane,
                                                            block.u + lane);
      else
        impl::weigh_pairs<Rule, false, Entropy>(from, rows.end - rows.begin, block.m + lane, block.l + lane,
                                                block.u + lane);
    }
  }

  /// o ← o · rescale + the weighted values of the block.
  /// @param seen one bit a lane for each key that the block's parts hold, or null where they see all of them
  void accumulate(query_block<float>& block, float const* s, float const* rescale, std::uint64_t const* seen) {
    if (!values_ready_)
      take_values();
    follow_maximum(block, rescale);
    multiply_values(block, s);
    if (!finite_)
      add_not_finite(block, s, seen);
  }

 private:
  static constexpr int most_vectors = register_tile<float>::vectors;

  void multiply_values(query_block<float>& block, float const* s) const {
    index const groups = channels(*call_) / impl::tile_size;
    for (index v = 0; v < block.vectors; v += 2) {
      key_range const rows = shared_[v / 2];
      if (rows.empty())
        continue;
      auto const* const weights = reinterpret_cast<std::byte const*>(s + rows.begin * width + v * lanes<float>);
      impl::tile_operand const right{{weights, weights + 64}, {8 * width, 8 * width}, impl::tile_pairs * width * 4};
      for (index g = 0; g < groups; g += 2) {
        auto const* const tile =
            reinterpret_cast<std::byte const*>(values_) + (rows.begin / impl::tile_pairs * groups + g) * 1024;
        impl::tile_block<true>(std::min<index>(2, groups - g), std::min<index>(2, block.vectors - v),
                               {{tile, tile + 1024}, {64, 64}, groups * 1024}, right,
                               (rows.end - rows.begin) / impl::tile_pairs,
                               block.o + g * impl::tile_size * width + v * lanes<float>, width * 4);
      }
    }
  }

  /// What the packed values left out reaches the rows that see it, and no other row changes by a bit.
  void add_not_finite(query_block<float>& block, float const* s, std::uint64_t const* seen) const {
    batch<float> const zero(0.0f);
    for (index j = 0; j < block_.end - block_.begin; ++j) {
      auto const* const value = call_->v.at(batch_, head_, block_.begin + j, 0);
      for (index c = 0; c < call_->dim_v; ++c) {
        auto const x = static_cast<float>(reinterpret_cast<Eigen::bfloat16 const*>(value)[c * call_->v.strides[3]]);
        if (std::isfinite(x))
          continue;
        for (int v = 0; v < block.vectors; ++v) {
          if (j < of_[v].begin || j >= of_[v].end)
            continue;
          index const lane = v * lanes<float>;
          batch<float> const pairs = load(s + j / 2 * 2 * width + lane);
          batch<float> const w = j % 2 == 0 ? impl::even_of_pairs(pairs) : impl::odd_of_pairs(pairs);
          auto const here = mask_from_bits<float>(seen ? seen[j] >> lane : ~std::uint64_t{0});
          float* const place = block.o + c * width + lane;
          store(place, load(place) + heed::select(here, w * batch<float>(x), zero));
        }
      }
    }
  }

  static index padded_dim(problem<float> const& p) { return round_up(p.dim, impl::tile_pairs); }

  std::byte const* query_tile(query_block<float> const& block, index v) const {
    return reinterpret_cast<std::byte const*>(block.q[0] + v * padded_dim(*call_) / 2 * lanes<float>);
  }

  /// Whether the 16 keys of a group can be read where they lie.
  bool direct(index group) const {
    return call_->k.strides[3] == 1 && call_->dim % impl::tile_pairs == 0 &&
           block_.begin + (group + 1) * impl::tile_size <= block_.end;
  }
  std::byte const* key_tile(index group) const {
    index const row = group * impl::tile_size;
    return direct(group) ? call_->k.at(batch_, head_, block_.begin + row, 0)
                         : reinterpret_cast<std::byte const*>(keys_ + row * padded_dim(*call_));
  }
  index key_stride(index group) const { return 2 * (direct(group) ? call_->k.strides[2] : padded_dim(*call_)); }

  /// Products of a part in whole tiles: scores around the part's are overwritten too.
  void multiply(query_block<float> const& block, segment const& part, float* s) const {
    index const steps = padded_dim(*call_) / impl::tile_pairs, end = part.first + part.count;
    index const last = (part.end + impl::tile_size - 1) / impl::tile_size;
    for (index g = part.begin / impl::tile_size; g < last; g += 2)
      for (index v = part.first; v < end; v += 2) {
        impl::tile_operand const left{{key_tile(g), key_tile(g + 1)}, {key_stride(g), key_stride(g + 1)}, 64};
        impl::tile_operand const right{{query_tile(block, v), query_tile(block, v + 1)}, {64, 64}, 1024};
        impl::tile_block<false>(std::min<index>(2, last - g), std::min<index>(2, end - v), left, right, steps,
                                s + g * impl::tile_size * width + v * lanes<float>, width * 4);
      }
  }

  void take_keys() {
    index const n = block_.end - block_.begin, ld = padded_dim(*call_);
    for (index g = 0; g * impl::tile_size < n; ++g) {
      if (direct(g))
        continue;
      for (index j = g * impl::tile_size; j < (g + 1) * impl::tile_size; ++j) {
        Eigen::bfloat16* const to = keys_ + j * ld;
        index const dim = j < n ? call_->dim : 0;
        if (j < n)
          std::copy_n(impl::unit_row(call_->k.at(batch_, head_, block_.begin + j, 0), call_->k.strides[3], dim, spare_),
                      dim, to);
        std::fill_n(to + dim, ld - dim, Eigen::bfloat16{});
      }
    }
    keys_ready_ = true;
  }

  void take_values() {
    index const n = block_.end - block_.begin;
    finite_ = true;
    float* to = values_;
    for (index j = 0; j < n; j += impl::tile_pairs, to += impl::tile_size * channels(*call_)) {
      Eigen::bfloat16 const* rows[static_cast<std::size_t>(impl::tile_pairs)];
      index const count = std::min(impl::tile_pairs, n - j);
      for (index i = 0; i < count; ++i)
        rows[i] = impl::unit_row(call_->v.at(batch_, head_, block_.begin + j + i, 0), call_->v.strides[3], call_->dim_v,
                                 spare_ + i * call_->dim_v);
      finite_ = impl::pack_value_tiles(rows, count, call_->dim_v, to) && finite_;
    }
    values_ready_ = true;
  }

  /// The keys of each lane vector, and of each two that share a product, in whole steps.
  void take_ranges(segment const* parts, int count, int vectors) {
    for (int v = 0; v < most_vectors; ++v)
      of_[v] = {};
    for (int i = 0; i < count; ++i)
      for (int v = parts[i].first; v < parts[i].first + parts[i].count; ++v)
        of_[v] = of_[v].empty() ? key_range{parts[i].begin, parts[i].end} : key_range{of_[v].begin, parts[i].end};
    for (int v = 0; v < vectors; v += 2) {
      key_range both = of_[v];
      if (v + 1 < vectors && !of_[v + 1].empty())
        both = both.empty() ? of_[v + 1]
                            : key_range{std::min(both.begin, of_[v + 1].begin), std::max(both.end, of_[v + 1].end)};
      shared_[v / 2] = {both.begin / impl::tile_pairs * impl::tile_pairs, round_up(both.end, impl::tile_pairs)};
    }
  }

  static void hide_rows(float* s, index begin, index end) {
    for (index j = begin; j < end; ++j)
      store(s + j * width, batch<float>(-std::numeric_limits<float>::infinity()));
  }

  void follow_maximum(query_block<float>& block, float const* rescale) const {
    for (int v = 0; v < block.vectors; ++v) {
      index const lane = v * lanes<float>;
      batch<float> const factor = load(rescale + lane);
      if (!heed::any<float>(not_equal<float>(factor, batch<float>(1.0f))))
        continue;
      for (index c = 0; c < call_->dim_v; ++c)
        store(block.o + c * width + lane, load(block.o + c * width + lane) * factor);
    }
  }

  problem<float> const* call_ = nullptr;
  Eigen::bfloat16* keys_ = nullptr;   // [row][padded dim]
  float* values_ = nullptr;           // [32 keys][16 channels] tiles
  Eigen::bfloat16* spare_ = nullptr;  // [32][dim or dim_v]
  index batch_ = 0, head_ = 0;
  key_range block_;
  bool keys_ready_ = false, values_ready_ = false, finite_ = true;
  key_range of_[most_vectors];
  key_range shared_[(most_vectors + 1) / 2];
};

#else

// What the pass holds where there are no tiles.
namespace impl {
class tile_session {};
}  // namespace impl
class tile_products {};

#endif

HEED_ISA_END
}  // namespace heed
