#include <heed/core/transpose.hpp>

#include "support/catch.hpp"

#include <array>
#include <bit>
#include <limits>

namespace heed::test {
namespace {

template <class T>
using numbers = std::array<T, static_cast<std::size_t>(lanes<T>)>;

/// The bits of a batch's numbers, so that NaN and −0 compare.
template <class T>
auto bits_of(batch<T> const& x) {
  using word = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  numbers<T> n;
  store(n.data(), x);
  std::array<word, static_cast<std::size_t>(lanes<T>)> bits;
  for (std::size_t i = 0; i < n.size(); ++i)
    bits[i] = std::bit_cast<word>(n[i]);
  return bits;
}

TEMPLATE_TEST_CASE("A square of lanes is transposed, bit for bit, from registers and from memory", "[contract]", float,
                   double) {
  using T = TestType;
  constexpr auto w = static_cast<std::size_t>(lanes<T>);
  batch<T> square[w], columns[w];
  numbers<T> from[w], turned[w];
  for (std::size_t i = 0; i < w; ++i)
    for (std::size_t j = 0; j < w; ++j)
      from[i][j] = i != j ? static_cast<T>(100 * i + j) : i % 2 == 0 ? std::numeric_limits<T>::quiet_NaN() : T(-0.0);
  for (std::size_t i = 0; i < w; ++i) {
    square[i] = load(from[i].data());
    for (std::size_t j = 0; j < w; ++j)
      turned[j][i] = from[i][j];
  }
  transpose<T>(square);
  load_transposed<T>([&](std::ptrdiff_t i) { return from[static_cast<std::size_t>(i)].data(); }, columns);
  for (std::size_t i = 0; i < w; ++i) {
    auto const wanted = bits_of<T>(load(turned[i].data()));
    REQUIRE(bits_of<T>(square[i]) == wanted);
    REQUIRE(bits_of<T>(columns[i]) == wanted);
  }
}

}  // namespace
}  // namespace heed::test
