#!/usr/bin/env bash
# Builds the fuzz targets with clang, where scripts/sanitize.sh has its build, and runs each: fuzz.sh [seconds each,
# default 60]. What makes one fail stays in build-address/found/. The seeds are in tests/fuzz/corpus/.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
names=(spec_reader safetensors exported_program)
GPIPE_BUILD_DIR=build-address scripts/build.sh -DCMAKE_CXX_COMPILER=clang++-19 -DGPIPE_BUILD_WORKER=OFF \
  -DGPIPE_SANITIZE=address,undefined -DGPIPE_BUILD_FUZZERS=ON "${names[@]/%/_fuzzer}"

# fuzz NAME: for so many seconds.
fuzz() {
  mkdir -p "build-address/corpus/$1" build-address/found
  UBSAN_OPTIONS=halt_on_error=1 "build-address/fuzz/$1_fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -artifact_prefix="build-address/found/$1-" "build-address/corpus/$1" "tests/fuzz/corpus/$1" \
    2> "build-address/$1.log"
}

failed=0
for name in "${names[@]}"; do fuzz "$name" & pids+=($!); done
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
for name in "${names[@]}"; do
  echo "$name for $seconds s"
  grep -E '^(stat::|SUMMARY|ERROR|==)' "build-address/$name.log" || true
done
[ "$failed" = 0 ] || { echo "a fuzz target failed: see build-address/*.log and build-address/found/" >&2; exit 1; }
