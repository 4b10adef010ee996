#pragma once

#include <heed/kernel/pass_shape.hpp>

/// The pass: pack → score → modify → normalise → accumulate → finish.
///
/// Vector lanes hold queries. A task takes a few blocks of queries of one (batch, key head), see pass_shape.hpp, over their
/// visible keys, key block by key block; nothing horizontal happens anywhere, keys and values are broadcast from where
/// they lie, and the rescale of the running softmax rides on loading the accumulators; on AMX tiles it comes late and
/// alone. Where one tile of weights holds all keys there is none, nor accumulators: value_rows.hpp.

namespace heed {
HEED_ISA_BEGIN

template <real T, class Maps, normalizer_rule Rule, bool Entropy>
class pass {
 public:
  static constexpr index width = block_lanes<T>;

  pass(problem<T> const& p, Maps const& maps, pass_shape<T> const& shape, arena scratch)
      : call_(p), maps_(maps), shape_(shape), own_(scratch, p, shape.blocks) {}

  /// One task: up to `blocks` query blocks over all the keys they see.
  void run(index task) {
    if constexpr (has_tiles<T> && Rule != normalizer_rule::none) {
      if (call_.on_tiles) {
        [[maybe_unused]] impl::tile_session const here;
        return walk<true>(task);
      }
    }
    walk<false>(task);
  }

 private:
  static constexpr int most_segments = 2 * block_vectors<T>;

  /// Brings the query blocks of a task, of a part of one set or of whole ones, and returns how many.
  template <bool OnTiles>
  index pack(index task) {
    index const part = task % shape_.super_blocks, run = task / shape_.super_blocks % shape_.head_sets;
    index const pair = task / (shape_.super_blocks * shape_.head_sets);
    batch_ = pair / call_.heads_kv;
    key_head_ = pair % call_.heads_kv;
    band_ = call_.band_of(batch_);
    index const sets = call_.group() / shape_.heads, sets_of_run = (sets + shape_.head_sets - 1) / shape_.head_sets;
    index const first_set = run * sets_of_run, first = part * shape_.blocks;
    index const set_blocks = (call_.q_len * shape_.heads + width - 1) / width;
    index const all = std::min(sets_of_run, sets - first_set) * set_blocks;
    index const blocks = std::min(shape_.blocks, all - first);
    for (index i = 0; i < blocks; ++i) {
      query_block<T>& block = own_.blocks[i];
      index const at = first + i, set = first_set + at / set_blocks;
      lane_order const order{shape_.heads, key_head_ * call_.group() + set * shape_.heads, call_.q_len};
      own_.packer.pack(block, order, batch_, at % set_blocks * width, band_);
      block.output = own_.writer.lines(block);
      if constexpr (OnTiles)
        own_.products.pack(block, own_.packer, band_);
      if constexpr (Rule == normalizer_rule::none)
        own_.writer.hide_scores(block);
    }
    return blocks;
  }

  template <bool OnTiles>
  HEED_NOINLINE void walk(index task) {
    index const blocks = pack<OnTiles>(task);
    index const first_row = own_.blocks[0].first_row(), last_row = own_.blocks[blocks - 1].last_row();
    index const step = call_.keys_at_once();
    index era = -1;
    block_walk walk(band_, first_row, last_row, step);
    next_ = {&own_.blocks[0], {walk.begin(), walk.begin() + step}};
    ask_for_planes();
    for (; !walk.done(); walk.advance()) {
      key_range const block{walk.begin(), std::min(walk.begin() + step, band_.kv_len)};
      key_range const keys = hull(band_, first_row, last_row, block);
      if (keys.empty())
        continue;
      block_begin_ = keys.begin;
      if constexpr (Rule != normalizer_rule::none)
        if (index const last = std::exchange(era, walk.begin() / era_keys); last >= 0 && last != era)
          for (index i = 0; i < blocks; ++i)
            begin_era<Rule, Entropy>(own_.blocks[i], call_.dim_v, call_.unit());
      if constexpr (OnTiles)
        own_.products.open(batch_, key_head_, keys);
      else
        open_keys(keys, last_row);
      for (index i = 0; i < blocks; ++i) {
        bool const last = i + 1 == blocks;
        next_ = last ? work{&own_.blocks[0], {keys.end, keys.end + step}} : work{&own_.blocks[i + 1], keys};
        tile<OnTiles>(own_.blocks[i], keys);
      }
    }
    if constexpr (Rule != normalizer_rule::none)
      for (index i = 0; i < blocks; ++i)
        finish(own_.blocks[i]);
  }

  void finish(query_block<T>& block) {
    if (call_.in_one_tile()) {
      if (block.weighed == nullptr)
        write_weighed(block, 0, false);
      return;
    }
    block.settle(call_.dim_v);
    join_before<Rule, Entropy>(block, call_.dim_v, call_.unit());
    own_.writer.template write<Rule>(block);
  }

  /// Rows of a block whose weights over keys [0, keys), all that it sees, are in the tile.
  void write_weighed(query_block<T>& block, index keys, bool guarded) {
    weighed_keys<T>& x = own_.weighed;
    tile_rows_at<T> const v = own_.tiles.values();
    x.w = own_.s;
    x.v = v.data;
    x.ldv = v.ld;
    x.seen = guarded ? own_.seen : nullptr;
    if (guarded)  // a part of all lane vectors notes in the first register tile's place who sees its keys
      x.seen_stride = parts_[0].count > register_tile<T>::vectors ? 0 : seen_stride();
    index const behind = std::min(band_.right, unbounded / 2) + 1;
    for (index i = 0; i < width; ++i)
      x.end[i] = std::max<index>(0, std::min(band_.position(block.row[i]) + behind, keys));
    block.weighed = &x;
    own_.writer.template write<Rule>(block);
  }

  /// A query block and the keys it meets.
  struct work {
    query_block<T> const* block = nullptr;
    key_range keys;
  };

  /// What planes say of the tile to come is asked for from now on.
  void ask_for_planes() {
    planes_ahead_ = {};
    query_block<T> const& block = *next_.block;
    key_range const keys = hull(band_, block.first_row(), block.last_row(), next_.keys);
    if (call_.additive() && !keys.empty() && block.one_head(0, block.count))
      planes_ahead_ = call_.extra.lines(batch_, block.head[0], block.row[0], block.count, keys);
  }

  /// The values of the key block behind are asked for while this one is at work.
  void open_keys(key_range keys, index last_row) {
    own_.tiles.open(batch_, key_head_, keys);
    values_ahead_ = own_.tiles.values_behind(std::min(call_.keys_at_once(), keys_end(last_row) - keys.end));
  }

  /// One query block against one key block.
  template <bool OnTiles>
  void tile(query_block<T>& block, key_range keys) {
    int const parts = cut(block, keys);
    if (parts == 0)
      return;
    bool const mixed = std::any_of(parts_, parts_ + parts, [](segment const& part) { return part.mixed != 0; });
    if constexpr (OnTiles)
      return tile_on_tiles(block, parts, mixed);
    bool const sweeps = Maps::any || call_.additive();
    bool guarded = must_guard(mixed);
    std::fill_n(own_.maximum, width, -std::numeric_limits<T>::infinity());
    T* const maximum = has_maximum<Rule> && !sweeps ? own_.maximum : nullptr;
    for (int i = 0; i < parts; ++i)
      score(block, parts_[i], maximum);
    ask_for_planes();
    if (sweeps || mixed) {
      if (modify_parts(block, parts_, parts, 0, own_.s, sweeps || !has_maximum<Rule>, guarded))
        guarded = guarded || !own_.tiles.values_finite();
    } else if (!has_maximum<Rule>) {
      see_all(parts);
    }
    if constexpr (Rule == normalizer_rule::none)
      for (int i = 0; i < parts; ++i)
        own_.writer.write_scores(block, own_.s, parts_[i], block_begin_);
    else
      normalise(block, keys, parts, guarded);
  }

  /// Whether positions, maps or masks hide keys whose values are not finite: 0 times those would not be 0. Looked at
  /// once a key block, for all query blocks that walk over it. A bias seldom hides any, and is asked afterwards.
  bool must_guard(bool mixed) {
    return ((mixed && !call_.in_one_tile()) || Maps::hide_keys || call_.extra.lower_counts) &&
           !own_.tiles.values_finite();
  }

  /// The same stages on tiles. Scores of keys that every row sees go to their weights a few keys at a time, and those that
  /// nothing modifies are scaled on the way: they never leave the first-level cache. A maximum is followed late, when a
  /// weight would grow too large: values that went by the old one are added before it moves. Where nothing else asks for
  /// the maximum, that is seen afterwards, and the weights are made again.
  void tile_on_tiles(query_block<T>& block, int parts, bool mixed) {
    constexpr bool entropy = Entropy && Rule == normalizer_rule::softmax;
    auto& tiles = own_.products;
    tiles.begin(block, parts_, parts);
    key_range const keys = tiles.keys();
    bool const modifies = Maps::any || call_.additive();
    index const shared = shared_keys(block, keys), plain = modifies ? keys.begin : shared;
    index added = keys.begin;  // the values of keys before it are in the accumulators
    for (key_range rows{keys.begin, 0}; rows.begin < keys.end; rows.begin = rows.end) {
      bool const whole = rows.begin < shared, scaled = rows.begin >= plain;
      rows.end = whole ? std::min(rows.begin + keys_of_scores, shared) : keys.end;
      T* const s = own_.s + (whole ? 0 : rows.begin * width);
      score_on_tiles(block, rows, s);
      std::fill_n(own_.maximum, width, -std::numeric_limits<T>::infinity());
      auto const follow_maximum = [&] {
        if (!scaled && has_maximum<Rule>)
          tiles.take_maximum(rows, s, own_.maximum);
        else if (!scaled)
          std::fill_n(own_.maximum, width, T(0));  // any number above −inf says that all are seen
        renew_maximum<true>(block);
        if (added < rows.begin)
          tiles.accumulate({std::exchange(added, rows.begin), rows.begin});
        tiles.follow_maximum(own_.rescale);
      };
      if (whole && scaled)
        modify_shared_on_tiles(block, rows, s, mixed);
      else if (scaled)
        modify_on_tiles(block, parts, rows, mixed);
      if (scaled ? outgrown(block) : begins(block))
        follow_maximum();
      if (tiles.template weigh<Rule, entropy>(rows, scaled, s)) {
        follow_maximum();
        tiles.template weigh<Rule, entropy>(rows, scaled, s);
      }
      tiles.template add_sums<entropy>();
    }
    tiles.accumulate({added, keys.end});
    bool const hides = mixed || Maps::hide_keys || call_.additive();
    if (!tiles.finite())
      tiles.add_not_finite(hides ? own_.seen : nullptr, plain);
  }

  /// Scores of these keys, not yet scaled: key rows.begin at s. 32 keys and two lane vectors at a time, as products come.
  void score_on_tiles(query_block<T> const& block, key_range rows, T* s) {
    for (index row = rows.begin; row < rows.end; row += impl::tile_pairs)
      for (int half = 0; half < own_.products.halves(); ++half)
        if (own_.products.meets(half, row))
          products_of<true>(block, {row, row + impl::tile_pairs, 2 * half, own_.products.vectors(half)},
                            s + (row - rows.begin) * width, nullptr);
  }

  /// The end of the keys from the first on, in whole steps, that every row of the block sees.
  index shared_keys(query_block<T> const& block, key_range keys) const {
    index const end = std::min(block_begin_ + keys.end, band_.hi(block.first_row()));
    key_range const seen{block_begin_ + keys.begin, end};
    if (seen.empty() || !all_visible(band_, block.first_row(), block.last_row(), seen))
      return keys.begin;
    return (end - block_begin_) / impl::tile_pairs * impl::tile_pairs;
  }

  /// Scores of keys that not every row sees: scaled first, then modified, and the maxima of what comes out.
  void modify_on_tiles(query_block<T>& block, int parts, key_range rows, bool mixed) {
    bool const modifies = mixed || Maps::any || call_.additive();
    int left = 0;
    for (int i = 0; i < parts; ++i)
      if (parts_[i].end > rows.begin) {
        parts_[left] = parts_[i];
        parts_[left++].begin = std::max(parts_[i].begin, rows.begin);
      }
    T* const maximum = has_maximum<Rule> && !modifies ? own_.maximum : nullptr;
    for (int i = 0; i < left; ++i)
      own_.products.scale(parts_[i], own_.s, maximum);
    if (modifies)
      modify_parts(block, parts_, left, 0, own_.s, true, mixed || Maps::hide_keys || call_.additive());
    else if (!has_maximum<Rule>)
      see_all(left);
    own_.products.hide_rows(rows, own_.s);
  }

  /// The same of keys that every row sees: key rows.begin at s.
  void modify_shared_on_tiles(query_block<T>& block, key_range rows, T* s, bool mixed) {
    segment const part{0, rows.end - rows.begin, 0, block.vectors};
    own_.products.scale(part, s, nullptr);
    modify_parts(block, &part, 1, rows.begin, s, true, mixed || Maps::hide_keys || call_.additive());
  }

  /// Whether a row has no maximum yet.
  static bool begins(query_block<T> const& block) {
    batch<T> least = load(block.m);
    for (int v = 1; v < block.vectors; ++v)
      least = heed::min(load(block.m + v * lanes<T>), least);
    return heed::any<T>(least == batch<T>(-std::numeric_limits<T>::infinity()));
  }

  /// Whether scores outgrow a row's maximum by more than its weights may, or it has none.
  bool outgrown(query_block<T> const& block) const {
    batch<T> const unit(call_.unit());
    batch<T> most(T(0));
    for (index lane = 0; lane < block.vectors * lanes<T>; lane += lanes<T>)
      most = heed::max((load(own_.maximum + lane) - load(block.m + lane)) * unit, most);
    return heed::any<T>(most > batch<T>(static_cast<T>(own_.products.lag())));
  }

  /// All of these keys are seen: any number above −inf says so.
  void see_all(int parts) {
    for (int i = 0; i < parts; ++i)
      std::fill_n(own_.maximum + parts_[i].first * lanes<T>, parts_[i].count * lanes<T>, T(0));
  }

  /// From scores to weights to values.
  void normalise(query_block<T>& block, key_range keys, int parts, bool guarded) {
    renew_maximum<false>(block);
    for (int i = 0; i < parts; ++i)
      weigh(block, parts_[i]);
    if (call_.in_one_tile())
      return write_weighed(block, keys.end, guarded);
    for (int i = 0; i < parts; ++i)
      accumulate(block, parts_[i], guarded);
  }

  /// Cuts a tile where the lane vectors' visible keys begin and end, so that the staircase of a mask costs what it
  /// shows: each part is a run of keys × a run of lane vectors, all of one register tile unless they see everything:
  /// its other vectors' edges need not cut it. Keys of parts count from the block's first.
  int cut(query_block<T> const& block, key_range keys) {
    if (all_visible(band_, block.first_row(), block.last_row(), keys)) {
      parts_[0] = {0, keys.end - keys.begin, 0, block.vectors};
      return 1;
    }
    int parts = 0;
    for (int v = 0; v < block.vectors; v += register_tile<T>::vectors)
      parts = cut(block, keys, v, std::min(v + register_tile<T>::vectors, block.vectors), parts);
    return parts;
  }

  /// The same for lane vectors [begin, end) of a register tile, behind the parts that there are; returns how many.
  int cut(query_block<T> const& block, key_range keys, int begin, int end, int parts) {
    key_range of[block_vectors<T>];
    index edges[2 * register_tile<T>::vectors];
    int count = 0;
    for (int v = begin; v < end; ++v) {
      of[v] = hull(band_, block.first_row(v), block.last_row(v), keys);
      if (of[v].empty())
        continue;
      edges[count++] = of[v].begin;
      edges[count++] = of[v].end;
    }
    detail::sort_few(edges, static_cast<std::size_t>(count));
    for (int e = 0; e + 1 < count; ++e) {
      if (edges[e] == edges[e + 1])
        continue;
      int first = end, last = -1;
      for (int v = begin; v < end; ++v)
        if (of[v].begin <= edges[e] && of[v].end >= edges[e + 1]) {
          first = std::min(first, v);
          last = v;
        }
      if (last < 0)
        continue;
      segment& part = parts_[parts++];
      part = {edges[e] - keys.begin, edges[e + 1] - keys.begin, first, last - first + 1};
      for (int v = first; v <= last; ++v)
        if (!all_visible(band_, block.first_row(v), block.last_row(v), {edges[e], edges[e + 1]}))
          part.mixed |= 1U << v;
    }
    return parts;
  }

  /// Scores of a part, and the maxima of those lane vectors that see all of it: hidden scores must not raise them.
  void score(query_block<T> const& block, segment const& part, T* maximum) {
    T* const s = own_.s + part.begin * width;
    if (maximum == nullptr || part.mixed == 0)
      return products_of<false>(block, part, s, maximum);
    alignas(64) T before[static_cast<std::size_t>(width)];
    std::copy_n(maximum, width, before);
    products_of<false>(block, part, s, maximum);
    for (int v = 0; v < block.vectors; ++v)
      if (part.is_mixed(v))
        std::copy_n(before + v * lanes<T>, lanes<T>, maximum + v * lanes<T>);
  }

  /// The product, or those, that the distances of a part ask for: its first key at s.
  template <bool OnTiles>
  void products_of(query_block<T> const& block, segment const& part, T* s, T* maximum) {
    if (!call_.position.has_far())
      return product<OnTiles>(block, part, position_code::near, s, maximum);
    int const vector_end = part.first + part.count - 1;
    index const nearest = band_.position(block.first_row(part.first)) - (block_begin_ + part.end - 1);
    index const farthest = band_.position(block.last_row(vector_end)) - (block_begin_ + part.begin);
    auto const low = call_.position.at(nearest), high = call_.position.at(farthest);
    if (low == high)
      return product<OnTiles>(block, part, low, s, maximum);
    product<OnTiles>(block, part, low, s, nullptr);
    if (low == position_code::far_ahead)
      overlay<OnTiles>(block, part, position_code::near, s);
    if (high == position_code::far)
      overlay<OnTiles>(block, part, position_code::far, s);
    if (maximum)
      take_maximum(part, s, maximum);
  }

  template <bool OnTiles>
  void product(query_block<T> const& block, segment const& part, position_code::product which, T* s, T* maximum) {
    if constexpr (OnTiles)
      own_.products.score(which, part.begin, part.first / 2, s);
    else
      float_product(block, part, which, s, maximum);
  }

  void float_product(query_block<T> const& block, segment const& part, position_code::product which, T* s, T* maximum) {
    tile_rows_at<T> const k = own_.tiles.keys(which, block_begin_ + part.begin);
    index const lane = part.first * lanes<T>, n = part.end - part.begin;
    // What the weights have left of the planes' lines is asked for every 24 keys, a multiple of every tile's height
    // (12 gain no more, `heed_bench_attention --benchmark_filter=modifier/bias`).
    index const lines = planes_ahead_.left(), step = lines > 0 ? 24 : n;
    for (index j = 0; j < n; j += step) {
      index const keys = std::min(step, n - j);
      for (index i = 0; i < lines * keys; i += n)
        planes_ahead_.next();
      scores<T>(part.count, k.data + (part.begin + j) * k.ld, k.ld, keys, block.q[which] + lane, call_.dim,
                s + j * width + lane, maximum ? maximum + lane : nullptr);
    }
  }

  /// Puts one more product over the scores where its distances are: near from −window + 1 on, far from window on.
  template <bool OnTiles>
  void overlay(query_block<T> const& block, segment const& part, position_code::product which, T* s) {
    product<OnTiles>(block, part, which, own_.far_s, nullptr);
    auto const window = static_cast<double>(call_.position.window);
    double const limit = which == position_code::far ? window : std::floor(-window) + 1;
    index const first_key = block_begin_ + part.begin;
    for (int v = part.first; v < part.first + part.count; ++v) {
      alignas(64) T from[static_cast<std::size_t>(lanes<T>)];
      for (int i = 0; i < lanes<T>; ++i) {
        double const at = static_cast<double>(band_.position(block.row[v * lanes<T> + i]) - first_key) - limit;
        from[i] = static_cast<T>(std::clamp<double>(at, -1.0, static_cast<double>(most_keys)));
      }
      batch<T> const last_key = load(from);
      for (index j = 0; j < part.end - part.begin; ++j) {
        T* const place = s + j * width + v * lanes<T>;
        batch<T> const over = load(own_.far_s + j * width + v * lanes<T>);
        store(place, heed::select(batch<T>(static_cast<T>(j)) <= last_key, over, load(place)));
      }
    }
  }

  static void take_maximum(segment const& part, T const* s, T* maximum) {
    for (int v = part.first; v < part.first + part.count; ++v) {
      batch<T> top = load(maximum + v * lanes<T>);
      for (index j = 0; j < part.end - part.begin; ++j)
        top = heed::max(load(s + j * width + v * lanes<T>), top);
      store(maximum + v * lanes<T>, top);
    }
  }

  /// Parts of a tile, their keys counted from key `first_key` of the block, whose scores begin at s. Returns whether a plane
  /// hides anything: the others are known to.
  bool modify_parts(query_block<T> const& block, segment const* parts, int count, index first_key, T* s, bool all,
                    bool guarded) {
    index const begin = block_begin_ + first_key;
    lane_bounds<T> const bounds(band_, block.first_row(), begin);
    bool const biases_alone = call_.additive() && !call_.extra.lower_counts;
    bool hides = false;
    for (int first = 0, last = 0; first < count; first = last) {
      std::uint64_t* const seen = guarded || biases_alone ? seen_by(parts[first]) + first_key : nullptr;
      while (last < count && seen_by(parts[last]) == seen_by(parts[first]))
        ++last;
      modify_arguments<T> const a{&call_, bounds, block.step,   block.row, block.head, batch_,     band_.offset,
                                  begin,  s,      own_.maximum, seen,      own_.strip, own_.square};
      hides |= modify(a, maps_, parts + first, last - first, all);
    }
    return hides;
  }

  /// The end of the keys that a row sees.
  index keys_end(index row) const { return std::max(band_.prefix(row), band_.hi(row)); }

  /// Where the register tile in which a part begins notes who sees its keys.
  std::uint64_t* seen_by(segment const& part) const {
    return own_.seen + part.first / register_tile<T>::vectors * seen_stride();
  }
  index seen_stride() const { return std::min(call_.keys_at_once(), call_.kv_len); }

  /// The running maximum takes in the tile's; sums follow it at once, accumulators when they are loaded next.
  template <bool OnTiles>
  void renew_maximum(query_block<T>& block) {
    if constexpr (!has_maximum<Rule>) {
      std::fill_n(own_.rescale, width, T(1));
      for (index lane = 0; lane < block.vectors * lanes<T>; lane += lanes<T>)
        store(block.m + lane, heed::max(load(own_.maximum + lane), load(block.m + lane)));
    } else {
      batch<T> const unit(call_.unit());
      for (index lane = 0; lane < block.vectors * lanes<T>; lane += lanes<T>) {
        batch<T> const old = load(block.m + lane), seen = load(own_.maximum + lane);
        batch<T> renewed = heed::max(seen, old);
        if constexpr (OnTiles)
          renewed = late_maximum<T>(seen, old, unit, static_cast<T>(own_.products.lag()));
        batch<T> const r = rescale_factor<T>(old, renewed, unit), l = load(block.l + lane);
        if constexpr (Entropy)
          store(block.u + lane, rescaled_entropy_sum<T>(load(block.u + lane), l, old, renewed, r));
        store(block.l + lane, Rule == normalizer_rule::l2_softmax ? l * r * r : l * r);
        store(block.m + lane, renewed);
        store(own_.rescale + lane, r);
      }
    }
  }

  /// What is asked for beside the weights: planes of the next tile first; then values, and once the keys left are no more
  /// than the lines of the block's output and a key block, those. At two lines a key that is early by half, which the
  /// staircase of the last keys, asking for less, needs.
  lines_ahead& later(query_block<T>& block) {
    if (planes_ahead_.left() > 0)
      return planes_ahead_;
    bool const ends = keys_end(block.last_row()) - block_begin_ <= block.output.left() + key_block;
    return ends ? block.output : values_ahead_;
  }

  void weigh(query_block<T>& block, segment const& part) {
    constexpr bool entropy = Entropy && Rule == normalizer_rule::softmax;
    index const lane = part.first * lanes<T>, n = part.end - part.begin;
    T *const s = own_.s + part.begin * width + lane, *const m = block.m + lane, *const l = block.l + lane;
    if (has_maximum<Rule> && call_.natural)
      impl::weigh<Rule, has_maximum<Rule>, entropy>(part.count, s, n, m, l, block.u + lane, later(block));
    else
      impl::weigh<Rule, false, entropy>(part.count, s, n, m, l, block.u + lane, later(block));
  }

  void accumulate(query_block<T>& block, segment const& part, bool guarded) {
    tile_rows_at<T> const v = own_.tiles.values();
    index const lane = part.first * lanes<T>, n = part.end - part.begin;
    T const* const rows = v.data + part.begin * v.ld;
    T const* const w = own_.s + part.begin * width + lane;
    // The first values of a block need no zeros to be added to, where they reach all of its lanes.
    bool const stores = block.fresh && !guarded && part.count == block.vectors;
    if (stores)
      block.fresh = false;
    else
      block.settle(call_.dim_v);
    if (guarded)
      guarded_values(part.count, rows, v.ld, n, w, seen_by(part) + part.begin, static_cast<int>(lane), call_.dim_v,
                     block.o + lane, own_.rescale + lane);
    else
      values<T>(part.count, rows, v.ld, n, w, call_.dim_v, block.o + lane, stores ? nullptr : own_.rescale + lane);
    std::fill_n(own_.rescale + lane, part.count * lanes<T>, T(1));
  }

  problem<T> const& call_;
  Maps const& maps_;
  pass_shape<T> shape_;
  pass_scratch<T> own_;
  segment parts_[most_segments];
  work next_;                                // the tile to come
  lines_ahead values_ahead_, planes_ahead_;  // not yet asked for
  index batch_ = 0, key_head_ = 0, block_begin_ = 0;
  band band_;
};

HEED_ISA_END
}  // namespace heed
