#pragma once

#include <heed/core/amx.hpp>
#include <heed/kernel/modify.hpp>
#include <heed/kernel/prefetch.hpp>
#include <heed/kernel/turners.hpp>
#include <heed/kernel/value_rows.hpp>

#include <utility>

namespace heed {
HEED_ISA_BEGIN

/// Which rows of a (batch, key head) a lane may hold: `heads` query heads side by side, row by row, so that short
/// prompts of grouped heads still fill the vectors.
struct lane_order {
  index heads = 1;       // query heads that share a block
  index first_head = 0;  // the first of them
  index rows = 0;        // rows of a head

  index size() const { return rows * heads; }
  index row(index at) const { return heads == 1 ? at : at / heads; }
  index head(index at) const { return heads == 1 ? first_head : first_head + at % heads; }
};

/// Channels of a block's accumulators: on tiles they come in sixteens.
template <real T>
index accumulator_channels(problem<T> const& p) {
  return p.on_tiles ? round_up(p.dim_v, impl::tile_size) : p.dim_v;
}

/// Numbers of the rows of one lane vector, as they come in or go out.
template <real T>
index rows_at_once(problem<T> const& p) {
  return lanes<T> * round_up<index>(std::max(p.dim, p.dim_v), lanes<T>);
}

/// Up to `block_lanes` queries in lanes, with everything they carry through the pass.
template <real T>
struct query_block {
  T* q[3] = {};         // [dim][lane] for each product of the position code, scaled; or tiles, unscaled
  T* factor = nullptr;  // [lane] scale × row scale
  T* o = nullptr;       // [dim_v][lane], once it is not fresh
  T* m = nullptr;       // [lane] running maximum
  T* l = nullptr;       // [lane] running sum
  T* u = nullptr;       // [lane] running entropy sum
  T* before[4] = {};    // o, m, l and u of earlier keys, where they are too many for one sum
  bool has_before = false;
  bool fresh = true;                         // no values have been added yet: the first to come are stored
  T* step = nullptr;                         // [lane] rows behind the first
  index* row = nullptr;                      // [lane]
  index* head = nullptr;                     // [lane]
  index* keys = nullptr;                     // [lane] n_i, where it is asked for
  lines_ahead output;                        // where its rows will be written
  weighed_keys<T> const* weighed = nullptr;  // instead of o, where one tile holds all keys
  index batch = 0;
  index count = 0;  // lanes in use; those past them repeat the last one's place and are never stored
  int vectors = 0;  // lane vectors in use

  query_block() = default;

  query_block(arena& scratch, problem<T> const& p) {
    constexpr index width = block_lanes<T>;
    index const channels = p.on_tiles ? round_up(p.dim, impl::tile_pairs) / 2 : p.dim;
    for (int i = 0; i < p.position.products(); ++i)
      q[i] = scratch.take<T>(channels * width);
    factor = scratch.take<T>(width);
    if (!p.in_one_tile())
      o = scratch.take<T>(accumulator_channels(p) * width);
    m = scratch.take<T>(width);
    l = scratch.take<T>(width);
    u = scratch.take<T>(width);
    if (p.kv_len > era_keys) {
      before[0] = scratch.take<T>(accumulator_channels(p) * width);
      for (int i = 1; i < 4; ++i)
        before[i] = scratch.take<T>(width);
    }
    step = scratch.take<T>(width);
    row = scratch.take<index>(width);
    head = scratch.take<index>(width);
    keys = scratch.take<index>(width);
  }

  /// Whether lanes hold rows of one head, in order.
  bool one_head(index lane, index lanes_count) const {
    index const last = lane + lanes_count - 1;
    return head[lane] == head[last] && row[last] - row[lane] == lanes_count - 1;
  }

  index first_row(int vector) const { return row[vector * lanes<T>]; }
  index last_row(int vector) const { return row[vector * lanes<T> + lanes<T> - 1]; }
  index first_row() const { return row[0]; }
  index last_row() const { return row[count - 1]; }

  /// Makes the accumulators zeros where no values have been added.
  void settle(index channels) {
    if (std::exchange(fresh, false))
      std::fill_n(o, block_lanes<T> * channels, T(0));
  }
};

/// Adds the sums of earlier keys, if any, to those of the keys since.
template <normalizer_rule Rule, bool Entropy, real T>
HEED_NOINLINE void join_before(query_block<T>& b, index dim_v, T unit) {
  if (!b.has_before)
    return;
  constexpr index width = block_lanes<T>;
  auto const& [o, m, l, u] = b.before;
  for (index lane = 0; lane < b.vectors * lanes<T>; lane += lanes<T>) {
    batch<T> const old = load(m + lane), sum = load(l + lane);
    batch<T> r(T(1)), squared(T(1));
    if constexpr (has_maximum<Rule>) {
      r = rescale_factor<T>(old, load(b.m + lane), batch<T>(unit));
      squared = Rule == normalizer_rule::l2_softmax ? r * r : r;
    }
    if constexpr (Entropy)
      store(b.u + lane, load(b.u + lane) + rescaled_entropy_sum<T>(load(u + lane), sum, old, load(b.m + lane), r));
    store(b.l + lane, fma(sum, squared, load(b.l + lane)));
    for (index c = 0; c < dim_v; ++c)
      store(b.o + c * width + lane, fma(load(o + c * width + lane), r, load(b.o + c * width + lane)));
  }
  b.has_before = false;
}

/// Sets all sums aside as those of earlier keys, if there are any, and begins new ones.
template <normalizer_rule Rule, bool Entropy, real T>
void begin_era(query_block<T>& b, index dim_v, T unit) {
  constexpr index width = block_lanes<T>;
  if (b.fresh)
    return;
  join_before<Rule, Entropy>(b, dim_v, unit);
  std::swap(b.o, b.before[0]);
  std::copy_n(b.m, width, b.before[1]);
  std::swap(b.l, b.before[2]);
  std::swap(b.u, b.before[3]);
  std::fill_n(b.o, width * dim_v, T(0));
  std::fill_n(b.l, width, T(0));
  std::fill_n(b.u, width, T(0));
  b.has_before = true;
}

/// Brings queries into a block: loaded, turned, scaled by scale × row scale, transposed into lanes. The state is empty.
template <real T>
class query_packer {
 public:
  query_packer() = default;

  /// @param rows room for `rows_at_once` numbers, used while packing only
  query_packer(problem<T> const& p, turners<T>* turning, T* rows) : call_(&p), turning_(turning), rows_(rows) {}

  void pack(query_block<T>& to, lane_order const& order, index batch, index first, band const& b) {
    constexpr index width = block_lanes<T>;
    to.batch = batch;
    to.count = std::min(width, order.size() - first);
    to.vectors = static_cast<int>((to.count + lanes<T> - 1) / lanes<T>);
    band const counted = call_->counted(b, batch);
    double const to_unit = call_->natural ? 1.0 : 1.4426950408889634074;
    place(to, order, first);
    bool const one_factor = call_->said.row_scale == row_scale_rule::none;
    std::fill_n(to.keys, width, 0);
    if (call_->counts_rows)
      for (index i = 0; i < to.count; ++i)
        to.keys[i] = call_->visible_keys(counted, batch, to.head[i], to.row[i]);
    if (one_factor)
      std::fill_n(to.factor, width, static_cast<T>(call_->row_factor(0, 0, 0) * to_unit));
    else
      for (index i = 0; i < width; ++i)
        to.factor[i] = static_cast<T>(call_->row_factor(to.head[i], counted.position(to.row[i]), to.keys[i]) * to_unit);
    to.has_before = false;
    std::fill_n(to.m, width, -std::numeric_limits<T>::infinity());
    std::fill_n(to.l, width, T(0));
    std::fill_n(to.u, width, T(0));
    to.fresh = true;
    to.weighed = nullptr;
    if (call_->on_tiles)
      return to.settle(accumulator_channels(*call_));  // the rest is packed by `tile_products`
    for (int product = 0; product < call_->position.products(); ++product)
      for (int v = 0; v < to.vectors; ++v)
        pack_vector(to, v, static_cast<position_code::product>(product), order.heads == 1, b);
  }

  /// The rows of a lane vector, turned, as many as it holds; good until the next ones come.
  tile_rows_at<T> turned_rows(query_block<T> const& to, int vector, position_code::product which, band const& b) {
    load_and_turn(to, vector * lanes<T>, std::min<index>(lanes<T>, to.count - vector * lanes<T>), which, b);
    return {rows_, padded()};
  }

 private:
  index padded() const { return round_up<index>(call_->dim, lanes<T>); }

  /// Which row and head each lane holds.
  static void place(query_block<T>& to, lane_order const& order, index first) {
    constexpr index width = block_lanes<T>;
    index const last = first + to.count - 1;
    for (index i = 0; i < width; ++i)
      to.row[i] = std::min(first + i, last);
    std::fill_n(to.head, width, order.first_head);
    if (order.heads > 1)
      for (index i = 0; i < width; ++i) {
        to.head[i] = order.head(to.row[i]);
        to.row[i] = order.row(to.row[i]);
      }
    for (index i = 0; i < width; ++i)
      to.step[i] = static_cast<T>(to.row[i] - to.row[0]);
  }

  void pack_vector(query_block<T>& to, int vector, position_code::product which, bool one_head, band const& b) {
    index const lane = vector * lanes<T>, count = std::min<index>(lanes<T>, to.count - lane);
    operand const& q = call_->q;
    T const* rows = rows_;
    index ld = padded();
    if (one_head && in_place<T>(q) && !call_->position.rotates()) {
      rows = reinterpret_cast<T const*>(q.at(to.batch, to.head[lane], to.row[lane], 0));
      ld = q.strides[2];
    } else {
      load_and_turn(to, lane, count, which, b);
    }
    pack_lanes(rows, ld, count, call_->dim, to.factor + lane, to.q[which] + lane, index{block_lanes<T>});
  }

  void load_and_turn(query_block<T> const& to, index lane, index count, position_code::product which, band const& b) {
    operand const& q = call_->q;
    auto const position = [&](index i) { return call_->position.query_turn(which, b.position(to.row[lane + i])); };
    auto const place = [&](index i) { return q.at(to.batch, to.head[lane + i], to.row[lane + i], 0); };
    bool const turns = call_->position.rotates();
    tile_rows_at<T> from{rows_, padded()};
    if (turns && in_place<T>(q) && to.one_head(lane, count))
      from = {reinterpret_cast<T const*>(place(0)), q.strides[2]};
    else
      for (index i = 0; i < count; ++i)
        load_rows(place(i), q.kind, q.strides[2], q.strides[3], 1, call_->dim, rows_ + i * padded(), padded());
    if (turns)
      turn_into(turning_->queries(which), count, position, from, rows_, padded(), call_->dim);
  }

  problem<T> const* call_ = nullptr;
  turners<T>* turning_ = nullptr;
  T* rows_ = nullptr;
};

/// Takes finished rows out of a block: divided, gated, transposed back, rounded into the storage of `out`.
template <real T>
class row_writer {
 public:
  row_writer() = default;

  row_writer(arena& scratch, problem<T> const& p) : row_writer(scratch, p, scratch.take<T>(rows_at_once(p))) {}

  /// @param rows room for `rows_at_once` numbers, used while writing only
  row_writer(arena& scratch, problem<T> const& p, T* rows) : call_(&p), rows_(rows) {
    if (p.said.gate)
      gate_ = scratch.take<T>(padded());
    if (p.said.normalizer == normalizer_rule::none)
      scores_ = scratch.take<T>(lanes<T> * key_block);
  }

  template <normalizer_rule Rule>
  void write(query_block<T> const& from) const {
    if (Rule == normalizer_rule::softmax && write_plain(from))
      return;
    for (int v = 0; v < from.vectors; ++v)
      write_vector<Rule>(from, v);
  }

  /// Where the rows of a block will be written, if they lie evenly.
  lines_ahead lines(query_block<T> const& of) const {
    row_sink const& out = call_->out;
    if (out.strides[3] != 1 || !of.one_head(0, of.count))
      return {};
    index const size = size_of(out.kind);
    return {out.row(of.batch, of.head[0], of.row[0]), out.strides[2] * size, call_->dim_v * size, of.count};
  }

  /// Scores of a tile, `[key][lane]`, to where they belong in `out` [batch, heads_q, q_len, kv_len].
  void write_scores(query_block<T> const& from, T const* s, segment const& part, index first_key) const {
    constexpr index width = block_lanes<T>;
    alignas(64) T ones[static_cast<std::size_t>(lanes<T>)];
    std::fill_n(ones, lanes<T>, T(1));
    index const n = part.end - part.begin;
    for (int v = part.first; v < part.first + part.count; ++v) {
      index const lane = v * lanes<T>, count = std::min<index>(lanes<T>, from.count - lane);
      unpack_lanes(s + part.begin * width + lane, width, n, ones, scores_, key_block, count);
      for (index i = 0; i < count; ++i)
        store_row(scores_ + i * key_block, n, cell(from, lane + i, first_key + part.begin), call_->out.kind,
                  call_->out.strides[3]);
    }
  }

  /// −inf over all keys of the block's rows, before the visible ones are written.
  void hide_scores(query_block<T> const& from) const {
    std::fill_n(scores_, key_block, -std::numeric_limits<T>::infinity());
    for (index i = 0; i < from.count; ++i)
      for (index j = 0; j < call_->kv_len; j += key_block)
        store_row(scores_, std::min(key_block, call_->kv_len - j), cell(from, i, j), call_->out.kind,
                  call_->out.strides[3]);
  }

  /// Gates and stores one row that is already divided, and its extra outputs. `row` is scratch and may be changed.
  void finish(index batch, index head, index i, row_result const& r, T* row) const {
    index const n = call_->dim_v;
    if (r.empty) {
      std::fill_n(row, n, T(0));
    } else if (operand const& gate = call_->said.gate) {
      load_rows(gate.at(batch, head, i, 0), gate.kind, 0, gate.strides[3], 1, n, gate_, n);
      for (index c = 0; c < n; ++c)
        row[c] *= gate_[c];
    }
    store_row(row, n, call_->out.row(batch, head, i), call_->out.kind, call_->out.strides[3]);
    report(batch, head, i, r);
  }

 private:
  /// A block whose rows are nothing but divided by their sums, all at once; false where more is asked.
  bool write_plain(query_block<T> const& from) const {
    description const& said = call_->said;
    if (said.lse || said.entropy || said.sink_logits || !writes_through(from, 0, from.count))
      return false;
    alignas(64) T factor[static_cast<std::size_t>(block_lanes<T>)];
    for (index lane = 0; lane < from.count; lane += lanes<T>) {
      batch<T> const l = load(from.l + lane);
      if (heed::any<T>(l == batch<T>(T(0))))
        return false;
      store(factor + lane, quotient<T>(batch<T>(T(1)), l));
    }
    write_rows(from, 0, from.count, factor);
    return true;
  }

  template <normalizer_rule Rule>
  void write_vector(query_block<T> const& from, int vector) const {
    index const lane = vector * lanes<T>, count = std::min<index>(lanes<T>, from.count - lane);
    row_result results[static_cast<std::size_t>(lanes<T>)];
    alignas(64) T factor[static_cast<std::size_t>(lanes<T>)] = {};
    bool any_empty = false;
    for (index i = 0; i < count; ++i) {
      index const at = lane + i;
      results[i] = finish_row<Rule>(*call_, from.head[at], from.m[at], from.l[at], from.u[at], from.keys[at]);
      factor[i] = static_cast<T>(results[i].factor);
      any_empty = any_empty || results[i].empty;
    }
    if (!any_empty && writes_through(from, lane, count)) {
      write_rows(from, lane, count, factor);
      for (index i = 0; i < count; ++i)
        report(from.batch, from.head[lane + i], from.row[lane + i], results[i]);
      return;
    }
    bring(from, lane, count, factor, rows_, padded());
    for (index i = 0; i < count; ++i)
      finish(from.batch, from.head[lane + i], from.row[lane + i], results[i], rows_ + i * padded());
  }

  void write_rows(query_block<T> const& from, index lane, index count, T const* factor) const {
    auto* const rows = reinterpret_cast<T*>(call_->out.row(from.batch, from.head[lane], from.row[lane]));
    bring(from, lane, count, factor, rows, call_->out.strides[2]);
  }

  /// Rows times their factors.
  void bring(query_block<T> const& from, index lane, index count, T const* factor, T* rows, index ld) const {
    if (from.weighed != nullptr)
      return value_rows(*from.weighed, lane, count, call_->dim_v, factor, rows, ld);
    for (index i = 0; i < count; i += lanes<T>)
      unpack_lanes(from.o + lane + i, index{block_lanes<T>}, call_->dim_v, factor + i, rows + i * ld, ld,
                   std::min<index>(lanes<T>, count - i));
  }

  /// Whether rows can be transposed straight into `out`: nothing to convert, no gate, and rows of one head.
  bool writes_through(query_block<T> const& from, index lane, index count) const {
    if (call_->out.kind != kind_of<T>() || call_->out.strides[3] != 1 || call_->said.gate)
      return false;
    return from.one_head(lane, count);
  }

  void report(index batch, index head, index i, row_result const& r) const {
    if (call_->said.lse)
      call_->said.lse.store(batch, head, i, r.lse);
    if (call_->said.entropy)
      call_->said.entropy.store(batch, head, i, r.empty ? 0 : r.entropy);
  }

  index padded() const { return round_up<index>(call_->dim_v, lanes<T>); }

  std::byte* cell(query_block<T> const& from, index lane, index key) const {
    return call_->out.row(from.batch, from.head[lane], from.row[lane]) +
           key * call_->out.strides[3] * size_of(call_->out.kind);
  }

  problem<T> const* call_ = nullptr;
  T* rows_ = nullptr;
  T* gate_ = nullptr;
  T* scores_ = nullptr;
};

HEED_ISA_END
}  // namespace heed
