# What the tests of this folder share; to be sourced.
# shellcheck shell=bash

say() { printf '\n== %s\n' "$*"; }

# await SECONDS COMMAND...: until the command succeeds; fails after so long.
await() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.2
  done
}

# same_curves FOLDER FOLDER: whether two trainings had the same losses in all steps, to the last bit.
same_curves() {
  python3 - "$1/metrics.jsonl" "$2/metrics.jsonl" <<'PYTHON'
import json, sys
one, other = ({line["step"]: line["loss"] for line in map(json.loads, open(path))} for path in sys.argv[1:])
different = [step for step in one.keys() | other.keys() if one.get(step) != other.get(step)]
if not one or different:
    sys.exit(f"{len(one)} and {len(other)} steps, of which {len(different)} differ, the first is {min(different, default=0)}")
print(f"{len(one)} steps, the same losses: {one[min(one)]:.3f} to {one[max(one)]:.3f}")
PYTHON
}
