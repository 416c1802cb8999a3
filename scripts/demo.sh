#!/usr/bin/env bash
# Sets up, builds, runs the example on two workers, trains handwritten digits on three and shows the learning.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
scripts/build.sh gpipe gpipe-orchestrator gpipe-worker

demo=build/demo
rm -rf "$demo"
mkdir -p "$demo"
cp examples/*.yaml "$demo"
.venv/bin/python scripts/make_data.py "$demo"
gpipe=build/bin/gpipe

say() { printf '\n== %s\n' "$*"; }

say "the plan of the example: two stages, eight micro-batches"
$gpipe plan "$demo/simple_infer.yaml"
say "inference: 64x1024 through two workers"
$gpipe run "$demo/simple_infer.yaml" --output "$demo/simple-infer"
say "training the same model on two workers"
$gpipe run "$demo/simple_train.yaml" --output "$demo/simple-train"
say "training handwritten digits on three workers: batch norm, dropout, recomputing, uneven micro-batches"
$gpipe run "$demo/digits_train.yaml" --output "$demo/digits"

say "what digits learned"
.venv/bin/python - "$demo/digits/evaluation.jsonl" <<'PYTHON'
import json, sys
for line in map(json.loads, open(sys.argv[1])):
    print(f"step {int(line['step']):4}  test loss {line['loss']:.4f}  test accuracy {line['accuracy']:6.1%}  "
          + "#" * round(40 * line["accuracy"]))
PYTHON
printf '\nresults:\n'
printf '  %s\n' "$demo"/{simple-infer,simple-train,digits}
