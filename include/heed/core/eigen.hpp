#pragma once

#include <heed/core/view.hpp>

#include <Eigen/Core>

/// Eigen objects as views, rank 2, whatever their storage order: `Matrix`, `Array`, `Map`, `Block`, `Ref`, and
/// `transpose()` of these. Nothing is copied: an object with direct access has a pointer and two strides.

namespace heed {
namespace detail {

template <class Derived>
inline constexpr bool has_storage = (Derived::Flags & Eigen::DirectAccessBit) != 0;

template <class Scalar, class Derived>
view<Scalar, 2> view_of_eigen(Derived& object, Scalar* data) {
  return {data, {object.rows(), object.cols()}, {object.rowStride(), object.colStride()}};
}

template <class Derived>
constexpr void check_eigen_object() {
  static_assert(has_storage<Derived>,
                "heed: this Eigen expression has no storage to view (a product or a sum, say): evaluate it into a "
                "matrix first");
}

}  // namespace detail

template <class Derived>
auto as_view(Eigen::DenseBase<Derived> const& object) {
  detail::check_eigen_object<Derived>();
  if constexpr (detail::has_storage<Derived>)
    return detail::view_of_eigen<typename Derived::Scalar const>(object.derived(), object.derived().data());
  else
    return view<typename Derived::Scalar const, 2>();
}

template <class Derived>
auto as_view(Eigen::DenseBase<Derived>& object) {
  detail::check_eigen_object<Derived>();
  if constexpr (detail::has_storage<Derived>) {
    auto* data = object.derived().data();
    return detail::view_of_eigen<std::remove_pointer_t<decltype(data)>>(object.derived(), data);
  } else {
    return view<typename Derived::Scalar const, 2>();
  }
}

/// A temporary `Block`, `Map` or `Ref` refers to memory that outlives it, so it may also be written through.
template <class Derived>
auto as_view(Eigen::DenseBase<Derived>&& object) {
  return as_view(static_cast<Eigen::DenseBase<Derived>&>(object));
}

}  // namespace heed
