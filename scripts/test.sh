#!/usr/bin/env bash
# Sets up, builds, runs all tests: GoogleTest through ctest, then pytest, where PyTorch is the reference.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh tests/python/packages.txt
scripts/build.sh

failed=0
ctest --test-dir build --output-on-failure -j 2 || failed=1
.venv/bin/python -m pytest -q -rs tests/python || failed=1
[ "$failed" = 0 ] || { echo "some tests failed" >&2; exit 1; }
