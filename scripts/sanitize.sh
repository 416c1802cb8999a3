#!/usr/bin/env bash
# Builds what does not link LibTorch with clang, whose thread-safety analysis is an error, and a sanitizer, and runs its
# tests: sanitize.sh [address,undefined | thread].
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizer=${1:-address,undefined}
export GPIPE_BUILD_DIR=build-${sanitizer%%,*} CC=clang-19 CXX=clang++-19
scripts/setup.sh
scripts/build.sh -DGPIPE_BUILD_WORKER=OFF "-DGPIPE_SANITIZE=$sanitizer"
if [ "$sanitizer" = thread ]; then
  scripts/instrumented_libraries.sh build-instrumented
  export LD_LIBRARY_PATH=$PWD/build-instrumented/lib TSAN_OPTIONS=suppressions=$PWD/scripts/tsan_suppressions.txt
fi
ctest --test-dir "$GPIPE_BUILD_DIR" --output-on-failure -j 2
