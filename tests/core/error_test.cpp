#include <heed/core/error.hpp>

#include "support/catch.hpp"
#include "support/counting_allocator.hpp"

#include <limits>

namespace heed::test {
namespace {

static_assert(std::is_base_of_v<std::invalid_argument, argument_error>);

TEST_CASE("fail strings text and numbers together", "[errors]") {
  CHECK_THROWS_WITH(detail::fail("attention: k.extent(dim) must equal q's ", 64, ", got ", std::ptrdiff_t{32}),
                    "attention: k.extent(dim) must equal q's 64, got 32");
  CHECK_THROWS_WITH(detail::fail(std::string("a"), std::string_view("b"), 2, true), "ab21");
  CHECK_THROWS_WITH(detail::fail(-7, " ", std::size_t{18446744073709551615U}), "-7 18446744073709551615");
  CHECK_THROWS_WITH(detail::fail("base ", 0.5F, " ", 1e-30, " ", std::numeric_limits<double>::infinity()),
                    "base 0.5 1e-30 inf");
  CHECK_THROWS_AS(detail::fail("x"), argument_error);
  CHECK_THROWS_AS(detail::fail("x"), std::invalid_argument);
}

TEST_CASE("expect throws only where its condition fails, and costs no heap where it holds", "[errors][resources]") {
  allocation_count const heap;
  for (int i = 0; i < 100; ++i)
    detail::expect(i < 100, "a text longer than any small string buffer: ", i);
  CHECK(heap.count() == 0);
  CHECK_THROWS_WITH(detail::expect(false, "n must be 1, got ", 2), "n must be 1, got 2");
}

}  // namespace
}  // namespace heed::test
