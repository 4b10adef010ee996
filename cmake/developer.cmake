# What the tests, benches and examples of heed are built with. None of it reaches a user of heed::heed.

set(HEED_ARCH_FLAGS "" CACHE STRING "Instruction set of tests, benches and examples, such as -march=native")
set(HEED_SANITIZE "" CACHE STRING "Sanitizers, such as address,undefined")
set(HEED_TEST_SCOPE full CACHE STRING "full: every test; small: without the wide sweeps")
set_property(CACHE HEED_TEST_SCOPE PROPERTY STRINGS full small)
option(HEED_WERROR "Treat warnings as errors" OFF)
option(HEED_CCACHE "Use ccache where it is installed" ON)
set(HEED_CONFORMANCE_DIR "${PROJECT_SOURCE_DIR}/../shared/conformance" CACHE PATH "Conformance cases")
set(HEED_MODEL_DIR "${PROJECT_SOURCE_DIR}/../shared/models" CACHE PATH "Model and tokenizer of the example programs")
set(HEED_TEXT_DIR "${PROJECT_SOURCE_DIR}/../shared/text" CACHE PATH "Texts of the example programs")

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 12)
  message(FATAL_ERROR "heed needs g++ 12 or later, found ${CMAKE_CXX_COMPILER_VERSION}")
elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14)
  message(FATAL_ERROR "heed needs clang 14 or later, found ${CMAKE_CXX_COMPILER_VERSION}")
endif()
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_SCAN_FOR_MODULES OFF)  # there are none, and newer CMake would preprocess every file once more to see it
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(HEED_CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(HEED_CCACHE_PROGRAM ccache)
  mark_as_advanced(HEED_CCACHE_PROGRAM)
  if(HEED_CCACHE_PROGRAM)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${HEED_CCACHE_PROGRAM}")
  endif()
endif()

find_package(Threads REQUIRED)

# Warnings, instruction set, sanitizers: link this to every target that is not heed itself.
add_library(heed_warnings INTERFACE)
target_compile_options(heed_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow $<$<BOOL:${HEED_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 takes the undefined vector `__Y` of its own AVX-512 headers for an uninitialised variable.
  target_compile_options(heed_warnings INTERFACE -Wno-uninitialized -Wno-maybe-uninitialized)
endif()

add_library(heed_sanitizers INTERFACE)
if(HEED_SANITIZE)
  set(sanitize_flags -fsanitize=${HEED_SANITIZE} -fno-omit-frame-pointer)
  target_compile_options(heed_sanitizers INTERFACE ${sanitize_flags} -fno-sanitize-recover=all)
  target_link_options(heed_sanitizers INTERFACE ${sanitize_flags})
endif()

add_library(heed_developer INTERFACE)
separate_arguments(heed_arch_flags UNIX_COMMAND "${HEED_ARCH_FLAGS}")
target_compile_options(heed_developer INTERFACE ${heed_arch_flags})
target_compile_definitions(heed_developer INTERFACE
  HEED_CONFORMANCE_DIR="${HEED_CONFORMANCE_DIR}" HEED_MODEL_DIR="${HEED_MODEL_DIR}" HEED_TEXT_DIR="${HEED_TEXT_DIR}")
target_link_libraries(heed_developer INTERFACE heed::heed heed_warnings heed_sanitizers Threads::Threads)
