#!/usr/bin/env bash
# Packs the programs of build/ into dist/gpipe-VERSION-linux-x86_64.tar.gz, which runs from any folder of a machine with
# glibc 2.36 or newer: package.sh [--with-tests TEST...]. TEST is the name of a program in build/tests
# or build/bin.
#
#   bin/      gpipe, gpipe-orchestrator, a launcher of gpipe-worker, and gpipe-certs
#   libexec/  the worker itself, and with-torch, which finds the LibTorch of an installed torch wheel
#   lib/      the shared libraries of all of them, but for LibTorch, CUDA, NCCL, glibc, libstdc++ and libgcc: every
#             machine that has a torch wheel, or glibc 2.36, has the last two, at least as new as ours
#   share/    the Python package, for gpipe.export and gpipe.data where it is not installed; units for systemd, a batch
#             job for Slurm
#   tests/    test programs, to be run through libexec/with-torch
set -euo pipefail
cd "$(dirname "$0")/.."
build=${GPIPE_BUILD_DIR:-build}
max_megabytes=40

tests=()
if [ "${1:-}" = --with-tests ]; then tests=("${@:2}"); shift $#; fi
[ $# = 0 ] || { echo "usage: deploy/package.sh [--with-tests TEST...]" >&2; exit 2; }

version=$(sed -n 's/^project(gpipe VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
site=$(sed -n 's/^GPIPE_SITE_PACKAGES:[A-Z]*=//p' "$build/CMakeCache.txt")
torch_version=$(sed -n "s/^__version__ = '\([^+']*\).*/\1/p" "$site/torch/version.py")
name=gpipe-$version-linux-x86_64
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
archive=$root/$name
mkdir -p "$archive"/{bin,lib,libexec}

# place SOURCE TARGET: a program, without what only a debugger reads and without the paths of this machine.
place() {
  install -m 755 "$1" "$2"
  strip "$2"
  local old
  old=$(readelf -d "$2" | sed -n 's/.*Library r.*path: \[\(.*\)\]/\1/p')
  printf 'file(RPATH_CHANGE FILE "%s" OLD_RPATH [[%s]] NEW_RPATH [[$ORIGIN/../lib]])\n' "$2" "$old" >"$root/rpath.cmake"
  cmake -P "$root/rpath.cmake" >&2
}

# libraries PROGRAM: the files of the shared libraries it loads, but for those the target machine has.
libraries() {
  if ldd "$1" | grep 'not found' >&2; then return 1; fi
  ldd "$1" | awk -v site="$site/" -v there='/(lib(c|m|dl|rt|util|pthread|resolv|anl|nsl|stdc\\+\\+|gcc_s)\\.so|ld-linux)' \
    '$2 == "=>" && index($3, site) != 1 && $3 !~ there { print $3 }'
}

programs=("$build/bin/gpipe" "$build/bin/gpipe-orchestrator" "$build/bin/gpipe-worker")
place "$build/bin/gpipe" "$archive/bin/gpipe"
place "$build/bin/gpipe-orchestrator" "$archive/bin/gpipe-orchestrator"
place "$build/bin/gpipe-worker" "$archive/libexec/gpipe-worker"
install -m 755 deploy/gpipe-worker "$archive/bin/gpipe-worker"
install -m 755 deploy/with-torch "$archive/libexec/with-torch"
install -m 755 deploy/certs.sh "$archive/bin/gpipe-certs"
mkdir -p "$archive/share/gpipe/systemd"
install -m 644 deploy/slurm/gpipe.sbatch "$archive/share/gpipe/"
(cd client/python && find gpipe -name '*.py' ! -name '*_pb2*.py' -exec install -D -m 644 {} "$archive/share/gpipe/python/{}" \;)
install -m 644 deploy/systemd/* "$archive/share/gpipe/systemd/"
for test in "${tests[@]}"; do
  mkdir -p "$archive/tests"
  source=$build/tests/$test
  [ -f "$source" ] || source=$build/bin/$test
  place "$source" "$archive/tests/$test"
  programs+=("$source")
done

for program in "${programs[@]}"; do libraries "$program"; done | sort -u | while read -r library; do
  install -m 644 "$(readlink -f "$library")" "$archive/lib/$(basename "$library")"
  strip --strip-unneeded "$archive/lib/$(basename "$library")"
done
echo "$torch_version" >"$archive/lib/torch-version"

if grep -rlF -e "$PWD/" -e "$site/" "$archive"/{bin,lib,libexec}; then
  echo "package: the files above name a folder of this machine" >&2
  exit 1
fi

# Every program finds the archive's own libraries, wherever the archive lies.
for program in "$archive"/bin/gpipe "$archive"/bin/gpipe-orchestrator "$archive"/libexec/gpipe-worker "$archive"/tests/*; do
  [ -e "$program" ] || continue
  if ldd "$program" | awk '$2 == "=>" { print $1, $3 }' | while read -r soname file; do
    [ ! -e "$archive/lib/$soname" ] || [ "$(realpath -m "$file")" = "$archive/lib/$soname" ] || echo "$soname"
  done | grep .; then
    echo "package: $(basename "$program") does not take the above from lib/: build it again" >&2
    exit 1
  fi
done

mkdir -p dist
tar --create --gzip --file "dist/$name.tar.gz" --directory "$root" --owner=0 --group=0 --sort=name "$name"
megabytes=$(($(stat -c %s "dist/$name.tar.gz") / 1000000))
if [ "$megabytes" -ge "$max_megabytes" ]; then
  echo "package: dist/$name.tar.gz has $megabytes MB, more than $max_megabytes" >&2
  exit 1
fi
echo "dist/$name.tar.gz ($megabytes MB)"
