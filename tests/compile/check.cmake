# cmake -Dsettings=FILE -Dcase=FILE -Doutcome=fail|pass|run|cost [-Dprogram=FILE] -P check.cmake
# Compiles one case, keeping nothing but the program of a `run`, and judges the result.

# The limits of a cost case: processor time of the compiler, and its address space, which bounds its memory.
set(seconds_limit 10)
set(kib_limit 1048576)

include("${settings}")

file(STRINGS "${case}" flags_line LIMIT_COUNT 1 REGEX "^// flags: ")
string(REGEX REPLACE "^// flags: " "" case_flags "${flags_line}")
separate_arguments(case_flags UNIX_COMMAND "${case_flags}")

# Naming a directory that the compiler knows by itself would change the order of its headers.
list(REMOVE_ITEM include_dirs ${implicit_dirs})
set(includes "")
foreach(directory IN LISTS include_dirs)
  list(APPEND includes -isystem "${directory}")
endforeach()

set(command "${compiler}" ${standard} ${arch_flags} ${case_flags} ${includes})
set(ENV{LC_ALL} C)
if(outcome STREQUAL "cost")
  # The least of three tries counts: on a busy machine the same work takes more processor time.
  foreach(try RANGE 1 3)
    execute_process(
      COMMAND sh -c "ulimit -v ${kib_limit}; ulimit -t ${seconds_limit}; \"$@\" && times" sh ${command} -O2 -c "${case}" -o /dev/null
      RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
    # `times` ends with the user and system time of the children: 0m3.120000s 0m0.180000s
    if(status EQUAL 0 AND output MATCHES "([0-9]+)m([0-9]+)[.0-9]*s [0-9]+m[.0-9]+s\n$")
      math(EXPR seconds "60 * ${CMAKE_MATCH_1} + ${CMAKE_MATCH_2}")
      if(seconds LESS seconds_limit)
        message(STATUS "${seconds} s and a fraction of ${seconds_limit} s, in less than ${kib_limit} KiB")
        return()
      endif()
    endif()
  endforeach()
  message(FATAL_ERROR "does not compile in ${seconds_limit} s and ${kib_limit} KiB:\n${output}")
endif()

if(outcome STREQUAL "run")
  execute_process(COMMAND ${command} "${case}" -o "${program}" RESULT_VARIABLE status OUTPUT_VARIABLE output
                  ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "must compile, but does not:\n${output}")
  endif()
  execute_process(COMMAND "${program}" RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "must end with 0, but ends with ${status}:\n${output}")
  endif()
  return()
endif()

execute_process(COMMAND ${command} -fsyntax-only "${case}"
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
