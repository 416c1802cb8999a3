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

# fuzz NAME: for so many seconds.
fuzz() {
  mkdir -p "build-fuzz/corpus/$1" build-fuzz/found
  UBSAN_OPTIONS=halt_on_error=1 "build-fuzz/fuzz/$1_fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="build-fuzz/found/$1-" "build-fuzz/corpus/$1" "tests/fuzz/corpus/$1" \
    2> "build-fuzz/$1.log"
}

failed=0
names=(spec_reader safetensors exported_program)
for name in "${names[@]}"; do fuzz "$name" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
for name in "${names[@]}"; do
  echo "$name for $seconds s"
  grep -E '^(stat::|SUMMARY|ERROR|==)' "build-fuzz/$name.log" || true
done
[ "$failed" = 0 ] || { echo "a fuzz target failed: see build-fuzz/*.log and build-fuzz/found/" >&2; exit 1; }
