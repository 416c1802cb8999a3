#!/usr/bin/env bash
# Builds Debian's abseil and gRPC again, from Debian's sources, with ThreadSanitizer: instrumented_libraries.sh FOLDER.
# Only so built do they tell the sanitizer what their mutexes and queues order; without, most of what passes through them
# looks like a race. LD_LIBRARY_PATH=FOLDER/lib puts them in the place of the system's. Takes 7 minutes on two cores, or
# what the compiler cache takes.
set -euo pipefail
mkdir -p "$1"/{apt/parts,apt/lists/partial,apt/cache/archives/partial,source,lib}
folder=$(cd "$1" && pwd)
exec 8>"$folder/.lock"
flock 8  # As in scripts/build.sh.

# apt works in the folder: the system's own sources and lists are left as they are.
apt=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$folder/apt/parts"
     -o "Dir::State::lists=$folder/apt/lists" -o "Dir::Cache=$folder/apt/cache" -o APT::Sandbox::User=)
update() {
  apt-get indextargets --format 'deb-src $(SITE) $(RELEASE) $(COMPONENT)' "Created-By: Packages" "Origin: Debian" |
    sort -u >"$folder/apt/parts/debian.list"
  apt-get "${apt[@]}" update
}

# As scripts/build.sh does: the compiler cache hits across clones.
export CCACHE_BASEDIR=$folder CCACHE_NOHASHDIR=1
export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime

flags="-fsanitize=thread -O1 -gline-tables-only -w"
# clang 19 names some templates otherwise than the compiler of Debian's libraries.
cxx_flags="$flags -Xclang -fno-pch-timestamp -fclang-abi-compat=17 -Wno-missing-template-arg-list-after-template-kw"
# rebuild SOURCE LIBRARY TARGET [cmake options]: the source package of the installed LIBRARY.
rebuild() {
  local source=$1 target=$3 version
  version=$(dpkg-query -W -f '${source:Version}' "$2")
  shift 3
  [ -e "$folder/$source-$version" ] && return
  [ -e "$folder/apt/parts/debian.list" ] || update
  (cd "$folder/source" && rm -rf "$source"-* && apt-get "${apt[@]}" source "$source=$version")
  cmake -S "$folder/source/$source"-*/ -B "$folder/build-$source" -G Ninja -DBUILD_SHARED_LIBS=ON \
    -DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19 \
    -DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache \
    "-DCMAKE_LIBRARY_OUTPUT_DIRECTORY=$folder/lib" -DCMAKE_CXX_STANDARD=17 "-DCMAKE_C_FLAGS=$flags" \
    "-DCMAKE_CXX_FLAGS=$cxx_flags" "$@"
  ninja -C "$folder/build-$source" "$target"
  touch "$folder/$source-$version"
}

rebuild abseil libabsl-dev all
packages=()
for dependency in ABSL CARES PROTOBUF RE2 SSL ZLIB; do packages+=("-DgRPC_${dependency}_PROVIDER=package"); done
# Its code generator is not built, but is configured with the library that it would link.
rebuild grpc libgrpc-dev grpc++ "${packages[@]}" -DgRPC_BUILD_CODEGEN=OFF -DProtobuf_PROTOC_LIBRARY=not-built \
  "-DCMAKE_PROJECT_INCLUDE=$PWD/cmake/PrecompileGrpc.cmake"
