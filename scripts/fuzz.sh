#!/usr/bin/env bash
# Builds the fuzz targets with clang in build-fuzz/ and runs each: fuzz.sh [seconds each, default 60].
# What makes one fail stays in build-fuzz/found/. The seeds are in tests/fuzz/corpus/.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}

# All of our code is compiled with coverage, which is what leads the fuzzer to new paths.
GPIPE_BUILD_DIR=build-fuzz scripts/build.sh -DCMAKE_CXX_COMPILER="${CXX:-clang++-19}" \
  -DCMAKE_CXX_FLAGS=-fsanitize=fuzzer-no-link -DGPIPE_SANITIZE=address,undefined \
  -DGPIPE_BUILD_FUZZERS=ON -DGPIPE_BUILD_WORKER=OFF spec_reader_fuzzer safetensors_fuzzer exported_program_fuzzer

failed=0
for name in spec_reader safetensors exported_program; do
  mkdir -p "build-fuzz/corpus/$name" build-fuzz/found
  echo "$name for $seconds s"
  UBSAN_OPTIONS=halt_on_error=1 "build-fuzz/fuzz/${name}_fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="build-fuzz/found/$name-" "build-fuzz/corpus/$name" "tests/fuzz/corpus/$name" \
    2> "build-fuzz/$name.log" || failed=1
  grep -E '^(stat::|SUMMARY|ERROR|==)' "build-fuzz/$name.log" || true
done
[ "$failed" = 0 ] || { echo "a fuzz target failed: see build-fuzz/*.log and build-fuzz/found/" >&2; exit 1; }
