# Compiler, linker and cache settings, the same for every target.

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1 -DNDEBUG")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM)
  add_link_options(-fuse-ld=mold)
endif()

# Programs find shared libraries in ../lib beside their folder, also those that another of them needs (RPATH, not
# RUNPATH): the layout of the archive that deploy/package.sh makes. In the build folder there is no such folder.
set(CMAKE_BUILD_RPATH "\$ORIGIN/../lib")
add_link_options(LINKER:--disable-new-dtags)

add_compile_options(-Wall -Wextra -Wno-unused-parameter)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # The annotations of absl::Mutex are checked here; g++, the release compiler, ignores them.
  # clang 19 names some templates of LibTorch otherwise than the compiler that built it.
  add_compile_options(-Wthread-safety -Werror=thread-safety -fclang-abi-compat=17)
  # A precompiled header from the compiler cache is older than the headers of a new checkout, which are the same.
  add_compile_options("SHELL:-Xclang -fno-pch-timestamp")
endif()

if(GPIPE_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1 -DNDEBUG")  # What takes time is to compile it.
  add_compile_options(-fsanitize=${GPIPE_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${GPIPE_SANITIZE})
endif()
if(GPIPE_BUILD_FUZZERS)
  # All code is compiled with coverage, which is what leads a fuzzer to new paths.
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
