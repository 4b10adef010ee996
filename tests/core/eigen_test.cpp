#include <heed/core/eigen.hpp>

#include "support/catch.hpp"
#include "support/counting_allocator.hpp"

namespace heed::test {
namespace {

using column_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic>;
using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using any_stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;

/// Whether the view is the object: the same shape, and every element at the same address.
template <class View, class Object>
bool same_place(View const& v, Object const& object) {
  if (v.extent(0) != object.rows() || v.extent(1) != object.cols())
    return false;
  for (index i = 0; i < object.rows(); ++i)
    for (index c = 0; c < object.cols(); ++c)
      if (&v(i, c) != &object.coeffRef(i, c))
        return false;
  return true;
}

template <class T>
using view_of = decltype(as_view(std::declval<T>()));

// What can be written through, and what cannot.
static_assert(std::is_same_v<view_of<column_major&>, view<float, 2>>);
static_assert(std::is_same_v<view_of<column_major const&>, view<float const, 2>>);
static_assert(std::is_same_v<view_of<Eigen::Map<row_major>&>, view<float, 2>>);
static_assert(std::is_same_v<view_of<Eigen::Map<row_major>>, view<float, 2>>);
static_assert(std::is_same_v<view_of<Eigen::Map<row_major const>&>, view<float const, 2>>);
static_assert(std::is_same_v<view_of<Eigen::Map<row_major const>>, view<float const, 2>>);
static_assert(std::is_same_v<view_of<decltype(std::declval<row_major&>().topRows(1))>, view<float, 2>>);
static_assert(std::is_same_v<view_of<decltype(std::declval<row_major const&>().topRows(1))>, view<float const, 2>>);
static_assert(std::is_same_v<view_of<decltype(std::declval<row_major&>().transpose())>, view<float, 2>>);
static_assert(std::is_same_v<view_of<decltype(std::declval<row_major const&>().transpose())>, view<float const, 2>>);
static_assert(std::is_same_v<view_of<Eigen::Ref<column_major>&>, view<float, 2>>);
static_assert(std::is_same_v<view_of<Eigen::Ref<column_major const>&>, view<float const, 2>>);
static_assert(std::is_same_v<view_of<Eigen::Matrix<Eigen::half, 4, 8>&>, view<Eigen::half, 2>>);
static_assert(std::is_same_v<view_of<Eigen::Matrix<Eigen::bfloat16, 4, 8> const&>, view<Eigen::bfloat16 const, 2>>);

TEMPLATE_TEST_CASE("Matrices of either order, and what refers to them, are viewed in place", "[contract]", column_major,
                   row_major) {
  TestType m(7, 9);
  TestType const& constant = m;
  CHECK(same_place(as_view(m), m));
  CHECK(same_place(as_view(constant), m));
  CHECK(as_view(m).data() == m.data());
  CHECK(as_view(m).strides() == (TestType::IsRowMajor ? index_array<2>{9, 1} : index_array<2>{1, 7}));

  auto block = m.block(2, 1, 3, 5);
  CHECK(same_place(as_view(block), block));
  CHECK(as_view(block).data() == &m(2, 1));
  CHECK(same_place(as_view(constant.block(2, 1, 3, 5)), block));
  auto row = m.row(3);
  auto column = m.col(4);
  CHECK(same_place(as_view(row), row));
  CHECK(same_place(as_view(column), column));
  auto part = m.row(3).segment(2, 4);
  CHECK(same_place(as_view(part), part));
  auto diagonal = m.diagonal();
  CHECK(same_place(as_view(diagonal), diagonal));

  auto transposed = m.transpose();
  CHECK(same_place(as_view(transposed), transposed));
  auto block_transposed = m.block(2, 1, 3, 5).transpose();
  CHECK(same_place(as_view(block_transposed), block_transposed));
  auto block_of_transposed = transposed.block(1, 2, 5, 3);
  CHECK(same_place(as_view(block_of_transposed), block_of_transposed));
  auto array = m.array();
  CHECK(as_view(array).data() == m.data());

  Eigen::Ref<TestType, 0, Eigen::OuterStride<>> ref = m;
  CHECK(as_view(ref).data() == m.data());
  CHECK(same_place(as_view(ref), m));
  Eigen::Ref<TestType const, 0, Eigen::OuterStride<>> const ref_of_block = m.block(2, 1, 3, 5);
  CHECK(same_place(as_view(ref_of_block), block));
  Eigen::Ref<TestType, 0, any_stride> ref_of_strides = m.block(2, 1, 3, 5);
  CHECK(same_place(as_view(ref_of_strides), block));
}

TEST_CASE("Maps of any strides are viewed in place", "[contract]") {
  float memory[200] = {};
  Eigen::Map<row_major, 0, any_stride> rows(memory, 3, 4, any_stride(17, 2));
  CHECK(as_view(rows).strides() == index_array<2>{17, 2});
  CHECK(same_place(as_view(rows), rows));
  Eigen::Map<column_major const, 0, any_stride> const columns(memory, 3, 4, any_stride(17, 2));
  CHECK(as_view(columns).strides() == index_array<2>{2, 17});
  Eigen::Map<row_major, 0, Eigen::OuterStride<>> padded(memory, 5, 6, Eigen::OuterStride<>(32));
  CHECK(as_view(padded).strides() == index_array<2>{32, 1});
  auto part = rows.block(1, 1, 2, 3).transpose();
  CHECK(as_view(part).strides() == index_array<2>{2, 17});
  CHECK(as_view(part).data() == memory + 17 + 2);
  Eigen::Map<row_major, 0, any_stride> repeated(memory, 3, 4, any_stride(0, 1));
  CHECK(as_view(repeated).strides() == index_array<2>{0, 1});
}

TEST_CASE("Arrays, vectors and fixed sizes are viewed in place", "[contract]") {
  Eigen::Array<double, Eigen::Dynamic, Eigen::Dynamic> array(4, 3);
  CHECK(same_place(as_view(array), array));
  auto turned = array.transpose();
  CHECK(same_place(as_view(turned), turned));
  Eigen::Matrix<float, 3, 5, Eigen::RowMajor> fixed;
  CHECK(same_place(as_view(fixed), fixed));
  auto corner = fixed.topLeftCorner<2, 2>();
  CHECK(same_place(as_view(corner), corner));
  Eigen::VectorXf column(6);
  Eigen::RowVectorXf row(6);
  CHECK(as_view(column).extents() == index_array<2>{6, 1});
  CHECK(as_view(row).extents() == index_array<2>{1, 6});
  CHECK(same_place(as_view(column), column));
  CHECK(same_place(as_view(row), row));
  column_major const empty(0, 4);
  CHECK(as_view(empty).extents() == index_array<2>{0, 4});
}

TEST_CASE("What is written through a view of a temporary lands in the matrix", "[contract]") {
  row_major m = row_major::Zero(5, 6);
  as_view(m.topRows(3))(2, 4) = 1;
  CHECK(m(2, 4) == 1);
  as_view(m.transpose())(5, 0) = 2;
  CHECK(m(0, 5) == 2);
  as_view(Eigen::Map<column_major>(m.data(), 6, 5))(1, 0) = 3;
  CHECK(m(0, 1) == 3);
  as_view(m.array())(4, 4) = 4;
  CHECK(m(4, 4) == 4);
}

TEST_CASE("Looking at an Eigen object touches no heap", "[resources]") {
  column_major m(64, 64);
  index total = 0;
  allocation_count const heap;
  total += as_view(m).extent(0);
  total += as_view(m.transpose()).extent(0);
  total += as_view(m.block(1, 1, 8, 8).transpose()).extent(0);
  total += as_view(m.row(3)).extent(1);
  CHECK(heap.count() == 0);
  CHECK(total == 64 + 64 + 8 + 64);
}

}  // namespace
}  // namespace heed::test
