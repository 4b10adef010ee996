#pragma once

#include <heed/attention/attention.hpp>

/// Keys and values as bytes: a quarter of float's memory, and of the time that reading it takes.

namespace heed {

using int8 = std::int8_t;

/// Rows of codes and what they are multiplied with, in somebody else's memory:
///
///     x[…, j, c] = scale[…, j] · code[…, j, c]              a scale a row
///     x[…, j, c] = scale[…, j, c / block] · code[…, j, c]   a scale for every `block` channels
///
///     quantize(k, codes, scales);                            // [heads, len, dim], [heads, len]
///     attention(q, quantized_view(codes, scales), v, out);
///
/// | argument | shape | strides |
/// |---|---|---|
/// | codes | [len, dim], [heads, len, dim] or [batch, heads, len, dim] | any; a unit last stride is the fast path |
/// | scales | codes' without dim, or with dim / block in its place | any, 0 too |
///
/// - k, v or both of `attention`; the other tensors are float, half or bfloat16.
/// - Long prompts widen a block of keys at a time; for AMX tiles (`with_amx`), beside bfloat16 queries, they round it to
///   bfloat16. Few rows widen in registers where a row has one scale, which then enters its score and its weight instead of
///   its channels, or multiply codes on tiles. `explain` tells.
/// - A scale may be anything; one that belongs to a hidden key, NaN included, reaches no row. Copies no element.
/// @throws argument_error if the scales' extents do not go with the codes', or `block` does not divide dim
template <class T = int8, int Rank = 4>
class quantized_view {
  static_assert(std::same_as<T, int8>, "heed: quantised rows hold int8");
  static_assert(Rank >= 2 && Rank <= 4,
                "heed: quantised rows have rank 2 [len, dim], 3 [heads, len, dim] or 4 [batch, …]");

 public:
  using value_type = float;  // what its elements are
  using code_type = T;
  static constexpr int rank = Rank;

  /// A scale a row: scales of one rank less, or of the same rank with a last extent of 1 (an Eigen column).
  template <class Codes, class Scales>
  quantized_view(Codes const& codes, Scales const& scales)
      : quantized_view(as_view(codes), as_view(scales), as_view(codes).extent(Rank - 1)) {}

  /// A scale for every `block` channels.
  template <class Codes, class Scales>
  quantized_view(Codes const& codes, Scales const& scales, index block) {
    set(as_view(codes), as_view(scales), block);
  }

  index extent(int r) const { return rows_.extents[static_cast<std::size_t>(r + 4 - Rank)]; }
  index block() const { return rows_.scale_block; }

  /// What the kernels read.
  operand stored_rows() const { return rows_; }

  friend quantized_view as_view(quantized_view const& rows) { return rows; }
  friend operand make_operand(quantized_view const& rows) { return rows.rows_; }

 private:
  template <class Code, class Scale, int ScaleRank>
  void set(view<Code, Rank> const& codes, view<Scale, ScaleRank> const& scales, index block) {
    static_assert(std::same_as<std::remove_const_t<Code>, T>, "heed: quantised rows hold int8");
    static_assert(std::same_as<std::remove_const_t<Scale>, float>, "heed: the scales of quantised rows are float");
    static_assert(ScaleRank == Rank || ScaleRank == Rank - 1, "heed: scales have the rank of the codes, or one less");
    rows_ = heed::make_operand(codes);
    index const dim = codes.extent(Rank - 1);
    detail::expect(dim >= 1, "quantized_view: codes must have at least 1 channel, got ", dim);
    detail::expect(block >= 1 && dim % block == 0, "quantized_view: block must divide codes' ", dim, " channels, got ",
                   block);
    for (int r = 0; r < Rank; ++r) {
      index const expected = r + 1 < Rank ? codes.extent(r) : dim / block;
      index const got = r < ScaleRank ? scales.extent(r) : 1;
      detail::expect(got == expected, "quantized_view: scales.extent(", r, ") must be ", expected, ", got ", got);
      rows_.scale_strides[static_cast<std::size_t>(r + 4 - Rank)] = r < ScaleRank ? scales.stride(r) : 0;
    }
    rows_.scales = scales.data();
    rows_.scale_block = block;
    bool const empty = scales.size() == 0;
    detail::expect(empty || codes.data() != nullptr, "quantized_view: codes.data must not be null");
    detail::expect(empty || scales.data() != nullptr, "quantized_view: scales.data must not be null");
  }

  operand rows_;
};

template <class Codes, class Scales>
quantized_view(Codes const&, Scales const&)
    -> quantized_view<typename decltype(as_view(std::declval<Codes const&>()))::value_type,
                      decltype(as_view(std::declval<Codes const&>()))::rank>;
template <class Codes, class Scales>
quantized_view(Codes const&, Scales const&, index)
    -> quantized_view<typename decltype(as_view(std::declval<Codes const&>()))::value_type,
                      decltype(as_view(std::declval<Codes const&>()))::rank>;

HEED_ISA_BEGIN
namespace impl {

/// Calls code(c, nearest code of number(c)) for n finite numbers and returns the scale that they share.
template <class Number, class Code>
float quantize_block(index n, Number number, Code code) {
  double most = 0;
  for (index c = 0; c < n; ++c)
    most = std::max(most, std::fabs(number(c)));
  auto const scale = static_cast<float>(most / 127);
  for (index c = 0; c < n; ++c) {
    double const nearest = scale == 0 ? 0 : std::nearbyint(number(c) / static_cast<double>(scale));
    code(c, static_cast<int8>(std::clamp(nearest, -127.0, 127.0)));  // a scale among the least floats is a coarse one
  }
  return scale;
}

}  // namespace impl

/// Fills codes and scales with the nearest to x that 8 bits allow, symmetric about 0:
///
///     scale = max |x| / 127 over a row's block of channels,   code = x / scale rounded to nearest even
///
/// - Shapes as in `quantized_view`, any strides (not 0 in codes and scales); x of any storage.
/// - Errors are at most half a scale. A block of zeros has scale 0 and codes 0. ±127 at most: −128 is not used.
/// @throws argument_error for extents that do not go together, or an x that is not finite (as a float), before anything
///   is written
template <class X, class Codes, class Scales>
void quantize(X const& x, Codes&& codes, Scales&& scales, index block) {
  auto const to = as_view(std::forward<Codes>(codes));
  auto const factors = as_view(std::forward<Scales>(scales));
  static_assert(!std::is_const_v<std::remove_pointer_t<decltype(to.data())>> &&
                    !std::is_const_v<std::remove_pointer_t<decltype(factors.data())>>,
                "heed: codes and scales are written: they must not be const");
  operand const from = make_operand(as_view(x)), out = quantized_view(to, factors, block).stored_rows();
  for (std::size_t r = 0; r < 4; ++r)
    detail::expect(from.extents[r] == out.extents[r], "quantize: x.extent must equal codes' ", out.extents[r],
                   " in dimension ", r, " of 4, got ", from.extents[r]);
  auto const each_block = [&](auto const& f) {
    for (index b = 0; b < out.extents[0]; ++b)
      for (index h = 0; h < out.extents[1]; ++h)
        for (index j = 0; j < out.extents[2]; ++j)
          for (index c = 0; c < out.extents[3]; c += block)
            f(b, h, j, c);
  };
  each_block([&](index b, index h, index j, index first) {
    for (index c = first; c < first + block; ++c)
      detail::expect(std::isfinite(static_cast<float>(from(b, h, j, c))), "quantize: x must be finite, got ",
                     from(b, h, j, c), " in batch ", b, ", head ", h, ", row ", j, ", channel ", c);
  });
  each_block([&](index b, index h, index j, index first) {
    *const_cast<float*>(out.scale_at(b, h, j, first)) = impl::quantize_block(
        block, [&](index c) { return from(b, h, j, first + c); },
        [&](index c, int8 code) {
          *reinterpret_cast<int8*>(const_cast<std::byte*>(out.at(b, h, j, first + c))) = code;
        });
  });
}

/// The same with a scale a row.
template <class X, class Codes, class Scales>
void quantize(X const& x, Codes&& codes, Scales&& scales) {
  auto const rows = as_view(x);
  quantize(x, std::forward<Codes>(codes), std::forward<Scales>(scales), rows.extent(decltype(rows)::rank - 1));
}

HEED_ISA_END
}  // namespace heed
