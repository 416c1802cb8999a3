# Read by CMake behind project() of Debian's gRPC (scripts/instrumented_libraries.sh): what most of its units include,
# which takes longer than the rest of them.
set(_headers)
foreach(_header grpc/support/port_platform.h absl/status/status.h absl/status/statusor.h absl/strings/str_cat.h
    absl/strings/str_format.h absl/types/variant.h functional map memory string vector)
  list(APPEND _headers "$<$<COMPILE_LANGUAGE:CXX>:<${_header}$<ANGLE-R>>")
endforeach()
cmake_language(DEFER CALL target_precompile_headers grpc PRIVATE ${_headers})
