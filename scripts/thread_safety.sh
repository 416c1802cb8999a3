#!/usr/bin/env bash
# Compiles the libraries that link LibTorch with clang, whose thread-safety analysis is an error. (scripts/sanitize.sh
# does so with the rest.) Nothing of it is run: it is not optimised.
set -euo pipefail
cd "$(dirname "$0")/.."
libraries=$(grep -rhoP 'gpipe_(torch_)?library\(\K\w+' worker)
# CMAKE_OPTIMIZE_DEPENDENCIES: a library is compiled without those that it would be linked with.
GPIPE_BUILD_DIR=build-clang scripts/build.sh -DCMAKE_CXX_COMPILER=clang++-19 -DCMAKE_BUILD_TYPE=None \
  -DCMAKE_CXX_FLAGS=-O0 -DCMAKE_OPTIMIZE_DEPENDENCIES=ON -DGPIPE_BUILD_TESTS=OFF $libraries
