#pragma once

#include <heed/attention/fold.hpp>
#include <heed/core/workspace.hpp>

/// What the gated layers ask of tensors whose scalar is known at run time.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// Whether no two elements share memory: sorted by size, each stride steps over all that lies below it.
inline bool elements_distinct(operand const& x) {
  std::array<std::pair<index, index>, 4> steps{};
  std::size_t count = 0;
  for (std::size_t r = 0; r < 4; ++r) {
    if (x.extents[r] == 0)
      return true;
    if (x.extents[r] > 1)
      steps[count++] = {std::abs(x.strides[r]), x.extents[r]};
  }
  for (std::size_t i = 1; i < count; ++i)
    for (std::size_t j = i; j > 0 && steps[j] < steps[j - 1]; --j)
      std::swap(steps[j], steps[j - 1]);
  index below = 1;
  for (std::size_t i = 0; i < count; ++i) {
    if (steps[i].first < below)
      return false;
    below += (steps[i].second - 1) * steps[i].first;
  }
  return true;
}

inline bool share_memory(operand const& a, operand const& b) {
  return bytes_of(a.data, a.kind, a.extents, a.strides).overlaps(bytes_of(b.data, b.kind, b.extents, b.strides));
}

/// Refuses a result that shares memory with itself, or has none.
inline void expect_result(char const* function, char const* what, operand const& x) {
  bool const empty = x.extents[0] * x.extents[1] * x.extents[2] * x.extents[3] == 0;
  detail::expect(empty || x.data != nullptr, function, ": ", what, ".data must not be null");
  detail::expect(elements_distinct(x), function, ": ", what,
                 " must not overlap itself: a stride is 0 or too small for its extents");
}

/// Refuses an input without memory or with negative extents.
inline void expect_input(char const* function, char const* what, operand const& x) {
  bool empty = false;
  for (index e : x.extents) {
    detail::expect(e >= 0, function, ": ", what, "'s extents must not be negative, got ", e);
    empty = empty || e == 0;
  }
  detail::expect(empty || x.data != nullptr, function, ": ", what, ".data must not be null");
}

inline void expect_apart(char const* function, char const* what, operand const& x, char const* from_what,
                         operand const& from) {
  detail::expect(!share_memory(x, from), function, ": ", what, " must not share memory with ", from_what);
}

inline void expect_equal(char const* function, char const* what, char const* dimension, index got, index expected,
                         char const* whose) {
  detail::expect(got == expected, function, ": ", what, ".extent(", dimension, ") must equal ", whose, " ", expected,
                 ", got ", got);
}

/// Refuses offsets beyond ±2^60 and lengths outside [0, kv_len].
inline void expect_positions(char const* function, description const& d, index batch, index kv_len) {
  constexpr index far = index{1} << 60;
  auto const check_offset = [&](index offset) {
    detail::expect(offset > -far && offset < far, function, ": offset must lie within ±2^60, got ", offset);
  };
  if (d.offset)
    check_offset(*d.offset);
  for (auto const& [list, name] : {std::pair{&d.offsets, "offset"}, {&d.lengths, "lengths"}})
    detail::expect(!*list || list->size() == batch, function, ": ", name, " must have one number per batch, ", batch,
                   ", got ", list->size());
  for (index b = 0; b < batch; ++b) {
    if (d.offsets)
      check_offset(d.offsets.whole(b));
    if (d.lengths)
      detail::expect(d.lengths.whole(b) >= 0 && d.lengths.whole(b) <= kv_len, function, ": lengths[", b,
                     "] must lie in [0, ", kv_len, "], got ", d.lengths.whole(b));
  }
}

inline row_sink sink_of(operand const& x) { return {const_cast<std::byte*>(x.data), x.kind, x.strides}; }

template <class F>
HEED_NOINLINE void run_on_small_stack(F const& f) {
  alignas(64) std::byte memory[HEED_STACK_SCRATCH_BYTES];
  f(memory);
}

/// Calls f(memory) with `bytes` of scratch: the caller's workspace, the stack, or one allocation.
template <class F>
void with_scratch(char const* function, std::size_t bytes, workspace* given, F const& f) {
  if (given != nullptr) {
    detail::expect(given->size() >= bytes, function, ": with's workspace must have at least ", bytes, " bytes, got ",
                   given->size());
    return f(given->data());
  }
  if (bytes <= HEED_STACK_SCRATCH_BYTES)
    return run_on_small_stack(f);
  workspace own(bytes);
  f(own.data());
}

}  // namespace impl
HEED_ISA_END
}  // namespace heed
