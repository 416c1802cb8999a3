#!/usr/bin/env bash
# Builds into build/ (or GPIPE_BUILD_DIR): build.sh [cmake -D options] [ninja targets]. The programs are in build/bin.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${GPIPE_BUILD_DIR:-build}

# Precompiled headers and paths relative to the repository make the compiler cache hit across clones.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime

options=() targets=()
for argument in "$@"; do
  case $argument in -D*) options+=("$argument") ;; *) targets+=("$argument") ;; esac
done

mkdir -p "$build"
exec 9>"$build/.lock"
flock 9   # two builds in one folder would tread on each other
[ -f "$build/build.ninja" ] && [ "${#options[@]}" = 0 ] || cmake -S . -B "$build" -G Ninja "${options[@]}"
ninja -C "$build" -j "${GPIPE_BUILD_JOBS:-2}" "${targets[@]}"
