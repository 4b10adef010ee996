#pragma once

#include <heed/core/description.hpp>
#include <heed/core/eigen.hpp>
#include <heed/core/mdspan.hpp>
#include <heed/core/modifier.hpp>
#include <heed/core/tensor.hpp>
#include <heed/core/workspace.hpp>
#include <heed/kernel/load.hpp>
#include <heed/kernel/rotate.hpp>
#include <heed/position/frequencies.hpp>

#include <algorithm>

/// Rotary position embedding: as a modifier of `attention`, and on its own.

namespace heed {

/// Which two channels make a pair: (2t, 2t + 1) as in RoFormer and GPT-J, or (t, t + pairs) as in NeoX, Llama and HF.
/// A model trained with one and run with the other is quietly bad, so there is no default.
enum class layout { interleaved, half };

namespace detail {

/// Where each row stands: first + i, or a list of numbers by batch and row.
struct row_positions {
  double first = 0;
  void const* list = nullptr;
  double (*read)(void const*, index) = nullptr;
  index_array<2> extents{1, 0};
  index_array<2> strides{0, 1};

  double operator()(index batch, index row) const {
    if (read == nullptr)
      return first + static_cast<double>(row);
    return read(list, (extents[0] == 1 ? 0 : batch * strides[0]) + row * strides[1]);
  }
};

template <class Number>
  requires std::is_arithmetic_v<Number>
row_positions list_positions(Number const* list, index_array<2> const& extents, index_array<2> const& strides) {
  auto const read = [](void const* p, index i) { return static_cast<double>(static_cast<Number const*>(p)[i]); };
  return {0, list, read, extents, strides};
}

template <class Positions>
row_positions as_positions(Positions const& given) {
  if constexpr (std::is_arithmetic_v<Positions>) {
    row_positions result;
    result.first = static_cast<double>(given);
    return result;
  } else if constexpr (requires { as_view(given); }) {
    auto const v = as_view(given);
    constexpr int rank = decltype(v)::rank;
    static_assert(rank <= 2, "heed: positions are a number, a list [len] or a matrix [batch, len]");
    bool column = false;
    if constexpr (requires { Positions::ColsAtCompileTime; })
      column = Positions::ColsAtCompileTime == 1;  // an Eigen vector is a list
    if (rank == 1 || column)
      return list_positions(v.data(), {1, v.extent(0)}, {0, v.stride(0)});
    return list_positions(v.data(), {v.extent(0), v.extent(rank - 1)}, {v.stride(0), v.stride(rank - 1)});
  } else {
    static_assert(
        std::ranges::contiguous_range<Positions>,
        "heed: positions are a number (row i stands at first + i), a contiguous range of numbers, one per row, "
        "or a matrix [batch, len]");
    return list_positions(std::ranges::data(given), {1, static_cast<index>(std::ranges::size(given))}, {0, 1});
  }
}

/// The bytes from the first to behind the last element.
template <class T, int Rank>
std::pair<std::uintptr_t, std::uintptr_t> address_range(view<T, Rank> const& v) {
  auto const first = reinterpret_cast<std::uintptr_t>(v.data());
  if (v.size() == 0)
    return {first, first};
  index below = 0, above = 1;
  for (int r = 0; r < Rank; ++r)
    (v.stride(r) < 0 ? below : above) += (v.extent(r) - 1) * v.stride(r);
  return {first + static_cast<std::uintptr_t>(below * index{sizeof(T)}),
          first + static_cast<std::uintptr_t>(above * index{sizeof(T)})};
}

/// Whether no two indices name the same element: each stride steps over all that the smaller ones reach.
template <class T, int Rank>
bool elements_are_distinct(view<T, Rank> const& v) {
  if (v.size() == 0)
    return true;
  std::array<std::pair<index, index>, static_cast<std::size_t>(Rank)> steps;
  for (int r = 0; r < Rank; ++r)
    steps[static_cast<std::size_t>(r)] = {v.stride(r) < 0 ? -v.stride(r) : v.stride(r), v.extent(r)};
  sort_few(steps.data(), steps.size());
  index reach = 0;
  for (auto const& [step, extent] : steps) {
    if (extent <= 1)
      continue;
    if (step <= reach)
      return false;
    reach += (extent - 1) * step;
  }
  return true;
}

/// Rank 2 or 3 as `[batch, heads, len, dim]`.
template <class T, int Rank>
view<T, 4> with_rank_4(view<T, Rank> const& v) {
  static_assert(Rank >= 2 && Rank <= 4,
                "heed: x is [len, dim], [heads, len, dim] or [batch, heads, len, dim]: two to four dimensions");
  index_array<4> extents{1, 1, 1, 1}, strides{};
  for (int r = 0; r < Rank; ++r) {
    extents[static_cast<std::size_t>(r + 4 - Rank)] = v.extent(r);
    strides[static_cast<std::size_t>(r + 4 - Rank)] = v.stride(r);
  }
  return {v.data(), extents, strides};
}

}  // namespace detail

HEED_ISA_BEGIN

namespace impl {

/// Turns every row of x into out, which may be x itself.
template <bool Back, class In, class Out>
void turn_rows(rotation const& what, view<In const, 4> const& x, detail::row_positions const& positions,
               view<Out, 4> const& out) {
  using T = arithmetic_t<In>;
  index const turned = 2 * what.pairs, dim = x.extent(3), sx = x.stride(3), so = out.stride(3);
  bool const in_place = static_cast<void const*>(x.data()) == static_cast<void const*>(out.data());
  bool const direct = std::same_as<Out, T> && so == 1;

  std::size_t const rotator_bytes = rotator<T>::scratch_bytes(what.pairs);
  std::size_t const bytes = rotator_bytes + (direct ? 0 : static_cast<std::size_t>(turned) * sizeof(T));
  alignas(64) std::byte stack[std::max<std::size_t>(HEED_STACK_SCRATCH_BYTES, 64)];
  workspace heap;
  if (bytes > sizeof stack)
    heap.reserve(bytes);
  std::byte* const scratch = bytes > sizeof stack ? heap.data() : stack;
  rotator<T> rotate(what, scratch);
  T* const buffer = reinterpret_cast<T*>(scratch + rotator_bytes);

  // Heads inside: a position is sought once for all of them.
  for (index b = 0; b < x.extent(0); ++b) {
    for (index i = 0; i < x.extent(2); ++i) {
      rotate.seek(positions(b, i));
      for (index h = 0; h < x.extent(1); ++h) {
        In const* const from = x.data() + b * x.stride(0) + h * x.stride(1) + i * x.stride(2);
        Out* const to = out.data() + b * out.stride(0) + h * out.stride(1) + i * out.stride(2);
        T* row = buffer;
        if constexpr (std::same_as<Out, T>)
          if (direct)
            row = to;
        if (!(direct && in_place))
          widen_row(from, sx, turned, row);
        Back ? rotate.rotate_inverse(row) : rotate.rotate(row);
        if (!direct)
          narrow_row(row, turned, to, so);
        if (!in_place)
          for (index c = turned; c < dim; ++c)
            to[c * so] = round_to<Out>(static_cast<T>(from[c * sx]));
      }
    }
  }
}

}  // namespace impl

/// Rotary position embedding.
///
///     y_a = f (x_a cos φ − x_b sin φ),   y_b = f (x_b cos φ + x_a sin φ),   φ = position · theta_t
///
/// with (a, b) the two channels of pair t and f the attention factor of the frequencies. The first 2 · pairs channels
/// are turned, the others stay (partial rotary).
///
/// As a modifier of `attention` it turns queries and keys on their way into the kernel, so that a cache may hold raw
/// keys. On its own:
///
///     rotary const rope{frequencies::standard(128), layout::half};
///     rope.apply(x, 0);                  // in place, row i at position i
///     rope.apply(x, positions, out);     // one number per row, whole or real, of either sign
///
/// | argument  | shape                                                                   |
/// |-----------|-------------------------------------------------------------------------|
/// | x, out    | [len, dim], [heads, len, dim] or [batch, heads, len, dim], any strides  |
/// | positions | the first row's position; or [len]; or [batch, len]; shared by all heads |
///
/// - Angles are formed in double and right at any position; no table grows with the length.
/// - float and double rows with unit channel stride are turned in place; others go through a row of scratch.
/// - No heap up to about 500 pairs; beyond, one allocation a call. Re-entrant.
/// - out may be x itself (same memory and strides), but may not overlap it otherwise.
/// - `apply_inverse` undoes `apply` at the same positions, attention factor included.
/// @throws argument_error for wrong extents, a wrong number of positions, overlapping memory
/// @see Su et al. 2021, arXiv 2104.09864; formulas B1
struct rotary {
  static constexpr auto kind = family::position;

  frequencies angles;
  layout channels;

  rotary(frequencies per_pair, layout pairs_of_channels) : angles(std::move(per_pair)), channels(pairs_of_channels) {}

  rotation what() const {
    return {angles.theta(), angles.pairs(), angles.attention_factor(), channels == layout::interleaved};
  }

  void describe(description& d) const {
    d.position.rule = position_rule::rotary;
    d.position.theta = angles.theta();
    d.position.pairs = angles.pairs();
    d.position.attention_factor = angles.attention_factor();
    d.position.interleaved = channels == layout::interleaved;
  }

  template <class X, class Positions>
  void apply(X&& x, Positions const& positions) const {
    in_place<false>("rotary::apply", as_view(std::forward<X>(x)), positions);
  }
  template <class X, class Positions, class Out>
  void apply(X const& x, Positions const& positions, Out&& out) const {
    out_of_place<false>("rotary::apply", as_view(x), positions, as_view(std::forward<Out>(out)));
  }

  template <class X, class Positions>
  void apply_inverse(X&& x, Positions const& positions) const {
    in_place<true>("rotary::apply_inverse", as_view(std::forward<X>(x)), positions);
  }
  template <class X, class Positions, class Out>
  void apply_inverse(X const& x, Positions const& positions, Out&& out) const {
    out_of_place<true>("rotary::apply_inverse", as_view(x), positions, as_view(std::forward<Out>(out)));
  }

 private:
  template <bool Back, class T, int Rank, class Positions>
  void in_place(char const* function, view<T, Rank> const& x, Positions const& given) const {
    static_assert(!std::is_const_v<T>,
                  "heed: rotary.apply(x, positions) writes to x, which is const here: name an out as third argument");
    static_assert(storage_scalar<std::remove_const_t<T>>,
                  "heed: x holds float, double, Eigen::half or Eigen::bfloat16");
    auto const positions = detail::as_positions(given);
    auto const v = detail::with_rank_4(x);
    check(function, v, positions);
    detail::expect(detail::elements_are_distinct(v), function,
                   ": x must not overlap itself (a stride is 0 or too small)");
    if (v.size() > 0)
      impl::turn_rows<Back, T, T>(what(), v, positions, v);
  }

  template <bool Back, class In, int Rank, class Positions, class Out, int OutRank>
  void out_of_place(char const* function, view<In, Rank> const& x, Positions const& given,
                    view<Out, OutRank> const& to) const {
    using in_type = std::remove_const_t<In>;
    static_assert(Rank == OutRank, "heed: x and out have different numbers of dimensions");
    static_assert(!std::is_const_v<Out>, "heed: out is const: nothing can be written to it");
    static_assert(storage_scalar<in_type> && storage_scalar<std::remove_const_t<Out>>,
                  "heed: x and out hold float, double, Eigen::half or Eigen::bfloat16");
    static_assert(std::same_as<arithmetic_t<in_type>, arithmetic_t<std::remove_const_t<Out>>>,
                  "heed: double goes with double only: x and out differ");
    auto const positions = detail::as_positions(given);
    auto const v = detail::with_rank_4(view<in_type const, Rank>(x));
    auto const out = detail::with_rank_4(to);
    check(function, v, positions);
    static constexpr char const* names[] = {"batch", "heads", "len", "dim"};
    for (int r = 0; r < 4; ++r)
      detail::expect(out.extent(r) == v.extent(r), function, ": out.extent(", names[r], ") must equal x's ",
                     v.extent(r), ", got ", out.extent(r));
    detail::expect(detail::elements_are_distinct(out), function,
                   ": out must not overlap itself (a stride is 0 or too small)");
    bool const same =
        std::same_as<in_type, Out> && static_cast<void const*>(v.data()) == out.data() && v.strides() == out.strides();
    auto const [x_first, x_end] = detail::address_range(v);
    auto const [out_first, out_end] = detail::address_range(out);
    detail::expect(same || x_end <= out_first || out_end <= x_first, function,
                   ": out must be x itself or lie apart from it, got overlapping memory");
    if (v.size() > 0)
      impl::turn_rows<Back, in_type, Out>(what(), v, positions, out);
  }

  template <class T>
  void check(char const* function, view<T, 4> const& x, detail::row_positions const& positions) const {
    for (index extent : x.extents())
      detail::expect(extent >= 0, function, ": x has a negative extent, ", extent);
    detail::expect(x.extent(3) >= 2 * angles.pairs(), function, ": x.extent(dim) must be at least ", 2 * angles.pairs(),
                   ", two channels for each pair, got ", x.extent(3));
    if (positions.read == nullptr)
      return;
    detail::expect(positions.extents[1] == x.extent(2), function, ": positions must have ", x.extent(2),
                   " numbers, one per row, got ", positions.extents[1]);
    detail::expect(positions.extents[0] == 1 || positions.extents[0] == x.extent(0), function,
                   ": positions must have 1 or ", x.extent(0), " rows of numbers, one per batch, got ",
                   positions.extents[0]);
  }
};

HEED_ISA_END
}  // namespace heed
