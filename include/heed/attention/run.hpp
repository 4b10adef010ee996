#pragma once

#include <heed/attention/explain.hpp>

#include <memory>

/// From a folded call to its tasks: which driver, how much scratch and from where, on which executor.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// The shapes of both drivers for a call, and the memory that its executor's workers need.
template <real T, class Maps, normalizer_rule Rule, bool Entropy>
struct call_shape {
  using lanes_driver = pass<T, Maps, Rule, Entropy>;
  using rows_driver = few_rows_pass<T, Maps, Rule, Entropy>;
  static constexpr bool has_few_rows = Rule != normalizer_rule::none;  // bare scores have one driver

  heed::path path = heed::path::nothing;
  pass_shape<T> lanes_shape;
  few_rows_shape rows_shape;
  index tasks = 0;
  int workers = 1;
  index pairs_at_once = 0;  // few rows: (batch, key head)s whose partial states are held at a time
  std::size_t scratch = 0;  // bytes a worker

  call_shape(problem<T> const& p, int concurrency) {
    if (p.batch == 0 || p.heads_q == 0 || p.q_len == 0)
      return;
    index const pairs = p.batch * p.heads_kv;
    if constexpr (has_few_rows) {
      if (p.q_len * p.group() <= few_rows) {
        path = heed::path::few_rows;
        rows_shape = rows_driver::shape(p);
        scratch = rows_shape.scratch;
        tasks = pairs * rows_shape.splits;
      }
    }
    if (path == heed::path::nothing) {
      path = heed::path::queries_in_lanes;
      lanes_shape = pass_shape<T>::of(p, concurrency);
      scratch = lanes_shape.scratch;
      tasks = lanes_shape.tasks(p);
    }
    workers = tasks > 1 ? concurrency : 1;
    if (rows_shape.partial != 0) {
      auto const room = static_cast<std::size_t>(workers) * (scratch_limit / 2);
      pairs_at_once = std::clamp<index>(static_cast<index>(room / rows_shape.partial), 1, pairs);
    }
  }

  std::size_t partial_bytes() const { return static_cast<std::size_t>(pairs_at_once) * rows_shape.partial; }
  std::size_t bytes() const { return static_cast<std::size_t>(workers) * scratch + partial_bytes(); }
};

template <class Shape, real T, class Maps, class Executor>
void run_few_rows(problem<T> const& p, Maps const& maps, Shape const& shape, Executor& place, std::byte* memory) {
  using driver = typename Shape::rows_driver;
  index const pairs = p.batch * p.heads_kv, splits = shape.rows_shape.splits;
  std::byte* const partials = memory + static_cast<std::size_t>(shape.workers) * shape.scratch;
  auto const at = [&](int worker) { return arena(memory + static_cast<std::size_t>(worker) * shape.scratch); };
  auto const partial = [&](index pair) { return partials + static_cast<std::size_t>(pair) * shape.rows_shape.partial; };
  if (splits == 1) {
    place.run(pairs,
              [&](index task, int worker) { driver(p, maps, shape.rows_shape, at(worker)).run(task, 0, nullptr); });
    return;
  }
  for (index first = 0; first < pairs; first += shape.pairs_at_once) {
    index const count = std::min(shape.pairs_at_once, pairs - first);
    place.run(count * splits, [&](index task, int worker) {
      driver(p, maps, shape.rows_shape, at(worker)).run(first + task / splits, task % splits, partial(task / splits));
    });
    place.run(count, [&](index task, int worker) {
      driver(p, maps, shape.rows_shape, at(worker)).merge(first + task, partial(task));
    });
  }
}

template <class Shape, real T, class Maps, class Executor>
void run_tasks(problem<T> const& p, Maps const& maps, Shape const& shape, Executor& place, std::byte* memory) {
  for (int worker = 0; worker < shape.workers; ++worker)
    turners<T>::begin(arena(memory + static_cast<std::size_t>(worker) * shape.scratch), p);
  if constexpr (Shape::has_few_rows)
    if (shape.path == heed::path::few_rows)
      return run_few_rows(p, maps, shape, place, memory);
  // The last tasks of a causal call see the most keys: they go first, so that no worker ends alone.
  place.run(shape.tasks, [&](index task, int worker) {
    typename Shape::lanes_driver driver(p, maps, shape.lanes_shape,
                                        arena(memory + static_cast<std::size_t>(worker) * shape.scratch));
    driver.run(shape.tasks - 1 - task);
  });
}

template <class Shape, real T, class Maps, class Executor>
HEED_NOINLINE void run_on_stack(problem<T> const& p, Maps const& maps, Shape const& shape, Executor& place) {
  alignas(64) std::byte memory[HEED_STACK_SCRATCH_BYTES];
  run_tasks(p, maps, shape, place, memory);
}

template <normalizer_rule Rule, bool Entropy, real T, class Maps>
plan plan_of(problem<T> const& p, Maps const&, int concurrency) {
  call_shape<T, Maps, Rule, Entropy> const shape(p, concurrency);
  bool const lanes_path = shape.path == heed::path::queries_in_lanes;
  plan r;
  r.path = shape.path;
  r.instruction_set = HEED_ISA_NAME;
  r.query_block = lanes_path ? block_lanes<T> : shape.rows_shape.rows;
  r.blocks = lanes_path ? shape.lanes_shape.blocks : 1;
  r.key_block = lanes_path ? p.keys_at_once() : shape.rows_shape.keys;
  r.one_tile = lanes_path && p.in_one_tile();
  r.tile_rows = lanes_path ? register_tile<T>::rows : impl::keys_beside;
  r.tile_vectors = lanes_path ? register_tile<T>::vectors : 4;
  r.tasks = shape.tasks;
  r.splits = lanes_path ? 1 : shape.rows_shape.splits;
  r.scratch_bytes = shape.scratch;
  r.workspace_bytes = shape.bytes();
  r.queries = storage_of<T>(p.q, p.position.rotates());
  r.keys = storage_of<T>(p.k, p.position.rotates(), !lanes_path, lanes_path && key_tiles<T>::copies(p, p.k));
  r.values = storage_of<T>(p.v, false, !lanes_path, lanes_path && key_tiles<T>::copies(p, p.v));
  if (lanes_path && p.on_tiles) {
    r.queries = storage_rounded(p.q, p.position.rotates());
    r.keys = storage_rounded(p.k, p.position.turns_keys(position_code::near));
    r.values = storage_rounded(p.v, false);
  }
  if (!lanes_path && why_no_scores_on_tiles(p) == nullptr)
    r.keys = storage_on_tiles(p.k);
  if (!lanes_path && why_no_values_on_tiles(p) == nullptr)
    r.values = storage_on_tiles(p.v);
  operand out = p.v;
  out.kind = p.out.data != nullptr ? p.out.kind : p.q.kind;
  out.strides[3] = 1;
  r.results = storage_of<T>(out, false);
  r.products = products_of(p, r.path);
  r.offset = p.batch > 0 ? p.band_of(0).offset : 0;
  return r;
}

/// Finds the scratch (the workspace, the stack, or one allocation) and runs the call.
template <normalizer_rule Rule, bool Entropy, real T, class Maps, class Executor>
void run_call(problem<T> const& p, Maps const& maps, Executor& place, workspace* scratch) {
  using shape_type = call_shape<T, Maps, Rule, Entropy>;
  shape_type const shape(p, place.concurrency());
  std::size_t const bytes = shape.bytes();
  if (scratch != nullptr)
    detail::expect(scratch->size() >= bytes, "attention: with's workspace must have at least ", bytes, " bytes, got ",
                   scratch->size());
  if (shape.path == heed::path::nothing)
    return;
  auto const run_in = [&](std::byte* memory) {
    inline_executor here;
    if (shape.workers == 1)
      run_tasks(p, maps, shape, here, memory);
    else
      run_tasks(p, maps, shape, place, memory);
  };
  if (scratch != nullptr) {
    run_in(scratch->data());
  } else if (bytes <= HEED_STACK_SCRATCH_BYTES && shape.workers == 1) {
    inline_executor here;
    run_on_stack(p, maps, shape, here);
  } else if (bytes <= HEED_STACK_SCRATCH_BYTES) {
    run_on_stack(p, maps, shape, place);
  } else {
    workspace own(bytes);
    run_in(own.data());
  }
}

}  // namespace impl
HEED_ISA_END
}  // namespace heed
