#pragma once

#include <heed/gated/linear_problem.hpp>
#include <heed/kernel/load.hpp>
#include <heed/kernel/products.hpp>

/// Linear attention, chunk by chunk, on the products of the pass.
///
/// The state S [features][dim_v] is kept in panels of `block_lanes` value columns. Three of the kernel's two products
/// make a chunk: scores of its keys against its queries (lanes: queries), their values plus the state's (lanes:
/// queries), and the keys' values into the state (lanes: value columns). Value columns are cut into tasks, so that the
/// state of a wide dim_v is never whole in one worker's cache.

namespace heed {
HEED_ISA_BEGIN

template <real T, class Map>
class linear_pass {
 public:
  static constexpr index width = block_lanes<T>;

  static linear_shape shape(linear_problem<T> const& p, Map const& map) {
    linear_shape s;
    index const all = std::max<index>(1, (p.dim_v + width - 1) / width);
    s.panels = all;
    // Half of what a worker may have: the state and the chunk stay in the second-level cache together.
    while (s.panels > 1 && (s.scratch = bytes(p, map, s.panels)) > scratch_limit / 2)
      s.panels = (s.panels + 1) / 2;
    s.scratch = bytes(p, map, s.panels);
    s.column_blocks = (all + s.panels - 1) / s.panels;
    s.tasks = p.batch * p.heads_kv * tasks_a_head(p, s);
    return s;
  }

  linear_pass(linear_problem<T> const& p, Map const& map, linear_shape const& shape, arena memory)
      : call_(p), map_(map), shape_(shape) {
    take(memory);
  }

  void run(index task) {
    index const cuts = tasks_a_head(call_, shape_), pair = task / cuts;
    batch_ = pair / call_.heads_kv;
    head_ = pair % call_.heads_kv;
    keys_ = call_.keys_of(batch_);
    offset_ = call_.offset_of(batch_);
    index const first = cuts == 1 ? 0 : task % cuts, last = cuts == 1 ? shape_.column_blocks : first + 1;
    for (index block = first; block < last; ++block) {
      first_column_ = block * shape_.panels * width;
      columns_ = std::min(shape_.panels * width, call_.dim_v - first_column_);
      last_columns_ = block + 1 == last;
      std::fill_n(v_, shape_.panels * width * width, T(0));
      load_state();
      if (call_.chunk > 0)
        call_.causal ? chunks() : everything();
      else if (!call_.causal)
        everything();
      else
        call_.by_rows() ? rows() : positions();
    }
  }

 private:
  // Sums over keys are shared by all columns, so normalised calls keep a head's columns in one task.
  static index tasks_a_head(linear_problem<T> const& p, linear_shape const& s) {
    return p.normalized ? 1 : s.column_blocks;
  }

  static std::size_t bytes(linear_problem<T> const& p, Map const& map, index panels) {
    linear_shape s;
    s.panels = panels;
    linear_pass counting(p, map, s);
    arena memory;
    return counting.take(memory);
  }
  linear_pass(linear_problem<T> const& p, Map const& map, linear_shape const& shape)
      : call_(p), map_(map), shape_(shape) {}

  std::size_t take(arena& memory) {
    index const r = call_.features, lines = round_up<index>(std::max(r, call_.dim), lanes<T>);
    state_ = memory.take<T>(shape_.panels * r * width);
    sums_ = memory.take<T>(r);
    q_ = memory.take<T>(r * width);
    k_ = memory.take<T>(width * r);
    plain_q_ = call_.turns && call_.normalized ? memory.take<T>(r * width) : q_;
    plain_k_ = call_.turns && call_.normalized ? memory.take<T>(width * r) : k_;
    v_ = memory.take<T>(shape_.panels * width * width);
    o_ = memory.take<T>(shape_.panels * width * width);
    s_ = memory.take<T>(width * width);
    for (T** piece : {&gain_, &factor_, &total_, &ones_})
      *piece = memory.take<T>(width);
    channel_gain_ = memory.take<T>(r);
    seen_ = memory.take<std::uint64_t>(width);
    raw_ = memory.take<T>(lanes<T> * lines);
    mapped_ = memory.take<T>(lanes<T> * lines);
    row_ = memory.take<T>(lanes<T> * width);
    gate_ = memory.take<T>(width);
    if (call_.turns)
      turning_ = memory.take<std::byte>(static_cast<index>(rotator<T>::scratch_bytes(call_.turn.pairs)));
    return memory.used();
  }

  // --- the walks ---------------------------------------------------------------------------------------------------

  index first_query(index position) const { return std::clamp<index>(position - offset_, 0, call_.q_len); }

  /// Rows before position 0 see nothing.
  void empty_rows() {
    for (index i = 0; i < first_query(0); ++i)
      for (index h = 0; h < group(); ++h)
        empty_row(head_ * group() + h, i);
  }

  /// Causal: chunks of `width` positions, never across the end of the keys, whose state is handed out.
  void positions() {
    empty_rows();
    index const end = std::max(offset_ + call_.q_len, call_.state_out.data ? keys_ : 0);
    for (index t = 0; t < end;) {
      if (t == keys_)
        store_state();
      if (t >= keys_ && offset_ > t) {
        decay_alone(offset_ - t);
        t = offset_;
      }
      index const stop = std::min({t + width, end, t < keys_ ? keys_ : end});
      read_gains(t, stop - t);
      index const keys = t < keys_ ? stop - t : 0;
      load_keys(t, keys);
      index const first = first_query(t), last = first_query(stop);
      for (index h = 0; h < group() && first < last; ++h)
        read_rows(head_ * group() + h, first, last - first, first + offset_ - t, keys, stop - t);
      absorb(keys, stop - t);
      t = stop;
    }
    if (end <= keys_)
      store_state();
  }

  /// Every row sees every key.
  void everything() {
    std::fill_n(gain_, width, T(1));
    for (index t = 0; t < keys_; t += width) {
      index const keys = std::min(width, keys_ - t);
      load_keys(t, keys);
      absorb(keys, keys);
    }
    store_state();
    for (index h = 0; h < group(); ++h)
      for (index i = 0; i < call_.q_len; i += width)
        read_state_rows(head_ * group() + h, i, std::min(width, call_.q_len - i), keys_);
  }

  /// Causal, chunks of the caller's length: rows see the state before their chunk.
  void chunks() {
    std::fill_n(gain_, width, T(1));
    for (index begin = 0; begin < call_.q_len; begin += call_.chunk) {
      index const end = std::min(begin + call_.chunk, call_.q_len), last_key = std::min(end, keys_);
      for (index i = begin; i < end; i += width)
        read_state_rows(head_, i, std::min(width, end - i), std::min(begin, keys_));
      if (end == call_.q_len)
        break;
      for (index t = begin; t < last_key; t += width) {
        index const keys = std::min(width, last_key - t);
        load_keys(t, keys);
        absorb(keys, keys);
      }
    }
  }

  /// Causal, one position at a time: few keys, gates per channel, the delta rule.
  void rows() {
    empty_rows();
    index const end = std::max(offset_ + call_.q_len, call_.state_out.data ? keys_ : 0);
    for (index t = 0; t < end; ++t) {
      if (t == keys_)
        store_state();
      if (t >= keys_ && offset_ > t) {
        decay_alone(offset_ - t);
        t = offset_;
      }
      take_in(t);
      index const first = first_query(t), last = first_query(t + 1);
      for (index h = 0; h < group() && first < last; ++h)
        read_row(head_ * group() + h, first);
    }
    if (end <= keys_)
      store_state();
  }

  index group() const { return call_.heads_q / call_.heads_kv; }
  int vectors(index columns) const { return static_cast<int>((columns + lanes<T> - 1) / lanes<T>); }

  /// Calls f(panel of the state, first column in this block, columns) for every panel.
  template <class F>
  void each_panel(F const& f) {
    for (index c = 0; c < columns_; c += width)
      f(c / width, c, std::min(width, columns_ - c));
  }
  T* state_panel(index panel) const { return state_ + panel * call_.features * width; }
  T* tile_panel(T* tiles, index panel) const { return tiles + panel * width * width; }

  // --- keys in -----------------------------------------------------------------------------------------------------

  /// The factor that the state gets at each of n positions from t on.
  void read_gains(index t, index n) {
    std::fill_n(gain_, width, T(1));
    for (index i = 0; i < n; ++i)
      gain_[i] = gain_at(t + i);
  }
  T gain_at(index t) const {
    if (call_.decay)
      return static_cast<T>(call_.decay.real(head_));
    if (call_.log_decay && t < keys_)
      return static_cast<T>(std::exp(call_.log_decay(batch_, head_, t, 0)));
    return T(1);
  }

  /// n positions without a key or a query.
  void decay_alone(index n) {
    if (!call_.decay)
      return;
    T const factor = static_cast<T>(std::pow(call_.decay.real(head_), static_cast<double>(n)));
    for (index i = 0; i < shape_.panels * call_.features * width; ++i)
      state_[i] *= factor;
    for (index d = 0; d < call_.features; ++d)
      sums_[d] *= factor;
  }

  void load_keys(index t, index n) {
    load_features(call_.k, head_, t, n, call_.keys_before + t, k_, plain_k_);
    each_panel([&](index panel, index c, index columns) {
      load_rows(call_.v.at(batch_, head_, t, first_column_ + c), call_.v.kind, call_.v.strides[2], call_.v.strides[3],
                n, columns, tile_panel(v_, panel), width);
    });
  }

  /// φ of n rows: turned into `to`, and as they are into `plain` where that is another place.
  void load_features(operand const& x, index head, index first, index n, index position, T* to, T* plain) {
    index const r = call_.features;
    for (index i = 0; i < n; ++i) {
      load_rows(x.at(batch_, head, first + i, 0), x.kind, x.strides[2], x.strides[3], 1, call_.dim, raw_, call_.dim);
      impl::map_row(map_, raw_, call_.dim, plain + i * r);
      if (plain != to)
        std::copy_n(plain + i * r, r, to + i * r);
    }
    if (!call_.turns)
      return;
    rotator<T> turning(call_.turn, turning_);
    turning.rotate_rows(n, [&](index i) { return static_cast<double>(position + i); }, to, r, to, r);
  }

  /// The chunk's keys into the state: S ← (Π gains) S + Σ_j (gains after j) φ(k_j) v_jᵀ.
  void absorb(index keys, index positions) {
    index const r = call_.features;
    T tail = T(1);
    for (index j = positions - 1; j >= 0; --j) {
      if (j < keys && tail != T(1)) {
        scale_row(k_ + j * r, tail);
        if (plain_k_ != k_)
          scale_row(plain_k_ + j * r, tail);
      }
      tail *= gain_[j];
    }
    std::fill_n(factor_, width, tail);
    each_panel([&](index panel, index, index columns) {
      values<T>(vectors(columns), k_, r, keys, tile_panel(v_, panel), r, state_panel(panel), factor_);
    });
    if (!call_.normalized)
      return;
    for (index d = 0; d < r; ++d)
      sums_[d] *= tail;
    for (index j = 0; j < keys; ++j)
      for (index d = 0; d < r; ++d)
        sums_[d] += plain_k_[j * r + d];
  }
  void scale_row(T* row, T factor) const {
    for (index d = 0; d < call_.features; ++d)
      row[d] *= factor;
  }

  // --- rows out ----------------------------------------------------------------------------------------------------

  /// φ of up to `width` rows into lanes, scaled.
  void pack_rows(index head, index first, index n) {
    index const r = call_.features, lines = round_up<index>(r, lanes<T>);
    alignas(64) T factor[static_cast<std::size_t>(lanes<T>)];
    std::fill_n(factor, lanes<T>, static_cast<T>(call_.scale));
    for (index lane = 0; lane < n; lane += lanes<T>) {
      index const count = std::min<index>(lanes<T>, n - lane);
      operand const& q = call_.q;
      for (index i = 0; i < count; ++i) {
        load_rows(q.at(batch_, head, first + lane + i, 0), q.kind, q.strides[2], q.strides[3], 1, call_.dim, raw_,
                  call_.dim);
        impl::map_row(map_, raw_, call_.dim, mapped_ + i * lines);
      }
      if (plain_q_ != q_)
        pack_lanes(mapped_, lines, count, r, factor, plain_q_ + lane, width);
      if (call_.turns)
        turn_rows(first + lane, count, lines);
      pack_lanes(mapped_, lines, count, r, factor, q_ + lane, width);
    }
  }
  void turn_rows(index first, index count, index lines) {
    rotator<T> turning(call_.turn, turning_);
    auto const position = [&](index i) { return static_cast<double>(call_.keys_before + offset_ + first + i); };
    turning.rotate_rows(count, position, mapped_, lines, mapped_, lines);
  }

  /// Rows of one head, the first of them at the chunk's position `place`, over the chunk's keys and the state.
  void read_rows(index head, index first, index n, index place, index keys, index positions) {
    pack_rows(head, first, n);
    int const used = vectors(n);
    scores<T>(used, k_, call_.features, keys, q_, call_.features, s_, nullptr);
    weigh(used, place, keys, positions);
    each_panel([&](index panel, index, index columns) {
      T* const o = tile_panel(o_, panel);
      T const* const v = tile_panel(v_, panel);
      std::fill_n(o, columns * width, T(0));
      if (all_finite(v, width, keys, columns))
        values<T>(used, v, width, keys, s_, columns, o, ones_);
      else
        guarded_values<T>(used, v, width, keys, s_, seen_, 0, columns, o, ones_);
    });
    if (call_.normalized)
      sum_weights(used, place, keys, positions);
    decay_rows(used, q_);
    add_state(used);
    if (call_.normalized) {
      if (plain_q_ != q_)
        decay_rows(used, plain_q_);
      add_sums(used);
    }
    write_rows(head, first, n, keys > 0 || keys_ > 0 || call_.state_in, 1);
  }

  /// Rows over the state alone, which holds `keys` keys of this call.
  void read_state_rows(index head, index first, index n, index keys) {
    pack_rows(head, first, n);
    int const used = vectors(n);
    std::fill_n(total_, width, T(0));
    each_panel([&](index panel, index, index columns) { std::fill_n(tile_panel(o_, panel), columns * width, T(0)); });
    add_state(used);
    if (call_.normalized)
      add_sums(used);
    double const factor = !call_.per_token || call_.chunk == 0 ? call_.factor
                          : keys == 0                          ? 0
                                                               : 1 / static_cast<double>(keys);
    write_rows(head, first, n, keys_ > 0 || call_.state_in, factor);
  }

  void add_state(int used) {
    each_panel([&](index panel, index, index columns) {
      values<T>(used, state_panel(panel), width, call_.features, q_, columns, tile_panel(o_, panel), ones_);
    });
  }
  void add_sums(int used) {
    for (int v = 0; v < used; ++v) {
      batch<T> sum = load(total_ + v * lanes<T>);
      for (index d = 0; d < call_.features; ++d)
        sum = fma(batch<T>(sums_[d]), load(plain_q_ + d * width + v * lanes<T>), sum);
      store(total_ + v * lanes<T>, sum);
    }
  }

  /// Scores of the chunk get the gains between key and row, 0 where the key comes later; `factor_` gets what the state
  /// is multiplied with at each row.
  void weigh(int used, index place, index keys, index positions) {
    batch<T> const zero(T(0)), one(T(1));
    for (int v = 0; v < used; ++v) {
      batch<T> const at = iota<T>() + batch<T>(static_cast<T>(place + v * lanes<T>));
      batch<T> path = zero;
      for (index j = positions - 1; j >= 0; --j) {
        batch<T> const here(static_cast<T>(j));
        path = heed::select(at == here, one, path);
        if (j < keys) {
          T* const s = s_ + j * width + v * lanes<T>;
          store(s, heed::select(at >= here, load(s) * path, zero));
        }
        path = path * batch<T>(gain_[j]);
      }
      store(factor_ + v * lanes<T>, path);
    }
    for (index j = 0; j < keys; ++j) {
      index const hidden = std::max<index>(0, j - place);
      seen_[j] = hidden >= 64 ? 0 : ~std::uint64_t{0} << hidden;
    }
    std::fill_n(ones_, width, T(1));
  }

  /// The sums of the rows' weights in the chunk. Where positions turn only the numerator, the scores are made again.
  void sum_weights(int used, index place, index keys, index positions) {
    if (plain_q_ != q_) {
      scores<T>(used, plain_k_, call_.features, keys, plain_q_, call_.features, s_, nullptr);
      weigh(used, place, keys, positions);
    }
    for (int v = 0; v < used; ++v) {
      batch<T> sum(T(0));
      for (index j = 0; j < keys; ++j)
        sum = sum + load(s_ + j * width + v * lanes<T>);
      store(total_ + v * lanes<T>, sum);
    }
  }

  void decay_rows(int used, T* q) {
    if (!call_.decay && !call_.log_decay)
      return;
    for (index d = 0; d < call_.features; ++d)
      for (int v = 0; v < used; ++v) {
        T* const at = q + d * width + v * lanes<T>;
        store(at, load(at) * load(factor_ + v * lanes<T>));
      }
  }

  void write_rows(index head, index first, index n, bool sees, double factor) {
    alignas(64) T by[static_cast<std::size_t>(lanes<T>)];
    for (index lane = 0; lane < n; lane += lanes<T>) {
      index const count = std::min<index>(lanes<T>, n - lane);
      for (index i = 0; i < lanes<T>; ++i)
        by[i] = i < count ? divisor(total_[lane + i], factor) : T(0);
      each_panel([&](index panel, index c, index columns) {
        unpack_lanes(tile_panel(o_, panel) + lane, width, columns, by, row_, width, count);
        for (index i = 0; i < count; ++i)
          finish(head, first + lane + i, c, columns, row_ + i * width, sees);
      });
    }
  }
  T divisor(T total, double factor) const {
    if (!call_.normalized)
      return static_cast<T>(factor);
    return total == T(0) ? T(0) : T(1) / total;
  }

  /// Adds what out holds, gates and stores a piece of a row.
  void finish(index head, index i, index column, index n, T* row, bool sees) {
    index const c = first_column_ + column;
    std::byte* const to = call_.out.row(batch_, head, i) + c * call_.out.strides[3] * size_of(call_.out.kind);
    if (call_.chunk > 0) {
      load_rows(to, call_.out.kind, 0, call_.out.strides[3], 1, n, gate_, n);
      for (index x = 0; x < n; ++x)
        row[x] += gate_[x];
    }
    if (!sees) {
      std::fill_n(row, n, T(0));
    } else if (operand const& gate = call_.gate) {
      load_rows(gate.at(batch_, head, i, c), gate.kind, 0, gate.strides[3], 1, n, gate_, n);
      for (index x = 0; x < n; ++x)
        row[x] *= gate_[x];
    }
    store_row(row, n, to, call_.out.kind, call_.out.strides[3]);
  }
  void empty_row(index head, index i) {
    each_panel([&](index, index c, index columns) { finish(head, i, c, columns, row_, false); });
  }

  // --- row by row --------------------------------------------------------------------------------------------------

  /// Position t: decay, the key's value (or, by the delta rule, its correction), the key.
  void take_in(index t) {
    index const r = call_.features;
    std::fill_n(channel_gain_, r, gain_at(t));
    if (call_.log_decay && call_.log_decay.extents[3] > 1 && t < keys_)
      for (index d = 0; d < r; ++d)
        channel_gain_[d] = static_cast<T>(std::exp(call_.log_decay(batch_, head_, t, d)));
    bool const key = t < keys_;
    if (key)
      load_keys(t, 1);
    batch<T> const rate(call_.delta && key ? static_cast<T>(call_.delta(batch_, head_, t, 0)) : T(1));
    each_panel([&](index panel, index, index columns) {
      for (int v = 0; v < vectors(columns); ++v) {
        T* const state = state_panel(panel) + v * lanes<T>;
        batch<T> value(T(0));
        if (key)
          value = load(tile_panel(v_, panel) + v * lanes<T>);
        for (index d = 0; d < r; ++d)
          store(state + d * width, load(state + d * width) * batch<T>(channel_gain_[d]));
        if (!key)
          continue;
        if (call_.delta) {
          batch<T> known(T(0));
          for (index d = 0; d < r; ++d)
            known = fma(batch<T>(k_[d]), load(state + d * width), known);
          value = rate * (value - known);
        }
        for (index d = 0; d < r; ++d)
          store(state + d * width, fma(batch<T>(k_[d]), value, load(state + d * width)));
      }
    });
    if (call_.normalized)
      for (index d = 0; d < r; ++d)
        sums_[d] = sums_[d] * channel_gain_[d] + (key ? plain_k_[d] : T(0));
  }

  void read_row(index head, index i) {
    load_features(call_.q, head, i, 1, call_.keys_before + offset_ + i, q_, plain_q_);
    T total = T(0);
    for (index d = 0; d < call_.features; ++d)
      total += plain_q_[d] * sums_[d];
    batch<T> const by(call_.normalized ? divisor(total, 1) : static_cast<T>(call_.scale));
    each_panel([&](index panel, index c, index columns) {
      for (int v = 0; v < vectors(columns); ++v) {
        batch<T> sum(T(0));
        for (index d = 0; d < call_.features; ++d)
          sum = fma(batch<T>(q_[d]), load(state_panel(panel) + d * width + v * lanes<T>), sum);
        store(row_ + v * lanes<T>, sum * by);
      }
      finish(head, i, c, columns, row_, keys_ > 0 || call_.state_in);
    });
  }

  // --- the state at rest -------------------------------------------------------------------------------------------

  void load_state() {
    index const r = call_.features;
    std::fill_n(ones_, width, T(1));
    std::fill_n(state_, shape_.panels * r * width, T(0));
    std::fill_n(sums_, r, T(0));
    if (operand const& s = call_.state_in)
      each_panel([&](index panel, index c, index columns) {
        load_rows(s.at(batch_, head_, 0, first_column_ + c), s.kind, s.strides[2], s.strides[3], r, columns,
                  state_panel(panel), width);
      });
    if (operand const& z = call_.sums_in)
      load_rows(z.at(0, batch_, head_, 0), z.kind, 0, z.strides[3], 1, r, sums_, r);
  }

  void store_state() {
    if (!call_.state_out.data)
      return;
    row_sink const& s = call_.state_out;
    each_panel([&](index panel, index c, index columns) {
      for (index d = 0; d < call_.features; ++d)
        store_row(state_panel(panel) + d * width, columns,
                  s.row(batch_, head_, d) + (first_column_ + c) * s.strides[3] * size_of(s.kind), s.kind, s.strides[3]);
    });
    if (call_.sums_out.data && last_columns_)
      store_row(sums_, call_.features, call_.sums_out.row(0, batch_, head_), call_.sums_out.kind,
                call_.sums_out.strides[3]);
  }

  linear_problem<T> const& call_;
  Map const& map_;
  linear_shape shape_;
  T *state_ = nullptr, *sums_ = nullptr;  // [panel][feature][column], [feature]
  T *q_ = nullptr, *plain_q_ = nullptr;   // [feature][lane]
  T *k_ = nullptr, *plain_k_ = nullptr;   // [key][feature]
  T *v_ = nullptr, *o_ = nullptr;         // [panel][key][column], [panel][column][lane]
  T* s_ = nullptr;                        // [key][lane]
  T *gain_ = nullptr, *factor_ = nullptr, *total_ = nullptr, *ones_ = nullptr, *channel_gain_ = nullptr;
  std::uint64_t* seen_ = nullptr;
  T *raw_ = nullptr, *mapped_ = nullptr, *row_ = nullptr, *gate_ = nullptr;
  std::byte* turning_ = nullptr;
  index batch_ = 0, head_ = 0, keys_ = 0, offset_ = 0, first_column_ = 0, columns_ = 0;
  bool last_columns_ = true;
};

HEED_ISA_END
}  // namespace heed
