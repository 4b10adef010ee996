#pragma once

#include <heed/core/eigen.hpp>
#include <heed/core/mdspan.hpp>
#include <heed/core/operand.hpp>
#include <heed/kernel/exp.hpp>
#include <heed/kernel/load.hpp>

/// The small row-by-row pieces around gated attention: SiLU, scale-offset, RMS norm without gain, post-norm residual.

namespace heed {
HEED_ISA_BEGIN
namespace impl {

/// x ← x / (1 + e^−x) for n numbers side by side.
template <real T>
HEED_NOINLINE void silu_row(T* x, index n) {
  batch<T> const one(T(1)), zero(T(0));
  auto const silu = [&](batch<T> const& a) HEED_LAMBDA_INLINE { return quotient<T>(a, one + heed::exp(zero - a)); };
  index c = 0;
  for (; c + lanes<T> <= n; c += lanes<T>)
    store(x + c, silu(load(x + c)));
  if (c < n)
    store_first(x + c, silu(load_first(x + c, n - c)), n - c);
}

/// The arithmetic scalar of two tensors, which must be double together or not at all.
template <class X, class Out>
using shared_arithmetic = arithmetic_t<typename decltype(as_view(std::declval<X&>()))::value_type>;

template <class X, class Out>
void check_rows_like(char const* function, char const* what, X const& x, Out const& like) {
  static_assert(X::rank == Out::rank, "heed: the tensors have different numbers of dimensions");
  static_assert(std::same_as<arithmetic_t<typename X::value_type>, arithmetic_t<typename Out::value_type>>,
                "heed: double goes with double only");
  for (int r = 0; r < X::rank; ++r)
    detail::expect(x.extent(r) == like.extent(r), function, ": ", what, ".extent(", r, ") must equal x's ",
                   like.extent(r), ", got ", x.extent(r));
}

/// Calls f(row of the first operand's extents) for every row, last two extents being rows and channels.
template <class F>
void for_each_row(index_array<4> const& extents, F const& f) {
  for (index a = 0; a < extents[0]; ++a)
    for (index b = 0; b < extents[1]; ++b)
      for (index i = 0; i < extents[2]; ++i)
        f(a, b, i);
}

/// out ← f(c, x) with f made for each row by `make(row as numbers)`; out may be x, element for element.
template <class X, class Out, class Make>
void map_rows(X const& x, Out const& out, Make const& make) {
  using stored = typename Out::value_type;
  operand const from = make_operand(x), to = make_operand(out);
  index const n = from.extents[3];
  for_each_row(from.extents, [&](index a, index b, index i) {
    auto const* const p = reinterpret_cast<typename X::value_type const*>(from.at(a, b, i, 0));
    auto* const q = reinterpret_cast<stored*>(const_cast<std::byte*>(to.at(a, b, i, 0)));
    auto const f = make(a, b, i, p, from.strides[3]);
    for (index c = 0; c < n; ++c)
      q[c * to.strides[3]] = round_to<stored>(f(c));
  });
}

/// 1 / √(mean x² + eps) of n numbers, 0 where that root is 0.
template <real T, class At>
T inverse_rms(index n, double eps, At const& at) {
  T sum[8] = {};  // eight chains, so that the additions overlap
  index c = 0;
  for (; c + 8 <= n; c += 8)
    for (index k = 0; k < 8; ++k)
      sum[k] += at(c + k) * at(c + k);
  for (; c < n; ++c)
    sum[0] += at(c) * at(c);
  T const total = ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
  double const root = std::sqrt(static_cast<double>(total) / static_cast<double>(n) + eps);
  return static_cast<T>(root == 0 ? 0 : 1 / root);
}

}  // namespace impl

/// Root-mean-square norm without gain: `out = x / √(mean(x²) + eps)` over the last dimension.
///
/// - x, out: rank 1 to 4, any strides and storage; out may be x itself.
/// - A row of zeros stays zeros, with eps = 0 too. eps = 1e-7 is bert4keras' and GAU-α's.
/// @throws argument_error for other extents or a negative eps
/// @see formulas C2, C5
template <class X, class Out>
void rms_norm(X const& x, Out&& out, double eps = 1e-7) {
  auto const from = as_view(x);
  auto const to = as_view(std::forward<Out>(out));
  using T = arithmetic_t<typename decltype(from)::value_type>;
  impl::check_rows_like("rms_norm", "out", to, from);
  detail::expect(eps >= 0, "rms_norm: eps must not be negative, got ", eps);
  index const n = from.extent(decltype(from)::rank - 1);
  impl::map_rows(from, to, [&](index, index, index, auto const* row, index stride) {
    auto const at = [row, stride](index c) { return static_cast<T>(row[c * stride]); };
    T const factor = impl::inverse_rms<T>(n, eps, at);
    return [at, factor](index c) { return at(c) * factor; };
  });
}

/// The end of a post-norm block: `out = rms_norm(x + y)`, y being what the layer made of x.
///
/// - x, y, out: one shape, rank 1 to 4, any strides and storage; out may be x or y itself.
/// @throws argument_error for other extents or a negative eps
/// @see formulas C2: x ← RMS(x + GAU(x))
template <class X, class Y, class Out>
void post_norm_residual(X const& x, Y const& y, Out&& out, double eps = 1e-7) {
  auto const from = as_view(x);
  auto const layer = as_view(y);
  auto const to = as_view(std::forward<Out>(out));
  using T = arithmetic_t<typename decltype(from)::value_type>;
  using other = typename decltype(layer)::value_type;
  impl::check_rows_like("post_norm_residual", "y", layer, from);
  impl::check_rows_like("post_norm_residual", "out", to, from);
  detail::expect(eps >= 0, "post_norm_residual: eps must not be negative, got ", eps);
  index const n = from.extent(decltype(from)::rank - 1);
  operand const added = make_operand(layer);
  impl::map_rows(from, to, [&](index a, index b, index i, auto const* row, index stride) {
    auto const* const second = reinterpret_cast<other const*>(added.at(a, b, i, 0));
    index const step = added.strides[3];
    auto const at = [=](index c) { return static_cast<T>(row[c * stride]) + static_cast<T>(second[c * step]); };
    T const factor = impl::inverse_rms<T>(n, eps, at);
    return [at, factor](index c) { return at(c) * factor; };
  });
}

/// Per-channel scale and offset: `out = gamma ⊙ z + beta`, how GAU makes queries and keys from one projection.
///
/// - z, out: rank 1 to 4; gamma and beta: one number per channel of the last dimension (any contiguous range or Eigen
///   vector); an empty beta is 0. out may be z itself.
/// @throws argument_error for other extents
/// @see Hua et al. 2022, arXiv 2202.10447; formulas C1
template <class Z, class Gamma, class Beta, class Out>
void scale_offset(Z const& z, Gamma const& gamma, Beta const& beta, Out&& out) {
  auto const from = as_view(z);
  auto const to = as_view(std::forward<Out>(out));
  using T = arithmetic_t<typename decltype(from)::value_type>;
  impl::check_rows_like("scale_offset", "out", to, from);
  number_list const scales(gamma), offsets(beta);
  index const n = from.extent(decltype(from)::rank - 1);
  detail::expect(scales.size() == n, "scale_offset: gamma must have one number per channel, ", n, ", got ",
                 scales.size());
  detail::expect(offsets.size() == 0 || offsets.size() == n, "scale_offset: beta must have one number per channel, ", n,
                 ", or none, got ", offsets.size());
  impl::map_rows(from, to, [&](index, index, index, auto const* row, index stride) {
    return [&, row, stride](index c) {
      T const offset = offsets.size() == 0 ? T(0) : static_cast<T>(offsets.real(c));
      return static_cast<T>(row[c * stride]) * static_cast<T>(scales.real(c)) + offset;
    };
  });
}

HEED_ISA_END
}  // namespace heed
