#!/usr/bin/env bash
# What needs a GPU: gpu_checks.sh FOLDER [STEP...], where FOLDER is the unpacked archive of
#   deploy/package.sh --with-tests comm_conformance_test stage_cuda_test plain_loop loss_bench
# Steps: units links equality exported data random failures loss step trace bound one_worker control health, and on
# several GPUs failures_of_each (with a worker for each of DEVICES) timeline client script latency; those of
# bench/gpu/README.md: table, which takes all GPUs for ten minutes, table_trace, text, memory and stage_times (TABLE,
# TEXT, MEMORY and STAGE_TIMES have options for them). client, script and latency need gRPC for Python.
# Workers of tests are all on the first GPU, or on those of DEVICES, in turn: DEVICES="cuda:0 cuda:1".
# Needs python3 with the archive's version of torch, and with numpy, safetensors, PyYAML and pytest.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
archive=$(realpath "$1")
export GPIPE_BIN_DIR=$archive/bin
shift
export GPIPE_TEST_DEVICE=${DEVICES:-cuda:0}
steps=("$@")
[ "${#steps[@]}" -gt 0 ] || steps=(units links equality exported data random failures loss step bound one_worker control health)

units() {
  "$archive/libexec/with-torch" "$archive/tests/comm_conformance_test" --gtest_brief=1 --gtest_filter='*NcclProcesses' &&
    "$archive/libexec/with-torch" "$archive/tests/stage_cuda_test" --gtest_brief=1
}

loss() {
  python3 bench/loss.py --device cuda:0 --positions 1024 --runs 20 &&
    python3 bench/loss.py --device cuda:0 --positions 8192 --runs 10
}

# Leaves the files in $OUT, if that is set.
trace() {
  local folder=${OUT:-$(mktemp -d)}/trace
  mkdir -p "$folder"
  python3 bench/gpu_step.py --chunks 8 --trace "$folder" &&
    python3 bench/trace_summary.py "$folder"/{pipeline,alone}/trace/*.json && gzip "$folder"/*/trace/*.json
}

failed=0
for step in "${steps[@]}"; do
  printf '\n== %s\n' "$step"
  case $step in
    units) units ;;
    links) python3 -m pytest -q tests/python/test_{cluster,failures}.py -k links ;;
    equality) python3 -m pytest -q tests/python/test_equality.py ;;
    exported) python3 -m pytest -q \
      tests/python/test_{exported,exported_values,modes,own_loss,unbatched,evaluation_sizes,lora,data_sizes,skip,balance}.py ;;
    data) python3 -m pytest -q tests/python/test_data.py && python3 bench/data.py --device cuda ;;
    random) python3 tests/python/random_specs.py --device cuda --count 10 ;;
    failures) python3 tests/python/failure_table.py ;;
    failures_of_each) python3 tests/python/failure_table.py --devices $GPIPE_TEST_DEVICE ;;
    timeline) python3 tests/python/timeline_check.py --devices cuda:0 cuda:1 ;;
    client) python3 -m pytest -q tests/python/test_rounds.py tests/python/test_gpipe{,_loss,_written}.py ;;
    script) python3 bench/gpipe_script.py --devices cuda:0 cuda:1 ;;
    loss) loss ;;
    step) python3 bench/gpu_step.py ;;
    trace) trace ;;
    table) python3 bench/gpu/table.py ${TABLE:-} ;;
    table_trace) python3 bench/gpu/table.py --trace "${OUT:-$(mktemp -d)}/trace" ${TABLE:---sizes mid --chunks 8} ;;
    text) python3 bench/gpu/text_curve.py ${TEXT:-} ;;
    memory) python3 bench/gpu/memory.py ${MEMORY:-} ;;
    stage_times) python3 bench/gpu/stage_times.py ${STAGE_TIMES:-} ;;
    latency) python3 bench/gpipe_latency.py --devices cuda:0 cuda:1 ;;
    bound) python3 bench/pipeline_bound.py --workers 2 4 8 --runs 5 --steps 6 ;;
    one_worker) python3 bench/one_worker.py --runs 3 ;;
    health) python3 tests/python/gpu_health.py ;;
    control) python3 bench/control_plane.py --runs 3 ;;
    *) echo "no such step: $step" >&2; exit 2 ;;
  esac || { echo "FAILED: $step"; failed=1; }
done
exit "$failed"
