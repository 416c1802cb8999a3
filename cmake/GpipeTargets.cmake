# The only ways targets are made here.
#
# Most of what a unit takes to compile is the headers of libraries. So units share precompiled ones, one header for each
# kind: with or without LibTorch, a test or not. (g++ takes one only with the options that it was made with.)

# gpipe_library(NAME SOURCES a.cc ... DEPS lib ... [PRECOMPILE header | HEADERS_OF target]): a static library; headers
# are included from the repository root. It precompiles a header, which other targets share, or shares that of
# HEADERS_OF, by default that of gpipe_common.
function(gpipe_library name)
  cmake_parse_arguments(ARG "" "PRECOMPILE;HEADERS_OF" "SOURCES;DEPS" ${ARGN})
  if(ARG_SOURCES)
    add_library(${name} STATIC ${ARG_SOURCES})
    target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
    target_link_libraries(${name} PUBLIC ${ARG_DEPS})
    if(NOT ARG_HEADERS_OF AND TARGET gpipe_common)
      set(ARG_HEADERS_OF gpipe_common)
    endif()
    if(ARG_PRECOMPILE)
      target_precompile_headers(${name} PRIVATE ${ARG_PRECOMPILE})
    elseif(ARG_HEADERS_OF)
      target_precompile_headers(${name} REUSE_FROM ${ARG_HEADERS_OF})
    endif()
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE ${PROJECT_SOURCE_DIR})
    target_link_libraries(${name} INTERFACE ${ARG_DEPS})
  endif()
endfunction()

# gpipe_binary(NAME SOURCES ... DEPS ...): a program in build/bin.
function(gpipe_binary name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
endfunction()

# gpipe_test(NAME SOURCES ... DEPS ... [HEADERS_OF target] [TIMEOUT seconds] [LABELS ...]): a GoogleTest binary, one
# ctest entry. Tests find the programs under test and the repository through tests/unit/paths.h. They share the header
# tests/unit/test_pch.h, and are hardly optimised: what takes time in them is to compile them.
function(gpipe_test name)
  cmake_parse_arguments(ARG "" "HEADERS_OF;TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT ARG_HEADERS_OF)
    set(ARG_HEADERS_OF gpipe_test_headers)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${GPIPE_TEST_OPTIONS})
  target_precompile_headers(${name} REUSE_FROM ${ARG_HEADERS_OF})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} gpipe_test_paths GTest::gmock GTest::gtest_main)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

# gpipe_torch_test(NAME ...): a gpipe_test whose units include LibTorch (tests/unit/torch_test_pch.h).
function(gpipe_torch_test name)
  gpipe_test(${name} ${ARGN} HEADERS_OF gpipe_torch_test_headers)
endfunction()

# gpipe_fuzzer(NAME SOURCES ... DEPS ...): a libFuzzer program in build/fuzz.
function(gpipe_fuzzer name)
  if(NOT GPIPE_BUILD_FUZZERS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/fuzz)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
endfunction()

# gpipe_torch_library(NAME SOURCES ... DEPS ...): a library whose units include LibTorch (worker/torch_pch.h).
function(gpipe_torch_library name)
  gpipe_library(${name} ${ARGN} HEADERS_OF gpipe_worker_torch)
  target_link_libraries(${name} PUBLIC gpipe_worker_torch)
endfunction()
