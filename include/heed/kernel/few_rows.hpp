#pragma once

#include <heed/kernel/code_tiles.hpp>
#include <heed/kernel/modify.hpp>
#include <heed/kernel/query_block.hpp>
#include <heed/kernel/row_products.hpp>

/// The pass for a few query rows (decode): the same stages, the same maps, with lanes along the channels in the
/// products and along the keys in between. All query heads of a group share each key load; long key ranges are cut by
/// shape into pieces whose states are merged in order. With a permit for AMX int8 rows are multiplied on tiles
/// (code_tiles.hpp); what those leave is multiplied in float.

namespace heed {
HEED_ISA_BEGIN

/// Which keys of a block a row sees, one bit each.
using key_bits = std::uint64_t[few_keys / 64];

struct few_rows_shape {
  index rows = 1;           // query rows of a (batch, key head): q_len × group
  index keys = 1;           // keys of a block
  index splits = 1;         // the most pieces that any batch's keys are cut into
  std::size_t scratch = 0;  // bytes a worker
  std::size_t partial = 0;  // bytes of one (batch, key head)'s states, where splits > 1
};

/// The states of a task's rows.
template <real T>
struct row_states {
  T* acc = nullptr;  // [row][padded dim_v]
  T* m = nullptr;    // [row]
  T* l = nullptr;
  T* u = nullptr;
  index ld = 0;

  row_states() = default;
  row_states(arena& memory, index rows, index dim_v) : ld(round_up<index>(dim_v, lanes<T>)) {
    acc = memory.take<T>(rows * ld);
    for (T** piece : {&m, &l, &u})
      *piece = memory.take<T>(rows);
  }

  void clear(index rows) {
    std::fill_n(acc, rows * ld, T(0));
    std::fill_n(m, rows, -std::numeric_limits<T>::infinity());
    std::fill_n(l, rows, T(0));
    std::fill_n(u, rows, T(0));
  }

  static std::size_t bytes(index rows, index dim_v) {
    arena counting;
    row_states(counting, rows, dim_v);
    return counting.used();
  }
};

template <real T>
struct few_rows_scratch {
  turners<T>* turning = nullptr;
  T* q[3] = {};  // [row][padded dim]
  index ldq = 0;
  row_states<T> state;
  key_tiles<T> tiles;
  code_tiles codes;  // where products run on AMX
  row_writer<T> writer;
  T* s = nullptr;  // [row][lds] scores, then weights
  index lds = 0;
  T* plane = nullptr;  // [2][lds]

  few_rows_scratch(arena& memory, problem<T> const& p, index rows, index block_keys)
      : turning(turners<T>::in(memory, p)), ldq(round_up<index>(p.dim, lanes<T>)) {
    index const keys = std::min(block_keys, std::max<index>(p.kv_len, 1));
    lds = round_up<index>(keys + score_room, lanes<T>);
    for (int i = 0; i < p.position.products(); ++i)
      q[i] = memory.take<T>(rows * ldq);
    state = row_states<T>(memory, rows, p.dim_v);
    tiles = key_tiles<T>(memory, p, turning, keys, widening::as_read);
    if constexpr (has_tiles<T>)
      if (p.said.amx)
        codes = code_tiles(memory, p, rows);
    writer = row_writer<T>(memory, p);
    s = memory.take<T>(rows * lds);
    if (p.additive())
      plane = memory.take<T>(2 * lds);
  }

  static std::size_t bytes(problem<T> const& p, index rows, index keys) {
    arena counting;
    few_rows_scratch(counting, p, rows, keys);
    return counting.used();
  }
};

template <real T, class Maps, normalizer_rule Rule, bool Entropy>
class few_rows_pass {
 public:
  static few_rows_shape shape(problem<T> const& p) {
    few_rows_shape s;
    s.rows = p.q_len * p.group();
    s.keys = block_keys(p);
    for (index b = 0; b < p.batch; ++b)
      s.splits = std::max(s.splits, splits_of(p, p.band_of(b)));
    s.scratch = few_rows_scratch<T>::bytes(p, s.rows, s.keys);
    if (s.splits > 1)
      s.partial = static_cast<std::size_t>(s.splits) * row_states<T>::bytes(s.rows, p.dim_v);
    return s;
  }

  /// Into how many pieces a batch's keys are cut: a matter of its visible range alone.
  static index splits_of(problem<T> const& p, band const& b) {
    index const keys = block_keys(p);
    return std::clamp<index>(blocks_of(p, b, keys) * keys / split_keys, 1, most_splits);
  }

  static index block_keys(problem<T> const& p) {
    bool const converts = key_tiles<T>::converts_keys(p, false, widening::as_read) || !in_registers<T>(p.v);
    return converts ? few_converted_keys : few_keys;
  }

  few_rows_pass(problem<T> const& p, Maps const& maps, few_rows_shape const& shape, arena scratch)
      : call_(p), maps_(maps), shape_(shape), own_(scratch, p, shape.rows, shape.keys) {}

  /// One piece of one (batch, key head). Where the keys are in several pieces, the state goes to `partial`.
  void run(index pair, index split, std::byte* partial) {
    if constexpr (has_tiles<T>) {
      if (own_.codes.used()) {
        [[maybe_unused]] impl::tile_session const here;
        return attend<true>(pair, split, partial);
      }
    }
    attend<false>(pair, split, partial);
  }

  /// Merges the pieces of one (batch, key head), in order, and finishes its rows.
  void merge(index pair, std::byte* partial) {
    open(pair);
    index const splits = splits_of(call_, band_);
    if (splits == 1)
      return;
    row_states<T> total = state_at(partial, 0);
    for (index split = 1; split < splits; ++split) {
      row_states<T> const part = state_at(partial, split);
      for (index r = 0; r < shape_.rows; ++r)
        merge_states(total.m[r], total.l[r], total.u[r], total.acc + r * total.ld, part.m[r], part.l[r], part.u[r],
                     part.acc + r * part.ld, call_.dim_v, call_.unit(), has_maximum<Rule>,
                     Rule == normalizer_rule::l2_softmax);
    }
    write(total);
  }

 private:
  using values_ahead = impl::row_fetcher<std::byte>;

  /// @tparam OnTiles whether codes are multiplied on AMX
  template <bool OnTiles>
  HEED_NOINLINE void attend(index pair, index split, std::byte* partial) {
    open(pair);
    index const splits = splits_of(call_, band_);
    if (split >= splits)
      return;
    pack();
    if constexpr (OnTiles)
      for (int which = 0; which < call_.position.products(); ++which)
        own_.codes.pack(which, own_.q[which], own_.ldq);
    own_.state.clear(shape_.rows);
    index const blocks = blocks_of(call_, band_, shape_.keys), first = split * blocks / splits,
                last = (split + 1) * blocks / splits;
    index at = 0;
    for (block_walk walk(band_, 0, call_.q_len - 1, shape_.keys); !walk.done(); walk.advance(), ++at)
      if (at >= first && at < last)
        key_block_at<OnTiles>(walk.begin(), at + 1 < last);
    if (splits == 1)
      write(own_.state);
    else
      save(state_at(partial, split));
  }

  static index blocks_of(problem<T> const& p, band const& b, index keys) {
    index n = 0;
    for (block_walk walk(b, 0, p.q_len - 1, keys); !walk.done(); walk.advance())
      ++n;
    return n;
  }

  // Row r of a task: query i of head h.
  index query_of(index r) const { return r / call_.group(); }
  index head_of(index r) const { return key_head_ * call_.group() + r % call_.group(); }

  void open(index pair) {
    batch_ = pair / call_.heads_kv;
    key_head_ = pair % call_.heads_kv;
    band_ = call_.band_of(batch_);
  }

  row_states<T> state_at(std::byte* partial, index split) const {
    arena memory(partial + static_cast<std::size_t>(split) * row_states<T>::bytes(shape_.rows, call_.dim_v));
    return row_states<T>(memory, shape_.rows, call_.dim_v);
  }

  void save(row_states<T> const& to) const {
    index const rows = shape_.rows;
    std::copy_n(own_.state.acc, rows * to.ld, to.acc);
    std::copy_n(own_.state.m, rows, to.m);
    std::copy_n(own_.state.l, rows, to.l);
    std::copy_n(own_.state.u, rows, to.u);
  }

  void pack() {
    for (int which = 0; which < call_.position.products(); ++which)
      for (index r = 0; r < shape_.rows; ++r) {
        index const i = query_of(r);
        load_query(call_, own_.turning, static_cast<position_code::product>(which), batch_, head_of(r), i,
                   band_.position(i), own_.q[which] + r * own_.ldq, own_.ldq);
      }
    band const counted = call_.counted(band_, batch_);
    for (index r = 0; r < shape_.rows; ++r) {
      index const i = query_of(r), head = head_of(r);
      keys_[r] = call_.counts_rows ? call_.visible_keys(counted, batch_, head, i) : 0;
      auto const factor = static_cast<T>(call_.row_factor(head, counted.position(i), keys_[r]) *
                                         (call_.natural ? 1.0 : 1.4426950408889634074));
      for (int which = 0; which < call_.position.products(); ++which)
        for (index c = 0; c < call_.dim; ++c)
          own_.q[which][r * own_.ldq + c] *= factor;
    }
  }

  template <bool OnTiles>
  void key_block_at(index begin, [[maybe_unused]] bool more) {
    key_range const all{begin, std::min(begin + shape_.keys, band_.kv_len)};
    key_range const keys = hull(band_, 0, call_.q_len - 1, all);
    if (keys.empty())
      return;
    block_begin_ = keys.begin;
    own_.tiles.open(batch_, key_head_, keys);
    index const n = keys.end - keys.begin;
    if constexpr (OnTiles)
      open_codes(keys, more);
    score<OnTiles>(n);
    values_ahead ahead = fetch_values();
    bool hides = false;
    for (index r = 0; r < shape_.rows; ++r) {
      if constexpr (OnTiles)
        own_.codes.ask_beside(r);
      hides = weigh(r, n, ahead) || hides;
    }
    accumulate<OnTiles>(n, hides);
  }

  void open_codes(key_range keys, bool more) {
    if (!call_.position.has_far())
      own_.codes.open(own_.tiles.stored_keys(position_code::near, keys.begin), own_.tiles.stored_values(),
                      keys.end - keys.begin, more ? std::min(shape_.keys, band_.kv_len - keys.end) : 0);
  }

  values_ahead fetch_values() {
    stored_rows_at const v = own_.tiles.stored_values();
    index const bytes = size_of(v.kind);
    return values_ahead(v.data, v.ld * bytes, call_.dim_v * bytes, impl::in_one_pass<T>(shape_.rows, call_.dim_v),
                        v.in_memory);
  }

  template <bool OnTiles>
  void score(index n) {
    if (!call_.position.has_far())
      return product<OnTiles>(0, shape_.rows, position_code::near, 0, n);
    // Rows of one query share their position, so their keys fall apart into far | near | far ahead.
    for (index i = 0; i < call_.q_len; ++i) {
      index const position = band_.position(i), first = i * call_.group();
      for (index begin = 0, end = 0; begin < n; begin = end) {
        auto const which = call_.position.at(position - (block_begin_ + begin));
        for (end = begin + 1; end < n && call_.position.at(position - (block_begin_ + end)) == which;)
          ++end;
        product<OnTiles>(first, call_.group(), which, begin, end);
      }
    }
  }

  template <bool OnTiles>
  void product(index first_row, index rows, position_code::product which, index begin, index end) {
    stored_rows_at const k = own_.tiles.stored_keys(which, block_begin_ + begin).from(begin);
    T* const s = own_.s + first_row * own_.lds + begin;
    unsigned left = all_rows;
    if constexpr (OnTiles)
      if (rows == shape_.rows)
        left = own_.codes.score(which, k, end - begin, s, own_.lds);
    each_left(left, first_row, rows, [&](index r, index count) {
      row_scores<T>(k, end - begin, own_.q[which] + r * own_.ldq, own_.ldq, count, call_.dim,
                    own_.s + r * own_.lds + begin, own_.lds);
    });
    if (k.scales != nullptr)
      for (index r = 0; r < rows; ++r)
        scale_keys(s + r * own_.lds, k.scales, k.scale_stride, end - begin);
  }

  /// Sets of rows, a bit each: what the tiles leave to float products.
  static constexpr unsigned all_rows = ~0U;

  /// Calls f(first row, how many) for all of `rows` rows, or for those of them that are left, one by one.
  template <class F>
  static void each_left(unsigned left, index first, index rows, F&& f) {
    if (left == all_rows)
      return f(first, rows);
    for (index r = 0; r < rows; ++r)
      if ((left >> r & 1U) != 0)
        f(first + r, 1);
  }

  /// Modify and normalise for one row; returns whether it hides any key of the block.
  bool weigh(index r, index n, values_ahead& ahead) {
    constexpr index w = lanes<T>;
    T* const s = own_.s + r * own_.lds;
    constexpr T nothing = -std::numeric_limits<T>::infinity();
    for (index j = n; j < round_up(n, w); ++j)
      s[j] = nothing;
    index const i = query_of(r);
    bool const mixed = !all_visible(band_, i, i, {block_begin_, block_begin_ + n});
    bool const hides = mixed || Maps::hide_keys || call_.additive();
    if (mixed && call_.additive())
      modify<true, true>(r, n);
    else if (mixed)
      modify<true, false>(r, n);
    else if (call_.additive())
      modify<false, true>(r, n);
    else if (Maps::any)
      modify<false, false>(r, n);
    if (has_maximum<Rule> || hides || Maps::any)
      renew_maximum(r, n);
    else
      own_.state.m[r] = T(0), rescale_[r] = T(1);  // all of these keys are seen: any number above −inf says so
    auto const weigh = [&](auto scaled) {
      shape_.rows == 1 ? take_weights<scaled(), true>(r, n, ahead) : take_weights<scaled(), false>(r, n, ahead);
    };
    has_maximum<Rule>&& call_.natural ? weigh(std::bool_constant<has_maximum<Rule>>{}) : weigh(std::false_type{});
    return hides;
  }

  template <bool Band, bool Planes>
  HEED_NOINLINE void modify(index r, index n) {
    constexpr index w = lanes<T>;
    T* const s = own_.s + r * own_.lds;
    index const i = query_of(r), head = head_of(r), position = band_.position(i);
    if constexpr (Planes)
      fill_planes(call_.extra, batch_, head, i, position, block_begin_, n, own_.plane, own_.plane + own_.lds);
    auto const inside = [&](index key) {
      return batch<T>(static_cast<T>(std::clamp<index>(key - block_begin_, 0, few_keys)));
    };
    batch<T> const lo = inside(band_.lo(i)), hi = inside(std::min(band_.hi(i), block_begin_ + n)),
                   prefix = inside(std::min(band_.prefix(i), block_begin_ + n));
    std::fill(std::begin(seen_[r]), std::end(seen_[r]), 0);
    maps_.with_head(head, [&](auto const& here) {
      for (index t = 0; t < n; t += w) {
        batch<T> const key = iota<T>() + batch<T>(static_cast<T>(t));
        site<batch<T>> const at(batch<T>(static_cast<T>(position)), key + batch<T>(static_cast<T>(block_begin_)),
                                batch<T>(static_cast<T>(position - block_begin_)) - key, batch_, head);
        batch<T> const plane_of = Planes ? load(own_.plane + t) : lo;
        std::uint64_t bits = 0;
        store(s + t, impl::modified<Band, Planes>(here, load(s + t), at, plane_of, key, lo, hi, prefix, bits));
        seen_[r][t / 64] |= bits << t % 64;
      }
    });
    for (index j = n; j < round_up(n, w); ++j)
      s[j] = -std::numeric_limits<T>::infinity();
  }

  void renew_maximum(index r, index n) {
    row_states<T>& state = own_.state;
    T const* const s = own_.s + r * own_.lds;
    batch<T> top = load(s);
    batch<T> const nothing(-std::numeric_limits<T>::infinity());
    top = heed::max(top, nothing);
    for (index t = lanes<T>; t < n; t += lanes<T>)
      top = heed::max(load(s + t), top);
    T const old = state.m[r], renewed = heed::max(reduce_max(top), old);
    state.m[r] = renewed;
    rescale_[r] = T(1);
    if constexpr (has_maximum<Rule>) {
      T const factor = rescale_[r] = rescale_factor<T>(old, renewed, call_.unit());
      if constexpr (Entropy)
        state.u[r] = rescaled_entropy_sum<T>(state.u[r], state.l[r], old, renewed, factor);
      state.l[r] *= Rule == normalizer_rule::l2_softmax ? factor * factor : factor;
    }
  }

  /// Nothing is read meanwhile: so that memory does not idle, a 32nd of the values is asked for beside a single row, which
  /// takes up to 7 % off 512 keys that lie in the cache. Beside four rows it costs 1 to 3 %
  /// (`bench/peers/run.sh --filter decode/8on8_512` with old and new programs in turns).
  template <bool Scaled, bool Alone>
  HEED_NOINLINE void take_weights(index r, index n, values_ahead& ahead) {
    index const lines = lanes<T> * call_.dim_v * size_of(call_.v.kind) / (32 * 64);
    T* const s = own_.s + r * own_.lds;
    batch<T> const top(safe_maximum<T>(own_.state.m[r]));
    batch<T> total(T(0)), spread(T(0));
    for (index t = 0; t < n; t += lanes<T>) {
      batch<T> const score = load(s + t), weight = weight_of<Rule, Scaled>(score, top);
      for (index line = 0; Alone && line < lines; ++line)
        ahead.next();
      total = added_to_sum<Rule>(weight, total);
      if constexpr (Entropy)
        spread = added_to_entropy(weight, score, top, spread);
      store(s + t, weight);
    }
    own_.state.l[r] += reduce_add(total);
    if constexpr (Entropy)
      own_.state.u[r] += reduce_add(spread);
  }

  template <bool OnTiles>
  void accumulate(index n, bool hides) {
    stored_rows_at const v = own_.tiles.stored_values();
    row_states<T>& state = own_.state;
    bool const guarded = hides && !own_.tiles.values_finite();
    if (v.scales != nullptr)
      for (index r = 0; r < shape_.rows; ++r)
        scale_keys(own_.s + r * own_.lds, v.scales, v.scale_stride, n,
                   guarded && hides_keys(r, n) ? seen_[r] : nullptr);
    if (!guarded || v.scales != nullptr) {
      unsigned left = all_rows;
      if constexpr (OnTiles)
        left = own_.codes.add_values(v, n, own_.s, own_.lds, state.acc, state.ld, rescale_);
      return each_left(left, 0, shape_.rows, [&](index r, index count) {
        row_values<T>(v, n, own_.s + r * own_.lds, own_.lds, count, call_.dim_v, state.acc + r * state.ld, state.ld,
                      rescale_ + r);
      });
    }
    for (index r = 0; r < shape_.rows; ++r)
      guarded_row_values<T>(v, n, own_.s + r * own_.lds, hides_keys(r, n) ? seen_[r] : nullptr, call_.dim_v,
                            state.acc + r * state.ld, rescale_[r]);
  }

  /// Whether some of the block's keys may be hidden from a row: `seen_` tells which.
  bool hides_keys(index r, index n) const {
    return Maps::hide_keys || call_.additive() ||
           !all_visible(band_, query_of(r), query_of(r), {block_begin_, block_begin_ + n});
  }

  void write(row_states<T> const& state) {
    for (index r = 0; r < shape_.rows; ++r) {
      index const i = query_of(r), head = head_of(r);
      index n = keys_[r];
      if (call_.counts_rows && n == 0)
        n = call_.visible_keys(band_, batch_, head, i);
      row_result const result = finish_row<Rule>(call_, head, state.m[r], state.l[r], state.u[r], n);
      T* const row = state.acc + r * state.ld;
      for (index c = 0; c < call_.dim_v; ++c)
        row[c] *= static_cast<T>(result.factor);
      own_.writer.finish(batch_, head, i, result, row);
    }
  }

  problem<T> const& call_;
  Maps const& maps_;
  few_rows_shape shape_;
  few_rows_scratch<T> own_;
  index keys_[few_rows] = {};     // n_i, where it is asked for
  key_bits seen_[few_rows] = {};  // visible keys of the block
  T rescale_[few_rows] = {};
  index batch_ = 0, key_head_ = 0, block_begin_ = 0;
  band band_;
};

HEED_ISA_END
}  // namespace heed
