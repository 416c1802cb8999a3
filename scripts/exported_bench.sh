#!/usr/bin/env bash
# The benchmarks of exported models, on a machine with many cores: exported_bench.sh FOLDER [STEP...], where FOLDER is
# the unpacked archive of deploy/package.sh. Steps: bound step load cuts. Needs python3 with the archive's version of
# torch, and with numpy, safetensors and PyYAML.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
GPIPE_BIN_DIR=$(realpath "$1")/bin
export GPIPE_BIN_DIR
shift
steps=("$@")
[ "${#steps[@]}" -gt 0 ] || steps=(bound step load cuts)

failed=0
for step in "${steps[@]}"; do
  printf '\n== %s\n' "$step"
  case $step in
    bound) python3 bench/exported_bound.py --workers 3 --runs 5 --steps 8 ;;
    step) python3 bench/exported_step.py --runs 5 ;;
    load) python3 bench/exported_load.py --runs 3 ;;
    cuts) python3 bench/exported_cuts.py --workers 2 && python3 bench/exported_cuts.py --workers 3 --cases convnet ;;
    *) echo "no such step: $step" >&2; exit 2 ;;
  esac || { echo "FAILED: $step"; failed=1; }
done
exit "$failed"
