#pragma once

#include <heed/vq/accept.hpp>
#include <heed/vq/cells.hpp>
#include <heed/vq/codebook.hpp>

#include <atomic>
#include <span>

/// The way of a call through its rows, block by block: which keys stand single beside a block, and what has become of
/// all others.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

struct row_range {
  index first = 0;
  index count = 0;
};

/// For each (batch, key head) a list of keys and values, which one attention call reads:
///
///     keys    [codes of earlier keys | single keys, decoded | codes of later keys]
///     values  [means                 | values               | means]
///
/// The last part exists where a bidirectional call minds distances. A bias row over this list carries the log-counts, 0
/// for single keys, and −inf for codes and places without keys. Earlier codes stand before, later ones behind every
/// single key, at distances that are far for all rows of the block: that is how rerope and relative_bias see them.
template <real T>
class vq_walk {
 public:
  vq_walk(problem<T> const& p, codebook<T> const& book, operand const& keys, view<std::int32_t const, 3> const& codes,
          index block, int workers)
      : call_(p), book_(book), key_rows_(keys), key_codes_(codes), reach_(reach_of(p.said)), workers_(workers) {
    stream_ = p.said.causal || reach_.any;
    rows_ = stream_ ? std::min(block, p.q_len) : p.q_len;
    if (p.said.causal)
      reach_.ahead = 0;
    if (stream_)
      places_ = std::min(std::min(reach_.behind, p.kv_len) + rows_ + std::min(reach_.ahead, p.kv_len), p.kv_len);
    later_ = stream_ && !p.said.causal;
    arena counting;
    lay_out(counting);
    bytes_ = counting.used();
  }

  /// What the walk itself keeps.
  std::size_t bytes() const { return bytes_; }
  index block_rows() const { return rows_; }
  index blocks() const { return rows_ == 0 ? 0 : (call_.q_len + rows_ - 1) / rows_; }
  row_range rows(index block) const { return {block * rows_, std::min(rows_, call_.q_len - block * rows_)}; }

  view<T const, 4> keys() const { return listed(keys_, call_.dim); }
  view<T const, 4> values() const { return listed(values_, call_.dim_v); }

  /// Takes its memory, looks at all keys that any row sees, and fills what does not change.
  /// @throws argument_error for a key that is not finite, or a code out of range
  template <class Executor>
  void open(std::byte* memory, Executor& place) {
    arena pieces(memory);
    lay_out(pieces);
    check_keys(place);
    place.run(pairs(), [&](index pair, int worker) { start(pair, worker); });
  }

  /// Moves on to a block of rows.
  template <class Executor>
  void load(row_range rows, Executor& place) {
    for (index b = 0; b < call_.batch; ++b) {
      band const all = call_.band_of(b);
      offsets_[b] = all.position(rows.first) - single_keys(rows, b).begin + codes();
      counted_offsets_[b] = all.position(rows.first);
      counted_keys_[b] = all.kv_len;
    }
    place.run(pairs(), [&](index pair, int worker) {
      move(pair, single_keys(rows, pair / heads()), worker);
      write_bias(pair);
    });
  }

  /// Turns what is said of the call into what is said of a block's call.
  void describe(row_range rows, description const& call, description& d) const {
    d.offset.reset();
    d.offsets = list(offsets_);
    d.lengths = {};
    d.counted_offsets = list(counted_offsets_);
    d.counted_keys = list(counted_keys_);
    add_bias(d);
    d.lse = call.lse;
    if (d.lse) {
      d.lse.data += rows.first * d.lse.strides[2] * size_of(d.lse.kind);
      d.lse.extents[2] = rows.count;
    }
  }

  /// The same for a call that sees everything: no block's takes more scratch.
  void describe_largest(description const& call, description& d) const {
    d = call;
    d.offset = total() + rows_;
    d.offsets = {};
    d.lengths = {};
    d.lse = {};
    add_bias(d);
  }

 private:
  /// One (batch, key head): where it is, and its part of the memory.
  struct pair_state {
    index begin = 0;  // keys before it are counted
    index end = 0;    // keys [begin, end) are single; those behind have not come yet
    code_means earlier;
    code_sums later;
    std::int32_t* codes = nullptr;  // [places] of the single keys
  };
  struct worker_scratch {
    T* products = nullptr;
    T* keys = nullptr;
    T* value = nullptr;
    std::int32_t* codes = nullptr;
  };

  index heads() const { return call_.heads_kv; }
  index pairs() const { return call_.batch * heads(); }
  index codes() const { return book_.codes(); }
  index total() const { return codes() + places_ + (later_ ? codes() : 0); }

  void lay_out(arena& memory) {
    bool const counting = bytes_ == 0;
    keys_ = memory.template take<T>(pairs() * total() * call_.dim);
    values_ = memory.template take<T>(pairs() * total() * call_.dim_v);
    bias_ = memory.template take<T>(call_.batch * call_.heads_q * total());
    for (index** list : {&offsets_, &counted_offsets_, &counted_keys_})
      *list = memory.template take<index>(call_.batch);
    states_ = memory.template take<pair_state>(pairs());
    for (index i = 0; i < pairs(); ++i) {
      pair_state s;
      s.earlier = code_means(memory, codes(), call_.dim_v);
      if (later_)
        s.later = code_sums(memory, codes(), call_.dim_v);
      s.codes = memory.template take<std::int32_t>(places_);
      if (!counting)
        std::construct_at(states_ + i, s);
    }
    scratch_ = memory.template take<worker_scratch>(workers_);
    for (int w = 0; w < workers_; ++w) {
      worker_scratch s;
      s.products = memory.template take<T>(book_.scratch_size());
      s.keys = memory.template take<T>(book_.chunk * call_.dim);
      s.value = memory.template take<T>(call_.dim_v);
      s.codes = memory.template take<std::int32_t>(book_.chunk);
      if (!counting)
        std::construct_at(scratch_ + w, s);
    }
  }

  /// Before `open` there is nothing to read yet, but a call may be measured: any address will do.
  view<T const, 4> listed(T const* data, index columns) const {
    return {data != nullptr ? data : book_.vectors().data(), {call_.batch, heads(), total(), columns}};
  }
  number_list list(index const* numbers) const {
    return number_list(std::span<index const>(numbers, static_cast<std::size_t>(call_.batch)));
  }
  void add_bias(description& d) const {
    view<T const, 4> const row(bias_, {call_.batch, call_.heads_q, 1, total()});
    d.biases.push(make_operand(row), "biases");
  }

  /// The keys that must stand single beside these rows.
  key_range single_keys(row_range rows, index batch) const {
    band const all = call_.band_of(batch);
    if (!stream_)
      return {all.kv_len, all.kv_len};
    index const first = all.position(rows.first), last = all.position(rows.first + rows.count - 1);
    index const begin = std::clamp<index>(first - reach_.behind, 0, all.kv_len);
    return {begin, std::clamp<index>(last + 1 + reach_.ahead, begin, all.kv_len)};
  }

  /// How many of a batch's keys any row sees.
  index seen_keys(index batch) const {
    band const all = call_.band_of(batch);
    return call_.said.causal ? std::clamp<index>(all.position(call_.q_len), 0, all.kv_len) : all.kv_len;
  }

  template <class Executor>
  void check_keys(Executor& place) const {
    std::atomic<bool> bad = false;
    place.run(pairs(), [&](index pair, int worker) {
      index const b = pair / heads(), h = pair % heads(), n = seen_keys(b);
      if (key_rows_.data == nullptr) {
        for (index j = 0; j < n; ++j)
          if (key_codes_(b, h, j) < 0 || key_codes_(b, h, j) >= codes())
            bad = true;
        return;
      }
      for (index j = 0; j < n; j += book_.chunk) {
        index const count = std::min(book_.chunk, n - j);
        T* const rows = scratch_[worker].keys;
        load_keys(b, h, j, count, rows);
        if (!all_finite(rows, call_.dim, count, call_.dim))
          bad = true;
      }
    });
    if (key_rows_.data == nullptr)
      detail::expect(!bad, "vq_attention: codes must lie in [0, ", codes(), "), got one that does not");
    detail::expect(!bad, "vq_attention: k must be finite wherever a row sees it, got a key that is not");
  }

  void load_keys(index b, index h, index first, index n, T* to) const {
    load_rows(key_rows_.at(b, h, first, 0), key_rows_.kind, key_rows_.strides[2], key_rows_.strides[3], n, call_.dim,
              to, call_.dim);
  }
  void load_value(index b, index h, index key, T* to) const {
    load_rows(call_.v.at(b, h, key, 0), call_.v.kind, 0, call_.v.strides[3], 1, call_.dim_v, to, call_.dim_v);
  }

  /// The codes of keys first …, n ≤ chunk.
  void find_codes(index b, index h, index first, index n, int worker, std::int32_t* to) const {
    if (key_rows_.data == nullptr) {
      for (index i = 0; i < n; ++i)
        to[i] = key_codes_(b, h, first + i);
      return;
    }
    load_keys(b, h, first, n, scratch_[worker].keys);
    book_.nearest(h, scratch_[worker].keys, n, scratch_[worker].products, to);
  }

  /// Calls f(key, code) for keys [begin, end).
  template <class F>
  void for_each_code(index b, index h, key_range keys, int worker, F const& f) const {
    for (index j = keys.begin; j < keys.end; j += book_.chunk) {
      index const n = std::min(book_.chunk, keys.end - j);
      find_codes(b, h, j, n, worker, scratch_[worker].codes);
      for (index i = 0; i < n; ++i)
        f(j + i, index{scratch_[worker].codes[i]});
    }
  }

  T* key_row(index pair, index at) const { return keys_ + (pair * total() + at) * call_.dim; }
  T* value_row(index pair, index at) const { return values_ + (pair * total() + at) * call_.dim_v; }

  void start(index pair, int worker) {
    index const b = pair / heads(), h = pair % heads();
    pair_state& s = states_[pair];
    std::fill_n(key_row(pair, 0), total() * call_.dim, T(0));
    std::fill_n(value_row(pair, 0), total() * call_.dim_v, T(0));
    T const* const vectors = &book_.vectors()(h, 0, 0);
    std::copy_n(vectors, codes() * call_.dim, key_row(pair, 0));
    std::fill_n(s.earlier.count, codes(), index{0});
    std::fill_n(s.earlier.mean, codes() * call_.dim_v, 0.0);
    if (!later_)
      return;
    std::copy_n(vectors, codes() * call_.dim, key_row(pair, codes() + places_));
    std::fill_n(s.later.count, codes(), index{0});
    std::fill_n(s.later.high, codes() * call_.dim_v, 0.0);
    std::fill_n(s.later.low, codes() * call_.dim_v, 0.0);
    T* const value = scratch_[worker].value;
    for_each_code(b, h, {0, seen_keys(b)}, worker, [&](index key, index code) {
      load_value(b, h, key, value);
      s.later.add(code, value, 1);
    });
  }

  /// Counts the keys before `single`, and lets the keys of `single` stand for themselves.
  void move(index pair, key_range single, int worker) {
    index const b = pair / heads(), h = pair % heads();
    pair_state& s = states_[pair];
    index const kept = codes();
    index const leaving = std::clamp<index>(std::min(single.begin, s.end) - s.begin, 0, places_);
    for (index i = 0; i < leaving; ++i)
      s.earlier.add(s.codes[i], value_row(pair, kept + i), value_row(pair, s.codes[i]));
    index const staying = s.end - s.begin - leaving;
    if (leaving > 0) {
      std::copy_n(s.codes + leaving, staying, s.codes);
      std::copy_n(key_row(pair, kept + leaving), staying * call_.dim, key_row(pair, kept));
      std::copy_n(value_row(pair, kept + leaving), staying * call_.dim_v, value_row(pair, kept));
    }
    T* const value = scratch_[worker].value;
    for_each_code(b, h, {s.end, single.begin}, worker, [&](index key, index code) {
      load_value(b, h, key, value);
      s.earlier.add(code, value, value_row(pair, code));
      if (later_)
        s.later.add(code, value, -1);
    });
    s.begin = std::max(s.begin, single.begin);
    s.end = std::max(s.end, s.begin);
    for_each_code(b, h, {s.end, single.end}, worker, [&](index key, index code) {
      index const at = key - s.begin;
      s.codes[at] = static_cast<std::int32_t>(code);
      std::copy_n(&book_.vectors()(h, code, 0), call_.dim, key_row(pair, kept + at));
      load_value(b, h, key, value_row(pair, kept + at));
      if (later_)
        s.later.add(code, value_row(pair, kept + at), -1);
    });
    s.end = std::max(s.end, single.end);
    for (index c = 0; later_ && c < codes(); ++c)
      s.later.write(c, value_row(pair, kept + places_ + c));
  }

  /// The bias rows of all query heads of a pair.
  void write_bias(index pair) {
    pair_state const& s = states_[pair];
    index const group = call_.group();
    T* const row = bias_ + pair * group * total();
    write_log_counts(s.earlier.count, codes(), row);
    std::fill_n(row + codes(), s.end - s.begin, T(0));
    std::fill_n(row + codes() + (s.end - s.begin), places_ - (s.end - s.begin), -std::numeric_limits<T>::infinity());
    if (later_)
      write_log_counts(s.later.count, codes(), row + codes() + places_);
    for (index i = 1; i < group; ++i)
      std::copy_n(row, total(), row + i * total());
  }

  problem<T> const& call_;
  codebook<T> const& book_;
  operand key_rows_;  // null where the keys came as codes
  view<std::int32_t const, 3> key_codes_;
  vq_reach reach_;
  int workers_;
  bool stream_ = false;  // rows differ in what they see: block by block
  bool later_ = false;   // keys behind a block are counted apart
  index rows_ = 0;       // of a block
  index places_ = 0;     // for single keys
  std::size_t bytes_ = 0;

  T* keys_ = nullptr;    // [batch, heads_kv, total, dim]
  T* values_ = nullptr;  // [batch, heads_kv, total, dim_v]
  T* bias_ = nullptr;    // [batch, heads_q, 1, total]
  index* offsets_ = nullptr;
  index* counted_offsets_ = nullptr;
  index* counted_keys_ = nullptr;
  pair_state* states_ = nullptr;
  worker_scratch* scratch_ = nullptr;
};

}  // namespace impl
HEED_ISA_END
}  // namespace heed
