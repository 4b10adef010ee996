#pragma once

#include <heed/core/digits.hpp>
#include <heed/core/transpose.hpp>
#include <heed/kernel/key_tiles.hpp>
#include <heed/kernel/multiply_tiles.hpp>
#include <heed/kernel/prefetch.hpp>

/// The two products of a few query rows with int8 keys and values on AMX tiles. Codes are read as they lie in memory;
/// queries and weights, which are float, go in as three digits each (core/digits.hpp), so that results are those of float
/// products but for rounding. Up to four rows are a set, whose digits are the columns of one tile beside keys and the rows
/// of one tile beside values: digit i of row r stands at 4 r + i.
///
/// Memory is asked for in every stage, since the tiles alone are done before it has answered: values while scores are made
/// and become weights, the next block's keys while values are added up. A row whose queries or weights are not finite is
/// left to the products of row_products.hpp, alone, so that the others keep their bits.

namespace heed {
HEED_ISA_BEGIN

/// Fewer keys than this, as many as two tiles have rows, are left to float products, and so is a single row: memory limits
/// it, which vectors read better (32768 keys of 128 channels on tiles: 1.3 times as long; two rows take two thirds of the
/// time; a call with and without tiles in turns).
inline constexpr index least_keys_on_tiles = 32;
inline constexpr index least_rows_on_tiles = 2;

namespace impl {

template <real T>
char const* why_not_codes(problem<T> const& p, operand const& x, index channels) {
  if (char const* const reason = why_no_tiles(p))
    return reason;
  if (x.kind != scalar_kind::int8_code || p.q_len * p.group() < least_rows_on_tiles)
    return "few rows are limited by memory";
  if (!in_registers<T>(x))
    return "not a scale a row, channels side by side";
  if (channels % tile_codes != 0)
    return "channels are no multiple of 64";
  return p.kv_len < least_keys_on_tiles ? "fewer than 32 keys" : nullptr;
}

}  // namespace impl

/// Why few rows multiply keys in float, or null where they do on tiles.
template <real T>
char const* why_no_scores_on_tiles(problem<T> const& p) {
  if (char const* const reason = impl::why_not_codes(p, p.k, p.dim))
    return reason;
  bool const far = p.position.has_far() && !p.position.turns_keys(position_code::far);
  return p.position.turns_keys(position_code::near) && !far ? "keys are turned in float" : nullptr;
}
/// The same of values.
template <real T>
char const* why_no_values_on_tiles(problem<T> const& p) {
  return impl::why_not_codes(p, p.v, p.dim_v);
}

#if defined(HEED_HAS_AMX)

/// What a task of few rows asks of the tiles. Rows that are left to float products come as bits, all of them as ~0.
class code_tiles {
 public:
  code_tiles() = default;

  code_tiles(arena& scratch, problem<float> const& p, index rows)
      : rows_(rows), sets_((rows + rows_of_set - 1) / rows_of_set), dim_(p.dim), dim_v_(p.dim_v),
        scores_(why_no_scores_on_tiles(p) == nullptr), values_(why_no_values_on_tiles(p) == nullptr) {
    if (scores_) {
      split_ = scratch.take<std::byte>(impl::tile_size * dim_);
      for (auto& products : products_)
        products = scratch.take<std::int32_t>(2 * sets_ * square);
      for (int which = 0; which < p.position.products(); ++which)
        queries_[which].tiles = scratch.take<std::byte>(sets_ * impl::tile_size * dim_);
    }
    if (values_) {
      weights_ = scratch.take<std::byte>(sets_ * impl::tile_size * keys_in_turn);
      interleaved_ = scratch.take<std::byte>(keys_in_turn * dim_v_);
      sums_ = scratch.take<std::int32_t>(sets_ * impl::tile_size * dim_v_);
    }
  }

  /// Whether there is anything for tiles to do.
  bool used() const { return scores_ || values_; }

  /// Takes in the rows of q for one kind of product.
  void pack(int which, float const* q, index ldq) {
    queries& to = queries_[which];
    to.rows = 0;
    std::fill_n(to.unit, few_rows, 0.0f);
    for (index set = 0; scores_ && set < sets_; ++set) {
      std::fill_n(split_, impl::tile_size * dim_, std::byte{});
      for (index r = set * rows_of_set; r < std::min(rows_, (set + 1) * rows_of_set); ++r) {
        impl::digit_unit const unit = impl::unit_of(q + r * ldq, dim_);
        to.rows |= static_cast<unsigned>(unit.exists) << r;
        to.unit[r] = unit.unit;
        impl::split_row(q + r * ldq, dim_, unit.inverse, split_ + 4 * (r % rows_of_set) * dim_, dim_);
      }
      pack_tiles(to.tiles + set * dim_ * impl::tile_size);
    }
  }

  /// The key block at hand: n rows of k and v, and `behind` keys of the next one.
  void open(stored_rows_at const& k, stored_rows_at const& v, index n, index behind) {
    if (values_)
      values_ahead_ = lines_ahead(v.data, v.ld, dim_v_, n);
    if (scores_)
      keys_ahead_ = lines_ahead(k.data + n * k.ld, k.ld, dim_, behind);
  }
  /// Asks for a part of the values, while row r of the scores becomes weights.
  void ask_beside(index r) { values_ahead_.next(values_ahead_.left() / (rows_ - r)); }

  /// s[r][j] = q_r · k_j for n keys, without the keys' scales, of all rows but those returned.
  unsigned score(int which, stored_rows_at const& k, index n, float* s, index lds) {
    queries const& q = queries_[which];
    if (!scores_ || k.kind != scalar_kind::int8_code || n < least_keys_on_tiles)
      return ~0U;
    sets_ == 1 ? score_sets<1>(q, k, n, s, lds) : score_sets<2>(q, k, n, s, lds);
    return ~q.rows & ((1U << rows_) - 1U);
  }

  /// acc[r] = acc[r] · rescale[r] + Σ_j w[r][j] · v_j over n keys, of all rows but those returned.
  unsigned add_values(stored_rows_at const& v, index n, float const* w, index ldw, float* acc, index ldacc,
                      float const* rescale) {
    impl::digit_unit unit[few_rows];
    if (!values_ || n < least_keys_on_tiles)
      return ~0U;
    unsigned left = 0;
    for (index r = 0; r < rows_; ++r) {
      unit[r] = impl::unit_of(w + r * ldw, n);
      left |= static_cast<unsigned>(!unit[r].exists) << r;
    }
    sets_ == 1 ? sum_values<1>(v, n, w, ldw, unit) : sum_values<2>(v, n, w, ldw, unit);
    for (index r = 0; r < rows_; ++r)
      if (unit[r].exists)
        join(r, unit[r].unit, acc + r * ldacc, rescale[r]);
    return left;
  }

 private:
  static constexpr index rows_of_set = 4;                             // three digits and a gap each fill a tile
  static constexpr index square = impl::tile_size * impl::tile_size;  // sums of a tile
  /// Keys whose values are interleaved at a time, two steps of the product: with 128 channels 16 KiB, which stay in the
  /// first-level cache beside the rows that they come from and the sums, which every turn reads and writes.
  static constexpr index keys_in_turn = 2 * impl::tile_codes;

  struct queries {
    std::byte* tiles = nullptr;  // right operands, [set][step of channels][four channels][row and digit]
    float unit[few_rows];
    unsigned rows;  // those that have digits
  };

  void pack_tiles(std::byte* to) const {
    for (index c = 0; c < dim_; c += impl::tile_codes) {
      batch<float> rows[static_cast<std::size_t>(impl::tile_size)];  // of four codes in each lane
      load_transposed<float>([&](index i) { return reinterpret_cast<float const*>(split_ + i * dim_ + c); }, rows);
      for (index i = 0; i < impl::tile_size; ++i)
        store(reinterpret_cast<float*>(to + (c + i * 4) * impl::tile_size), rows[i]);
    }
  }

  /// Two thirds of the values are asked for here, the rest beside the weights: half, a third or all take 1 to 5 % longer
  /// (`heed_bench_attention --benchmark_filter=decode/32on8_32768/int8/amx`, programs of the four in turns).
  template <int Sets>
  HEED_NOINLINE void score_sets(queries const& q, stored_rows_at const& k, index n, float* s, index lds) {
    constexpr index keys = 2 * impl::tile_size;
    index const asked = values_ahead_.left() / 3 * 2 / ((n + keys - 1) / keys);
    index written = 0;
    for (index j = 0; j < n + keys; j += keys) {
      index const at = std::min(j, n - keys);  // the last keys overlap those before them
      if (j < n) {
        std::byte const* const rows = k.data + at * k.ld;
        impl::multiply_tiles<std::int8_t, Sets * impl::tile_size, 2, Sets, false>(
            {{{rows, rows + impl::tile_size * k.ld}, {k.ld, k.ld}, impl::tile_codes},
             {{q.tiles, q.tiles + dim_ * impl::tile_size}, {64, 64}, square * 4},
             dim_ / impl::tile_codes,
             products_[j / keys % 2]});
      }
      if (j > 0)  // a product late, so that what is read has long been written
        take_scores<Sets>(q, products_[(j / keys + 1) % 2], s + written, lds, asked);
      written = at;
    }
  }

  /// Products of digits with two tiles of keys become their scores; `asked` lines of values are asked for meanwhile.
  template <int Sets>
  HEED_ALWAYS_INLINE void take_scores(queries const& q, std::int32_t const* products, float* s, index lds,
                                      index asked) {
    constexpr index ld = Sets * impl::tile_size;
    for (index set = 0; set < Sets; ++set) {
      batch<float> const weight = impl::weights_of_digits(q.unit + set * rows_of_set);
      index const first = set * rows_of_set, rows = std::min(rows_of_set, rows_ - first);
      for (index j = 0; j < 2 * impl::tile_size; j += impl::tile_size) {
        batch<float> row[static_cast<std::size_t>(rows_of_set)];
        impl::join_columns(products + j * ld + set * impl::tile_size, ld, weight, row);
        for (index r = 0; r < rows; ++r)
          store(s + (first + r) * lds + j, row[r]);
        values_ahead_.next(asked / (2 * Sets));
      }
    }
  }

  /// sums = Σ_j digits of w[r][j] · v_j
  template <int Sets>
  HEED_NOINLINE void sum_values(stored_rows_at const& v, index n, float const* w, index ldw,
                                impl::digit_unit const* unit) {
    auto const* const values = reinterpret_cast<std::int8_t const*>(v.data);
    index const turns = (n + keys_in_turn - 1) / keys_in_turn, asked = keys_ahead_.left() / turns;
    for (index j = 0; j < n; j += keys_in_turn) {
      index const keys = std::min(keys_in_turn, n - j);
      for (index r = 0; r < rows_; ++r)
        impl::split_row(w + r * ldw + j, keys, unit[r].inverse, weights_ + 4 * r * keys_in_turn, keys_in_turn);
      interleave_values(values + j * v.ld, v.ld, keys, asked / 2);
      index const steps = (keys + impl::tile_codes - 1) / impl::tile_codes;
      j == 0 ? multiply_values<Sets, false>(steps, asked / 2) : multiply_values<Sets, true>(steps, asked / 2);
    }
  }

  /// Values of a turn as right operands, [step of keys][four keys][tile]. Keys past the last, which weigh nothing, are the
  /// last once more. `asked` lines of the next block's keys are asked for meanwhile.
  void interleave_values(std::int8_t const* v, index ldv, index keys, index asked) {
    std::byte* to = interleaved_;
    index const rounded = round_up(keys, impl::tile_codes), beside = asked * 4 / rounded;
    for (index j = 0; j < rounded; j += 4) {
      std::int8_t const* rows[4];
      unroll<4>([&](int i) HEED_LAMBDA_INLINE { rows[i] = v + std::min(j + i, keys - 1) * ldv; });
      for (index c = 0; c < dim_v_; c += impl::tile_codes, to += 4 * impl::tile_codes)
        impl::interleave(rows, c, to);
      keys_ahead_.next(beside);
    }
  }

  template <int Sets, bool Accumulate>
  void multiply_values(index steps, index asked) {
    index const tiles = dim_v_ / impl::tile_size, ld = tiles * 64;
    for (index t = 0; t < tiles; t += 2) {
      std::byte const* const right = interleaved_ + t * 64;
      impl::multiply_tiles<std::int8_t, 2 * impl::tile_size, Sets, 2, Accumulate>(
          {{{weights_, weights_ + impl::tile_size * keys_in_turn}, {keys_in_turn, keys_in_turn}, impl::tile_codes},
           {{right, right + 64}, {ld, ld}, impl::tile_size * ld},
           steps,
           sums_of(t)});
      keys_ahead_.next(asked * 2 / tiles);
    }
  }

  /// Sums of an even tile and the next, [set][row and digit][tile][channel].
  std::int32_t* sums_of(index tile) const { return sums_ + tile * sets_ * square; }

  /// acc = acc · rescale + the sums of row r.
  void join(index r, float unit, float* acc, float rescale) const {
    constexpr index ld = 2 * impl::tile_size;
    for (index tile = 0; tile < dim_v_ / impl::tile_size; tile += 4, acc += 4 * impl::tile_size) {
      batch<float> sum[4];
      unroll<4>([&](int t) HEED_LAMBDA_INLINE {
        sum[t] = impl::join_rows(sums_of(tile + t / 2 * 2) + 4 * r * ld + t % 2 * impl::tile_size, ld, unit);
      });
      impl::transpose_quarters(sum);
      unroll<4>([&](int t) HEED_LAMBDA_INLINE {
        float* const place = acc + t * impl::tile_size;
        store(place, fma(load(place), batch<float>(rescale), sum[t]));
      });
    }
  }

  index rows_ = 0, sets_ = 0, dim_ = 0, dim_v_ = 0;
  bool scores_ = false, values_ = false;
  queries queries_[3];
  std::byte* split_ = nullptr;        // digits of a set of queries, [row and digit][channel]
  std::int32_t* products_[2] = {};    // of two tiles of keys, [key][set][row and digit]
  std::byte* weights_ = nullptr;      // digits of a turn's weights, [set][row and digit][key]
  std::byte* interleaved_ = nullptr;  // values of a turn
  std::int32_t* sums_ = nullptr;
  lines_ahead values_ahead_, keys_ahead_;
};

#else

class code_tiles {};

#endif

HEED_ISA_END
}  // namespace heed
