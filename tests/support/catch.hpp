#pragma once

// Catch2 in either of its two header layouts: 3.x, or the single header of 2.x. In namespace heed::test, `Approx` and
// `ContainsSubstring` mean the same in both.

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
namespace heed::test {
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
}  // namespace heed::test
#else
#include <catch2/catch.hpp>
namespace heed::test {
using Catch::Detail::Approx;
inline auto ContainsSubstring(std::string const& text) { return Catch::Matchers::Contains(text); }
}  // namespace heed::test
#endif
