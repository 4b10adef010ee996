# cmake -Dsettings=FILE -Dcase=FILE -Doutcome=fail|pass|run|cost [-Dprogram=FILE] -P check.cmake
# Compiles one case, keeping nothing but the program of a `run`, and judges the result.

# The limits of a cost case: processor time of the compiler, as so many times what it takes for one product of Eigen's,
# since the same work takes twice as long on a busy machine; and its address space, which bounds its memory. (Headers alone
# are no measure: beside them a call takes 5 times on Ice Lake, 7.5 times on Emerald Rapids; beside a product 3.6 to 4.1.)
# On such a machine two compilations in turn still scatter by a fifth: one try of so many has to hold.
set(times_limit 5)
set(most_tries 5)
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
# Hundredths of a second of processor time that a source takes, into `result`.
function(compile_time source result)
  execute_process(
    COMMAND sh -c "ulimit -v ${kib_limit}; \"$@\" && times" sh ${command} -O2 -c "${source}" -o /dev/null
    RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  # `times` ends with the user and system time of the children: 0m3.120000s 0m0.180000s
  if(NOT status EQUAL 0 OR NOT output MATCHES "([0-9]+)m([0-9]+)[.]([0-9][0-9])[0-9]*s [0-9]+m[.0-9]+s\n$")
    message(FATAL_ERROR "does not compile in ${kib_limit} KiB:\n${output}")
  endif()
  math(EXPR hundredths "6000 * ${CMAKE_MATCH_1} + 100 * ${CMAKE_MATCH_2} + 1${CMAKE_MATCH_3} - 100")
  set(${result} ${hundredths} PARENT_SCOPE)
endfunction()

if(outcome STREQUAL "cost")
  set(found "")
  foreach(try RANGE 1 ${most_tries})
    compile_time("${CMAKE_CURRENT_LIST_DIR}/eigen_product.cpp" product)
    compile_time("${case}" hundredths)
    list(APPEND found "${hundredths} against ${product}")
    math(EXPR limit "${times_limit} * ${product}")
    if(NOT hundredths GREATER limit)
      message(STATUS "hundredths of a second, a product of Eigen's: ${found}; in less than ${kib_limit} KiB")
      return()
    endif()
  endforeach()
  message(FATAL_ERROR "compiles in more than ${times_limit} times the time of a product of Eigen's, in hundredths of a "
                      "second: ${found}")
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
