#!/usr/bin/env bash
# Builds what does not link LibTorch with clang, whose thread-safety analysis is an error, and a sanitizer, and runs its
# tests: sanitize.sh [address,undefined | thread] [build], where `build` leaves it at that.
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizer=${1:-address,undefined}
export GPIPE_BUILD_DIR=build-${sanitizer%%,*}
scripts/setup.sh
options=(-DCMAKE_CXX_COMPILER=clang++-19 -DGPIPE_BUILD_WORKER=OFF "-DGPIPE_SANITIZE=$sanitizer")
# The fuzz targets are part of that build: scripts/fuzz.sh runs them.
[ "$sanitizer" != address,undefined ] || options+=(-DGPIPE_BUILD_FUZZERS=ON)
scripts/build.sh "${options[@]}"
[ "$sanitizer" != thread ] || scripts/instrumented_libraries.sh build-instrumented
[ "${2:-}" != build ] || exit 0
export TSAN_OPTIONS=suppressions=$PWD/scripts/tsan_suppressions.txt
export LSAN_OPTIONS=suppressions=$PWD/scripts/lsan_suppressions.txt:print_suppressions=0
[ "$sanitizer" != thread ] || export LD_LIBRARY_PATH=$PWD/build-instrumented/lib
ctest --test-dir "$GPIPE_BUILD_DIR" --output-on-failure -j 2
