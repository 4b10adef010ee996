#pragma once

#include <heed/config.hpp>

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace heed {

/// Bad input, found at the boundary of a call before anything was written. The message names the function, the
/// argument, what was expected and what came: `attention: k.extent(dim) must equal q's 64, got 32`.
class argument_error : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

namespace detail {

inline void append(std::string& text, std::string_view part) { text += part; }

template <class Number>
  requires std::is_arithmetic_v<Number>
void append(std::string& text, Number value) {
  if constexpr (std::is_integral_v<Number>) {
    text += std::to_string(value);
  } else {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%g", static_cast<double>(value));
    text += buffer;
  }
}

/// Refuses bad input: the parts, text and numbers, are strung together as the message.
/// @throws argument_error, or HEED_FAIL where exceptions are off
template <class... Parts>
[[noreturn]] HEED_NOINLINE void fail(Parts const&... parts) {
  std::string text;
  (append(text, parts), ...);
#if defined(__cpp_exceptions)
  throw argument_error(text);
#else
  HEED_FAIL(text.c_str());
  std::abort();
#endif
}

/// `fail(parts...)` unless `condition` holds.
template <class... Parts>
void expect(bool condition, Parts const&... parts) {
  if (!condition) [[unlikely]]
    fail(parts...);
}

}  // namespace detail
}  // namespace heed
