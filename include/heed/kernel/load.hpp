#pragma once

#include <heed/core/operand.hpp>
#include <heed/core/transpose.hpp>
#include <heed/kernel/tile.hpp>

/// The ends of the pass: rows of any storage into arithmetic rows, rows into lanes, and back.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

template <class From, real T>
void widen_row(From const* p, index stride, index n, T* to) {
  index c = 0;
  if constexpr (requires {
                  { load_widened(p) } -> std::same_as<batch<T>>;
                }) {
    if (stride == 1)
      for (; c + lanes<T> <= n; c += lanes<T>)
        store(to + c, load_widened(p + c));
  }
  for (; c < n; ++c)
    to[c] = static_cast<T>(p[c * stride]);
}

template <class From, real T>
void widen_block(From const* p, index row_stride, index stride, index rows, index n, T* to, index ld) {
  if (stride != 1 && row_stride == 1) {  // column-major: read along the memory, write across the small tile
    for (index c = 0; c < n; ++c)
      for (index r = 0; r < rows; ++r)
        to[r * ld + c] = static_cast<T>(p[r + c * stride]);
    return;
  }
  for (index r = 0; r < rows; ++r)
    widen_row(p + r * row_stride, stride, n, to + r * ld);
}

template <class To, real T>
void narrow_row(T const* from, index n, To* p, index stride) {
  index c = 0;
  if constexpr (requires { store_narrowed(p, load(from)); })
    if (stride == 1)
      for (; c + lanes<T> <= n; c += lanes<T>)
        store_narrowed(p + c, load(from + c));
  for (; c < n; ++c)
    p[c * stride] = round_to<To>(from[c]);
}

}  // namespace impl

/// to[r][c] = the element (r, c) of a block in any storage, exactly widened. Strides in elements of the storage.
template <real T>
HEED_NOINLINE void load_rows(std::byte const* p, scalar_kind kind, index row_stride, index stride, index rows, index n,
                             T* to, index ld) {
  auto const as = [&]<class From>(From const* from) { impl::widen_block(from, row_stride, stride, rows, n, to, ld); };
  switch (kind) {
  case scalar_kind::float32:
    return as(reinterpret_cast<float const*>(p));
  case scalar_kind::float64:
    return as(reinterpret_cast<double const*>(p));
  case scalar_kind::float16:
    return as(reinterpret_cast<Eigen::half const*>(p));
  case scalar_kind::bfloat16:
    return as(reinterpret_cast<Eigen::bfloat16 const*>(p));
  case scalar_kind::int8_code:
    return as(reinterpret_cast<std::int8_t const*>(p));
  case scalar_kind::boolean:
    return;
  }
}

/// The reverse for one row: rounded to nearest even into any storage.
template <real T>
HEED_NOINLINE void store_row(T const* from, index n, std::byte* p, scalar_kind kind, index stride) {
  auto const as = [&]<class To>(To* to) { impl::narrow_row(from, n, to, stride); };
  switch (kind) {
  case scalar_kind::float32:
    return as(reinterpret_cast<float*>(p));
  case scalar_kind::float64:
    return as(reinterpret_cast<double*>(p));
  case scalar_kind::float16:
    return as(reinterpret_cast<Eigen::half*>(p));
  case scalar_kind::bfloat16:
    return as(reinterpret_cast<Eigen::bfloat16*>(p));
  case scalar_kind::boolean:
  case scalar_kind::int8_code:
    return;  // nothing is written quantised
  }
}

/// Whether rows of this operand can be read where they lie.
template <real T>
bool in_place(operand const& x) {
  return x.kind == kind_of<T>() && (x.strides[3] == 1 || x.extents[3] == 1);
}

/// Whether there are gaps between rows, and pages from one to the next: all of them then fall into a few sets of the caches.
inline bool far_apart(operand const& x) {
  return x.strides[2] * size_of(x.kind) >= 4096 && x.strides[2] >= 2 * x.extents[3];
}

/// Rows `first`… of one head of an operand in any storage; quantised ones are codes times their scales.
template <real T>
HEED_NOINLINE void load_rows(operand const& x, index batch_at, index head, index first, index rows, index n, T* to,
                             index ld) {
  load_rows(x.at(batch_at, head, first, 0), x.kind, x.strides[2], x.strides[3], rows, n, to, ld);
  if (x.scales == nullptr)
    return;
  for (index r = 0; r < rows; ++r)
    for (index begin = 0; begin < n; begin += x.scale_block) {
      auto const scale = static_cast<T>(*x.scale_at(batch_at, head, first + r, begin));
      T* const part = to + r * ld + begin;
      index const channels = std::min(x.scale_block, n - begin);
      index c = 0;
      for (; c + lanes<T> <= channels; c += lanes<T>)
        store(part + c, load(part + c) * batch<T>(scale));
      for (; c < channels; ++c)
        part[c] *= scale;
    }
}

/// Rows of numbers that a product can read: where, and how far apart.
template <real T>
struct tile_rows_at {
  T const* data = nullptr;
  index ld = 0;
};

/// Rows in any storage, for products that widen in registers. Those that are quantised have one scale each; those that no
/// cache is likely to hold are `in_memory`, and asked for from further ahead.
struct stored_rows_at {
  std::byte const* data = nullptr;
  index ld = 0;  // in elements
  scalar_kind kind = scalar_kind::float32;
  float const* scales = nullptr;
  index scale_stride = 0;
  bool in_memory = false;

  stored_rows_at from(index row) const {
    stored_rows_at rest = *this;
    rest.data += row * ld * size_of(kind);
    if (scales != nullptr)
      rest.scales += row * scale_stride;
    return rest;
  }
};

/// Whether rows of this operand can be widened in registers while they are read: `with_stored` knows their kind, and a
/// scale, where there is one, serves the whole row.
template <real T>
bool in_registers(operand const& x) {
  if (x.strides[3] != 1 && x.extents[3] != 1)
    return false;
  switch (x.kind) {
  case scalar_kind::float64:
    return std::same_as<T, double>;
  case scalar_kind::int8_code:
    return std::same_as<T, float> && x.scale_block >= x.extents[3];
  case scalar_kind::boolean:
    return false;
  default:
    return std::same_as<T, float>;
  }
}

/// Calls f with p as a pointer to what is stored there.
template <real T, class F>
HEED_ALWAYS_INLINE inline void with_stored(std::byte const* p, scalar_kind kind, F&& f) {
  if constexpr (std::same_as<T, double>) {
    f(reinterpret_cast<double const*>(p));
  } else {
    switch (kind) {
    case scalar_kind::float16:
      return f(reinterpret_cast<Eigen::half const*>(p));
    case scalar_kind::bfloat16:
      return f(reinterpret_cast<Eigen::bfloat16 const*>(p));
    case scalar_kind::int8_code:
      return f(reinterpret_cast<std::int8_t const*>(p));
    default:
      return f(reinterpret_cast<float const*>(p));
    }
  }
}

namespace impl {

/// Numbers for lanes × lanes of them, where parts of rows are taken in and given out.
template <real T>
struct spare_square {
  static constexpr index side = lanes<T>;
  alignas(64) T numbers[static_cast<std::size_t>(side * side)];

  void read(T const* rows, index ld, index count, index columns) {
    std::fill_n(numbers, side * side, T(0));
    for (index i = 0; i < count; ++i)
      std::copy_n(rows + i * ld, columns, numbers + i * side);
  }
  void write(T* rows, index ld, index count, index columns) const {
    for (index i = 0; i < count; ++i)
      std::copy_n(numbers + i * side, columns, rows + i * ld);
  }
};

enum class factor_of { rows, columns };

/// to[j][i] = from[i][j] times the factor of the row i, or of the column j. Not inlined: in a loop over squares compilers
/// would keep sixteen addresses of rows in memory, which takes a half longer. The factor comes by reference: behind a call
/// that is given a vector in a register g++ does not clear the registers' upper halves, and SSE code that runs later takes
/// five times as long (examples/16_dispatch.cpp).
template <factor_of Side, real T>
HEED_NOINLINE void transpose_square(T const* from, index ldfrom, batch<T> const& factor, T* to, index ldto) {
  batch<T> square[static_cast<std::size_t>(lanes<T>)];
  if constexpr (Side == factor_of::rows) {
    load_transposed<T>([&](index i) HEED_LAMBDA_INLINE { return from + i * ldfrom; }, square);
  } else {
    unroll<lanes<T>>([&](int i) HEED_LAMBDA_INLINE { square[i] = load(from + i * ldfrom) * factor; });
    transpose<T>(square);
  }
  unroll<lanes<T>>([&](int i) HEED_LAMBDA_INLINE {
    if constexpr (Side == factor_of::rows)
      square[i] = square[i] * factor;
    store(to + i * ldto, square[i]);
  });
}

/// Equally spaced squares along one side of a matrix: the first one's place, from row to row, and from square to square.
template <class T>
struct squares {
  T* first;
  index ld, step;
};

/// The same for `count` ≤ lanes rows of n numbers, square by square: rows that come in, or that go out. The last square
/// takes some numbers a second time where n is no multiple of `lanes`: to fill a part of one takes a tenth of a call of 77
/// keys, 3 to 5 % of one of 512 (dim 40, `heed_bench_attention --benchmark_filter=prefill/sd15`, both in turns).
template <factor_of Side, real T>
HEED_ALWAYS_INLINE inline void transpose_strip(squares<T const> from, index count, index n, T const* factor,
                                               squares<T> to) {
  constexpr index w = lanes<T>;
  constexpr bool packs = Side == factor_of::rows;
  batch<T> const f = load(factor);
  spare_square<T> part, turned;
  for (index c = 0; c < n; c += w, from.first += from.step, to.first += to.step) {
    index const channels = std::min(w, n - c), back = w - channels;
    if (count == w && n >= w) {
      from.first -= back * (from.step / w);
      to.first -= back * (to.step / w);
      transpose_square<Side>(from.first, from.ld, f, to.first, to.ld);
      continue;
    }
    part.read(from.first, from.ld, packs ? count : channels, packs ? channels : w);
    transpose_square<Side>(part.numbers, w, f, turned.numbers, w);
    turned.write(to.first, to.ld, packs ? channels : count, packs ? w : channels);
  }
}

}  // namespace impl

/// to[c][lane] = rows[lane][c] · factor[lane] for `count` ≤ lanes rows of n numbers; lanes past them are 0. `to` has
/// `width` lanes a row.
template <real T>
HEED_NOINLINE void pack_lanes(T const* rows, index ld, index count, index n, T const* factor, T* to, index width) {
  impl::transpose_strip<impl::factor_of::rows, T>({rows, ld, lanes<T>}, count, n, factor,
                                                  {to, width, lanes<T> * width});
}

/// rows[lane][c] = from[c][lane] · factor[lane] for `count` ≤ lanes rows: the reverse of `pack_lanes`.
template <real T>
HEED_NOINLINE void unpack_lanes(T const* from, index width, index n, T const* factor, T* rows, index ld, index count) {
  impl::transpose_strip<impl::factor_of::columns, T>({from, width, lanes<T> * width}, count, n, factor,
                                                     {rows, ld, lanes<T>});
}

/// Whether all rows × n numbers, in any storage, are finite: x·0 is 0 for exactly those. Rows by fours, each with a sum
/// of its own, which need not wait for each other.
template <class Stored>
HEED_NOINLINE bool all_finite(Stored const* p, index ld, index rows, index n) {
  using T = std::conditional_t<std::same_as<Stored, double>, double, float>;
  constexpr index w = lanes<T>, at_once = 4;
  batch<T> const zero(T(0));
  batch<T> sum[at_once] = {zero, zero, zero, zero};
  auto const add = [&](Stored const* row, index c, batch<T>& to) HEED_LAMBDA_INLINE {
    to = fma(c + w <= n ? load_widened(row + c) : load_widened_first(row + c, n - c), zero, to);
  };
  index r = 0;
  for (; r + at_once <= rows; r += at_once)
    for (index c = 0; c < n; c += w)
      unroll<at_once>([&](int i) HEED_LAMBDA_INLINE { add(p + (r + i) * ld, c, sum[i]); });
  for (; r < rows; ++r)
    for (index c = 0; c < n; c += w)
      add(p + r * ld, c, sum[0]);
  return !heed::any<T>(not_equal<T>((sum[0] + sum[1]) + (sum[2] + sum[3]), zero));
}

/// The same for n numbers that stand `stride` apart.
inline bool all_finite(float const* p, index stride, index n) {
  for (index i = 0; i < n; ++i)
    if (!(p[i * stride] * 0.0f == 0.0f))
      return false;
  return true;
}

HEED_ISA_END
}  // namespace heed
