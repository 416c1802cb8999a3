#!/usr/bin/env bash
# Whether all C++ is as clang-format 19 would have it; says where it is not.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files '*.h' '*.cc' '*.c' '*.cu' | xargs clang-format-19 --dry-run --Werror
