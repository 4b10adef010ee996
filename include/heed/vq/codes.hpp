#pragma once

#include <heed/core/eigen.hpp>
#include <heed/core/mdspan.hpp>
#include <heed/core/tensor.hpp>
#include <heed/kernel/load.hpp>

/// What the headers of vq/ share: keys as rows of rank 4, codes as [batch, heads, len].

namespace heed {
HEED_ISA_BEGIN
namespace impl {

template <class T>
using stored_in = typename decltype(as_view(std::declval<T>()))::value_type;
template <class T>
inline constexpr int rank_of = decltype(as_view(std::declval<T>()))::rank;

/// Rank 1 to 3 as [batch, heads, len]; an Eigen column [len, 1] is one head where `one_head` says that there is one.
template <class T, int Rank>
view<T, 3> codes_view(view<T, Rank> const& v, bool one_head) {
  static_assert(std::same_as<std::remove_const_t<T>, std::int32_t>, "heed: codes are int32");
  static_assert(Rank >= 1 && Rank <= 3, "heed: codes are [len], [heads, len] or [batch, heads, len]");
  if constexpr (Rank == 2)
    if (one_head && v.extent(1) == 1)
      return {v.data(), {1, 1, v.extent(0)}, {0, 0, v.stride(0)}};
  index_array<3> extents{1, 1, 1}, strides{};
  std::copy(v.extents().begin(), v.extents().end(), extents.begin() + (3 - Rank));
  std::copy(v.strides().begin(), v.strides().end(), strides.begin() + (3 - Rank));
  return {v.data(), extents, strides};
}

/// Keys of rank 2 to 4 as [batch, heads, len, dim].
template <class K>
operand key_rows(K const& k) {
  auto const v = as_view(k);
  static_assert(decltype(as_view(k))::rank >= 2 && decltype(as_view(k))::rank <= 4,
                "heed: keys are [len, dim], [heads, len, dim] or [batch, heads, len, dim]");
  static_assert(storage_scalar<stored_in<K const&>>, "heed: keys hold float, double, Eigen::half or Eigen::bfloat16");
  return make_operand(v);
}

inline void expect_keys(char const* function, operand const& k, index heads, index dim) {
  detail::expect(k.extents[1] == heads, function, ": k.extent(heads) must equal the codebook's ", heads, ", got ",
                 k.extents[1]);
  detail::expect(k.extents[3] == dim, function, ": k.extent(dim) must equal the codebook's ", dim, ", got ",
                 k.extents[3]);
}

inline void expect_codes(char const* function, view<std::int32_t const, 3> const& z, index_array<3> const& extents) {
  static constexpr char const* names[] = {"batch", "heads", "len"};
  for (int r = 0; r < 3; ++r)
    detail::expect(z.extent(r) == extents[static_cast<std::size_t>(r)], function, ": codes.extent(", names[r],
                   ") must be ", extents[static_cast<std::size_t>(r)], ", got ", z.extent(r));
}

}  // namespace impl
HEED_ISA_END
}  // namespace heed
