#pragma once

// Catch2 in either of its two header layouts: 3.x, or the single header of 2.x.

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
