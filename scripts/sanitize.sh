#!/usr/bin/env bash
# Builds what does not link LibTorch with clang, whose thread-safety analysis is an error, and a sanitizer, and runs its
# tests: sanitize.sh [address,undefined | thread].
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizer=${1:-address,undefined}
export GPIPE_BUILD_DIR=build-${sanitizer%%,*} CC=clang-19 CXX=clang++-19
scripts/setup.sh
options=(-DGPIPE_BUILD_WORKER=OFF "-DGPIPE_SANITIZE=$sanitizer")
if [ "$sanitizer" = thread ]; then
  scripts/instrumented_abseil.sh "$GPIPE_BUILD_DIR/abseil"
  options+=("-Dabsl_DIR=$PWD/$GPIPE_BUILD_DIR/abseil/lib/cmake/absl")
fi
scripts/build.sh "${options[@]}"
ctest --test-dir "$GPIPE_BUILD_DIR" --output-on-failure -j 2
