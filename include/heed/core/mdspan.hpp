#pragma once

#include <heed/core/view.hpp>

/// `std::mdspan` and Kokkos' mdspan as views, where the header exists. Any layout with strides; nothing is copied.

#if defined(__has_include)
#if __has_include(<version>)
#include <version>
#endif
#if defined(__cpp_lib_mdspan)
#include <mdspan>
#define HEED_HAS_STD_MDSPAN 1
#endif
#if __has_include(<experimental/mdspan>)
#include <experimental/mdspan>
#define HEED_HAS_KOKKOS_MDSPAN 1
#endif
#endif

namespace heed {
namespace detail {

template <class Span>
auto view_of_mdspan(Span const& span) {
  constexpr int rank = static_cast<int>(Span::rank());
  index_array<rank> extents{}, strides{};
  for (int r = 0; r < rank; ++r) {
    auto const at = static_cast<std::size_t>(r);
    extents[at] = static_cast<index>(span.extent(at));
    strides[at] = static_cast<index>(span.stride(at));
  }
  return view<typename Span::element_type, rank>(span.data_handle(), extents, strides);
}

}  // namespace detail

#if defined(HEED_HAS_STD_MDSPAN)
template <class T, class Extents, class Layout, class Accessor>
auto as_view(std::mdspan<T, Extents, Layout, Accessor> const& span) {
  return detail::view_of_mdspan(span);
}
#endif

#if defined(HEED_HAS_KOKKOS_MDSPAN)
template <class T, class Extents, class Layout, class Accessor>
auto as_view(Kokkos::mdspan<T, Extents, Layout, Accessor> const& span) {
  return detail::view_of_mdspan(span);
}
#endif

}  // namespace heed
