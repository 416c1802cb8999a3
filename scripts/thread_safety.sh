#!/usr/bin/env bash
# Compiles what links LibTorch with clang, whose thread-safety analysis is an error. (scripts/sanitize.sh does so with
# the rest.) Nothing of it is run: it is hardly optimised.
set -euo pipefail
cd "$(dirname "$0")/.."
GPIPE_BUILD_DIR=build-clang scripts/build.sh -DCMAKE_CXX_COMPILER=clang++-19 -DCMAKE_BUILD_TYPE=None \
  -DCMAKE_CXX_FLAGS=-O0 -DGPIPE_BUILD_TESTS=OFF bin/gpipe-worker
