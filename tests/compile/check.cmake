# cmake -Dsettings=FILE -Dcase=FILE -Doutcome=fail|pass -P check.cmake
# Compiles one case without writing anything and judges the result.

include("${settings}")

file(STRINGS "${case}" flags_line LIMIT_COUNT 1 REGEX "^// flags: ")
string(REGEX REPLACE "^// flags: " "" case_flags "${flags_line}")
separate_arguments(case_flags UNIX_COMMAND "${case_flags}")

set(includes "")
foreach(directory IN LISTS include_dirs)
  list(APPEND includes -isystem "${directory}")
endforeach()

execute_process(
  COMMAND ${CMAKE_COMMAND} -E env LC_ALL=C "${compiler}" ${standard} ${arch_flags} ${case_flags} ${includes}
          -fsyntax-only "${case}"
  RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)

if(outcome STREQUAL "pass")
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "must compile, but does not:\n${output}")
  endif()
  return()
endif()

file(READ "${case}" text LIMIT 2000)
if(NOT text MATCHES "^// expect: ([^\n]+)\n")
  message(FATAL_ERROR "the first line must be '// expect: <regex>'")
endif()
set(expected "${CMAKE_MATCH_1}")
if(status EQUAL 0)
  message(FATAL_ERROR "must not compile, but does")
endif()
if(NOT output MATCHES "${expected}")
  message(FATAL_ERROR "does not compile, but the message lacks '${expected}':\n${output}")
endif()
