# heed_add_dispatch(<target> TABLE <type> HEADER <header> SOURCES <file>...
#                   [VARIANTS <variant>...] [OPTIONS <compile option>...] [LIBRARIES <library>...])
#
# Builds the sources once per instruction set, links all builds into <target>, and generates the choice among them.
# What is chosen is a table of function pointers, an aggregate of the user's declared in <header>:
#
#   // kernels.hpp                                   Only plain numbers cross the border: types of heed and Eigen may
#   struct kernels {                                 differ between instruction sets.
#     void (*attend)(float const* q, float const* k, float const* v, float* out, int len, int dim);
#   };
#
#   // kernels.cpp: compiled for each instruction set
#   #include "kernels_dispatch.hpp"                 // generated; includes kernels.hpp
#   #include <heed/attention/attention.hpp>
#   namespace { void attend(float const* q, …) { heed::attention(…); } }
#   HEED_DISPATCH(kernels){attend};                 // this build's table; outside every namespace
#
#   // main.cpp: compiled as ever, for the oldest machine that the program shall run on
#   #include "kernels_dispatch.hpp"
#   select_kernels().attend(…);                     // the best that this machine has
#   select_kernels("baseline").attend(…);           // a given one; std::invalid_argument where it cannot run
#
#   # CMakeLists.txt
#   heed_add_dispatch(app TABLE kernels HEADER kernels.hpp SOURCES kernels.cpp)
#
# - TABLE may be qualified: app::kernels is chosen by app::select_kernels. Call once per table.
# - VARIANTS: baseline (always built; x86-64, that is SSE2), avx2 (with FMA and F16C), avx512 (F, CD, BW, DQ, VL too); all
#   by default. Elsewhere than on x86-64 the baseline is the only one, with the compiler's own flags.
# - The sources see <target>'s include directories and definitions, but not its options, which may hold -march. OPTIONS
#   and LIBRARIES are for them alone; heed::heed is always among the libraries.
# - The processor is asked once, when select_… is first called; there is no environment variable. Thread-safe.
# - Every build is linked into one object whose only visible symbol is its table. Otherwise the linker, which keeps one of
#   several inline functions of the same name, could hand an AVX-512 copy of std::vector's to a machine without it; heed's
#   inline namespace cannot keep others' functions apart. Needs `ld` of GNU binutils (or as able a one) and `objcopy`, so ELF.
# - Globals with constructors in such a source run at start-up on every machine: have none.

function(heed_add_dispatch target)
  cmake_parse_arguments(PARSE_ARGV 1 given "" "TABLE;HEADER" "SOURCES;VARIANTS;OPTIONS;LIBRARIES")
  foreach(name IN ITEMS TABLE HEADER SOURCES)
    if(NOT given_${name})
      message(FATAL_ERROR "heed_add_dispatch: ${name} is missing")
    endif()
  endforeach()
  if(given_UNPARSED_ARGUMENTS OR NOT given_TABLE MATCHES "^[A-Za-z_][A-Za-z_0-9]*(::[A-Za-z_][A-Za-z_0-9]*)*$")
    message(FATAL_ERROR "heed_add_dispatch: what is '${given_UNPARSED_ARGUMENTS}' beside the table '${given_TABLE}'?")
  endif()
  heed_dispatch_tools(linker objcopy)
  heed_dispatch_variants(variants ${given_VARIANTS})

  string(REGEX REPLACE "^(.*)::([^:]*)$" "\\2" table "${given_TABLE}")
  string(REPLACE "::" "_" id "${given_TABLE}")
  set(directory "${CMAKE_CURRENT_BINARY_DIR}/heed_dispatch/${target}_${id}")
  heed_dispatch_glue("${directory}" "${table}" "${given_TABLE}" "${given_HEADER}" "${id}" ${variants})
  target_sources(${target} PRIVATE "${directory}/${table}_dispatch.cpp")
  target_include_directories(${target} PRIVATE "${directory}" "${CMAKE_CURRENT_SOURCE_DIR}")
  # The generated files need std::string_view; clang 14 starts at C++14.
  target_compile_features(${target} PRIVATE cxx_std_17)

  foreach(variant IN LISTS variants)
    set(objects ${target}_${id}_${variant})
    add_library(${objects} OBJECT ${given_SOURCES})
    # objcopy leaves the "unique" symbols of g++ as visible as they are.
    target_compile_options(${objects} PRIVATE ${given_OPTIONS} ${heed_flags_${variant}} -fno-lto
                           $<$<CXX_COMPILER_ID:GNU>:-fno-gnu-unique>)
    target_compile_definitions(${objects} PRIVATE "HEED_DISPATCH_NAME=heed_dispatch_${id}_${variant}"
                               $<TARGET_PROPERTY:${target},COMPILE_DEFINITIONS>)
    target_include_directories(${objects} PRIVATE $<TARGET_PROPERTY:${target},INCLUDE_DIRECTORIES>)
    target_link_libraries(${objects} PRIVATE heed::heed ${given_LIBRARIES})
    # The program may be a position-independent executable or a shared library.
    set_target_properties(${objects} PROPERTIES POSITION_INDEPENDENT_CODE ON)

    set(linked "${directory}/${variant}${CMAKE_CXX_OUTPUT_EXTENSION}")
    add_custom_command(
      OUTPUT "${linked}"
      COMMAND "${linker}" -r --force-group-allocation -o "${linked}.r" $<TARGET_OBJECTS:${objects}>
      COMMAND "${objcopy}" --keep-global-symbol=heed_dispatch_${id}_${variant} "${linked}.r" "${linked}"
      DEPENDS ${objects} $<TARGET_OBJECTS:${objects}>
      COMMAND_EXPAND_LISTS VERBATIM COMMENT "Dispatch: ${given_TABLE} for ${variant}")
    set_source_files_properties("${linked}" PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
    target_sources(${target} PRIVATE "${linked}")
  endforeach()
endfunction()

# Sets the linker and objcopy, or stops. CMake's own linker may be an lld that cannot take groups apart.
function(heed_dispatch_tools linker objcopy)
  if(NOT HEED_DISPATCH_LINKER)
    set(candidates "${CMAKE_LINKER}")
    if(NOT CMAKE_CROSSCOMPILING)
      list(APPEND candidates ld.bfd ld)
    endif()
    foreach(candidate IN LISTS candidates)
      execute_process(COMMAND "${candidate}" --help OUTPUT_VARIABLE help ERROR_QUIET RESULT_VARIABLE status)
      if(status EQUAL 0 AND help MATCHES "--force-group-allocation")
        set(HEED_DISPATCH_LINKER "${candidate}" CACHE STRING "Linker that heed_add_dispatch uses")
        break()
      endif()
    endforeach()
  endif()
  find_program(HEED_DISPATCH_OBJCOPY NAMES "${CMAKE_OBJCOPY}" objcopy llvm-objcopy)
  mark_as_advanced(HEED_DISPATCH_LINKER HEED_DISPATCH_OBJCOPY)
  if(NOT HEED_DISPATCH_LINKER OR NOT HEED_DISPATCH_OBJCOPY OR APPLE OR WIN32)
    message(FATAL_ERROR "heed_add_dispatch needs ELF, an ld that knows --force-group-allocation, and objcopy")
  endif()
  set(${linker} "${HEED_DISPATCH_LINKER}" PARENT_SCOPE)
  set(${objcopy} "${HEED_DISPATCH_OBJCOPY}" PARENT_SCOPE)
endfunction()

# Sets the variants to build, the best last, and heed_flags_… and heed_test_… of each: its flags, and what is asked of
# the processor, in C++.
function(heed_dispatch_variants result)
  set(known baseline)
  set(heed_flags_baseline "" PARENT_SCOPE)
  set(heed_test_baseline "true" PARENT_SCOPE)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    list(APPEND known avx2 avx512)
    # -march first, so that one in CMAKE_CXX_FLAGS does not count.
    set(heed_flags_baseline -march=x86-64 PARENT_SCOPE)
    set(heed_flags_avx2 -march=x86-64 -mavx2 -mfma -mf16c PARENT_SCOPE)
    set(heed_flags_avx512 -march=x86-64 -mavx2 -mfma -mf16c -mavx512f -mavx512cd -mavx512bw -mavx512dq -mavx512vl
        PARENT_SCOPE)
    # clang 14 cannot ask for F16C by name; no processor has AVX2 and FMA without it.
    set(avx2 "__builtin_cpu_supports(\"avx2\") && __builtin_cpu_supports(\"fma\")")
    set(avx512 "${avx2}")
    foreach(part IN ITEMS f cd bw dq vl)
      string(APPEND avx512 " && __builtin_cpu_supports(\"avx512${part}\")")
    endforeach()
    set(heed_test_avx2 "${avx2}" PARENT_SCOPE)
    set(heed_test_avx512 "${avx512}" PARENT_SCOPE)
  endif()
  set(chosen baseline)
  foreach(variant IN LISTS ARGN)
    if(NOT variant MATCHES "^(baseline|avx2|avx512)$")
      message(FATAL_ERROR "heed_add_dispatch: the variants are baseline, avx2 and avx512, not '${variant}'")
    endif()
  endforeach()
  foreach(variant IN LISTS known)
    if(NOT ARGN OR variant IN_LIST ARGN)
      list(APPEND chosen ${variant})
    endif()
  endforeach()
  list(REMOVE_DUPLICATES chosen)
  set(${result} ${chosen} PARENT_SCOPE)
endfunction()

# Writes <table>_dispatch.hpp and .cpp.
function(heed_dispatch_glue directory table type header id)
  set(open "")
  set(close "")
  if(type MATCHES "^(.*)::[^:]*$")
    set(open "namespace ${CMAKE_MATCH_1} {\n")
    set(close "\n}")
  endif()
  set(declarations "")
  set(rows "")
  set(names "")
  foreach(variant IN LISTS ARGN)
    string(APPEND declarations "extern \"C\" ${type} const heed_dispatch_${id}_${variant};\n")
    string(PREPEND rows "      {\"${variant}\", ${heed_test_${variant}}, &heed_dispatch_${id}_${variant}},\n")
    string(APPEND names " ${variant}")
  endforeach()
  list(LENGTH ARGN count)
  configure_file("${CMAKE_CURRENT_FUNCTION_LIST_DIR}/dispatch.hpp.in" "${directory}/${table}_dispatch.hpp" @ONLY)
  configure_file("${CMAKE_CURRENT_FUNCTION_LIST_DIR}/dispatch.cpp.in" "${directory}/${table}_dispatch.cpp" @ONLY)
endfunction()
