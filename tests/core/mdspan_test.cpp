#include <heed/core/mdspan.hpp>

#if defined(HEED_HAS_STD_MDSPAN)
#include <heed/attention/attention.hpp>
#endif

#include "support/catch.hpp"
#include "support/random.hpp"

namespace heed::test {
namespace {

/// What the adapters ask of an mdspan, for compilers that have none.
struct span_alike {
  using element_type = float;
  float* memory;
  static constexpr std::size_t rank() { return 3; }
  constexpr short extent(std::size_t r) const { return static_cast<short>(4 - r); }
  constexpr unsigned stride(std::size_t r) const { return r == 0 ? 1 : r == 1 ? 50 : 7; }
  float* data_handle() const { return memory; }
};

TEST_CASE("What an mdspan says of itself is what its view says", "[contract]") {
  float memory[120] = {};
  auto const v = detail::view_of_mdspan(span_alike{memory});
  static_assert(std::is_same_v<decltype(v), view<float, 3> const>);
  CHECK(v.extents() == index_array<3>{4, 3, 2});
  CHECK(v.strides() == index_array<3>{1, 50, 7});
  CHECK(&v(3, 2, 1) == memory + 110);
}

#if defined(HEED_HAS_STD_MDSPAN)

template <class T>
using view_of = decltype(as_view(std::declval<T const&>()));

static_assert(std::is_same_v<view_of<std::mdspan<float, std::dextents<int, 3>>>, view<float, 3>>);
static_assert(std::is_same_v<view_of<std::mdspan<float const, std::extents<int, 4, 8>>>, view<float const, 2>>);

TEST_CASE("An mdspan of any strided layout is viewed in place", "[contract]") {
  float memory[256] = {};
  std::mdspan const rows(memory, 2, 3, 4);
  CHECK(as_view(rows).data() == memory);
  CHECK(as_view(rows).extents() == index_array<3>{2, 3, 4});
  CHECK(as_view(rows).strides() == index_array<3>{12, 4, 1});
  std::mdspan<float, std::extents<std::size_t, 2, std::dynamic_extent>, std::layout_left> const columns(memory, 5);
  CHECK(as_view(columns).extents() == index_array<2>{2, 5});
  CHECK(as_view(columns).strides() == index_array<2>{1, 2});
  using extents = std::dextents<short, 2>;
  std::layout_stride::mapping<extents> const mapping(extents(3, 4), std::array<int, 2>{50, 3});
  std::mdspan<float const, extents, std::layout_stride> const strided(memory, mapping);
  CHECK(as_view(strided).strides() == index_array<2>{50, 3});
  CHECK(&as_view(strided)(2, 3) == memory + 109);
  as_view(rows)(1, 2, 3) = 6;
  CHECK(memory[23] == 6);
}

TEST_CASE("attention takes mdspans", "[contract]") {
  generator random(11);
  INFO(random);
  auto q = normal_tensor<float, 3>({2, 5, 8}, random), k = normal_tensor<float, 3>({2, 7, 8}, random);
  auto v = normal_tensor<float, 3>({2, 7, 6}, random);
  tensor<float, 3> out({2, 5, 6}), expected({2, 5, 6});
  attention(q, k, v, expected, causal{});
  std::mdspan const q_span(std::as_const(q).data(), 2, 5, 8);
  std::mdspan const k_span(k.data(), 2, 7, 8);
  std::mdspan<float, std::extents<int, 2, 7, 6>> const v_span(v.data());
  attention(q_span, k_span, v_span, std::mdspan(out.data(), 2, 5, 6), causal{});
  for (index i = 0; i < out.size(); ++i)
    CHECK(out.data()[i] == expected.data()[i]);
}

#else

TEST_CASE("std::mdspan", "[contract]") { WARN("skipped: the standard library has no <mdspan>"); }

#endif

#if defined(HEED_HAS_KOKKOS_MDSPAN)

TEST_CASE("A Kokkos mdspan is viewed in place", "[contract]") {
  float memory[24] = {};
  Kokkos::mdspan<float, Kokkos::dextents<int, 3>> const rows(memory, 2, 3, 4);
  CHECK(as_view(rows).data() == memory);
  CHECK(as_view(rows).strides() == index_array<3>{12, 4, 1});
}

#endif

}  // namespace
}  // namespace heed::test
