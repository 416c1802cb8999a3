#!/usr/bin/env bash
# Builds the abseil that is installed, from Debian's sources, with ThreadSanitizer into FOLDER: instrumented_abseil.sh FOLDER.
# Only so built does it tell the sanitizer what its mutexes order; without, every use of one looks like a race.
# apt works in FOLDER: the system's own sources and lists are left as they are.
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd)
version=$(dpkg-query -W -f '${source:Version}' libabsl-dev)
[ -e "$folder/$version" ] && exit 0

apt=$folder/apt
mkdir -p "$apt"/{parts,lists/partial,cache/archives/partial,source}
apt-get indextargets --format 'deb-src $(SITE) $(RELEASE) $(COMPONENT)' "Created-By: Packages" "Origin: Debian" |
  sort -u >"$apt/parts/debian.list"
options=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt/parts" -o "Dir::State::lists=$apt/lists"
         -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=)
apt-get "${options[@]}" update
(cd "$apt/source" && rm -rf abseil-* && apt-get "${options[@]}" source "abseil=$version")

cmake -S "$apt"/source/abseil-*/ -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DBUILD_SHARED_LIBS=ON \
  -DCMAKE_CXX_STANDARD=17 -DCMAKE_CXX_FLAGS=-fsanitize=thread "-DCMAKE_INSTALL_PREFIX=$folder" -DCMAKE_INSTALL_LIBDIR=lib
ninja -C "$folder/build" install
touch "$folder/$version"
