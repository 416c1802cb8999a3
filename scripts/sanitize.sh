#!/usr/bin/env bash
# Builds what does not link LibTorch with clang, whose thread-safety analysis is an error, and a sanitizer, and runs its
# tests: sanitize.sh [address,undefined | thread]. Debian's abseil and gRPC are not instrumented, so `thread` sees races
# inside them that are none.
set -euo pipefail
cd "$(dirname "$0")/.."
sanitizer=${1:-address,undefined}
export GPIPE_BUILD_DIR=build-${sanitizer%%,*} CC=clang-19 CXX=clang++-19
scripts/setup.sh
scripts/build.sh -DGPIPE_BUILD_WORKER=OFF "-DGPIPE_SANITIZE=$sanitizer"
ctest --test-dir "$GPIPE_BUILD_DIR" --output-on-failure -j 2
