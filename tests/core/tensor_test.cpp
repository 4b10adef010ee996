#include <heed/core/tensor.hpp>

#include "support/catch.hpp"
#include "support/counting_allocator.hpp"

#include <cstring>
#include <utility>

namespace heed::test {
namespace {

template <class T>
bool aligned(T const* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 64 == 0;
}

TEMPLATE_TEST_CASE("A tensor is row-major, aligned to 64 bytes and zero at birth", "[contract]", float, double,
                   Eigen::half, Eigen::bfloat16, bool, std::int32_t) {
  for (index n = 1; n < 40; ++n) {
    {
      tensor<TestType, 3> dirt({2, n, 3});  // so that fresh memory is not zero by chance
      std::memset(static_cast<void*>(dirt.data()), 0x7e, static_cast<std::size_t>(dirt.size()) * sizeof(TestType));
    }
    tensor<TestType, 3> const t({2, n, 3});
    REQUIRE(aligned(t.data()));
    REQUIRE(t.size() == 6 * n);
    REQUIRE(t.strides() == index_array<3>{3 * n, 3, 1});
    index zeros = 0;
    for (index i = 0; i < t.size(); ++i)
      zeros += t.data()[i] == TestType(0);
    REQUIRE(zeros == t.size());
  }
}

TEST_CASE("A copy of a tensor is deep", "[contract]") {
  tensor<float, 2> a({2, 3});
  a(1, 2) = 7;
  tensor<float, 2> b = a;
  CHECK(b.data() != a.data());
  CHECK(aligned(b.data()));
  CHECK(b.extents() == a.extents());
  CHECK(b(1, 2) == 7);
  b(1, 2) = 8;
  CHECK(a(1, 2) == 7);

  tensor<float, 2> c({5, 5});
  c = a;
  CHECK(c.extents() == a.extents());
  CHECK(c(1, 2) == 7);
  auto const& self = c;
  c = self;
  CHECK(c(1, 2) == 7);
}

TEST_CASE("A large tensor begins on a large page", "[contract]") {
  auto const offset = [](tensor<float, 2> const& t) {
    return reinterpret_cast<std::uintptr_t>(t.data()) % detail::large_page;
  };
  tensor<float, 2> a({1025, 1024});
  CHECK(offset(a) == 0);
  a(1024, 1023) = 7;
  tensor<float, 2> b = a;
  CHECK(offset(b) == 0);
  CHECK(b(1024, 1023) == 7);
  b = tensor<float, 2>({2, 3});  // what is released is small, or large, as it was taken
  a = b;
  CHECK(a.extents() == b.extents());
}

TEST_CASE("A moved tensor keeps its memory and leaves nothing behind", "[contract][resources]") {
  tensor<float, 2> a({2, 3});
  a(0, 1) = 5;
  float const* const memory = a.data();
  allocation_count const heap;
  tensor<float, 2> b = std::move(a);
  CHECK(b.data() == memory);
  CHECK(b(0, 1) == 5);
  CHECK(a.data() == nullptr);  // NOLINT: the state after a move is what is tested
  CHECK(a.size() == 0);
  a = std::move(b);
  CHECK(a.data() == memory);
  CHECK(heap.count() == 0);
}

TEST_CASE("Tensors of size 0 have extents and no memory", "[edges][resources]") {
  allocation_count const heap;
  tensor<float, 3> const t({2, 0, 4});
  tensor<float, 3> const copy = t;
  tensor<float, 3> const nothing, copy_of_nothing = nothing;
  CHECK(heap.count() == 0);
  CHECK(t.size() == 0);
  CHECK(t.extent(2) == 4);
  CHECK(copy.extents() == t.extents());
  CHECK(nothing.size() == 0);
  CHECK(copy_of_nothing.size() == 0);
}

TEST_CASE("Negative extents are refused", "[errors]") {
  index volatile const minus_one = -1;  // g++ warns of what would be allocated if nothing were refused
  CHECK_THROWS_WITH((tensor<float, 2>({3, minus_one})), "tensor: extents must not be negative, got -1");
}

TEST_CASE("A tensor gives views and matrices of itself, const where it is const", "[contract]") {
  tensor<float, 3> t({2, 3, 4});
  tensor<float, 3> const& constant = t;
  static_assert(std::is_same_v<decltype(as_view(t)), view<float, 3>>);
  static_assert(std::is_same_v<decltype(as_view(constant)), view<float const, 3>>);
  static_assert(std::is_same_v<decltype(constant(0, 0, 0)), float const&>);
  static_assert(std::is_same_v<decltype(constant.matrix(0).data()), float const*>);
  as_view(t)(1, 2, 3) = 9;
  CHECK(constant(1, 2, 3) == 9);
  CHECK(constant.view().data() == t.data());
  t.matrix(1)(2, 0) = 4;
  CHECK(constant.matrix(1)(2, 0) == 4);
  CHECK(constant.matrix(1)(2, 3) == 9);
  CHECK(constant.stride(0) == 12);
}

}  // namespace
}  // namespace heed::test
