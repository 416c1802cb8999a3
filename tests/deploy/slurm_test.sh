#!/usr/bin/env bash
# Runs deploy/slurm/gpipe.sbatch out of an archive of build/ on a private Slurm: to the end, cancelled, requeued, at its
# time limit: slurm_test.sh. Needs root, and Debian's slurmctld, slurmd, slurm-client and munge.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ -z "${SLURM_CONF:-}" ]; then
  folder=$(mktemp -d)
  chmod 755 "$folder"
  code=0
  SLURM_TEST_FOLDER=$folder tests/deploy/private_slurm.sh "$folder/slurm" "$0" || code=$?
  rm -rf "$folder"
  exit "$code"
fi

source tests/deploy/common.sh
folder=$SLURM_TEST_FOLDER
fail() {
  echo "FAILED: $*" >&2
  tail -n 40 "$folder"/jobs/slurm-*.out >&2
  exit 1
}

mkdir -p "$folder"/{gpipe,jobs}
tar -xzf "$(deploy/package.sh | cut -d' ' -f1)" -C "$folder/gpipe" --strip-components=1
export PATH=$folder/gpipe/bin:$PATH GPIPE_PYTHON=$PWD/.venv/bin/python
cp examples/*.yaml "$folder/jobs"
.venv/bin/python scripts/make_data.py "$folder/jobs"
cd "$folder/jobs"
sed -i 's/epochs: 8/epochs: 40\n  checkpoint_every: 100/; s/workers: 3/workers: 2/' digits_train.yaml
sed 's/lr: 0.003/lr: 1.0e+30/' digits_train.yaml >not_finite.yaml

# batch SPEC [OPTION...]: prints the id of a batch job with two workers, on two nodes.
batch() { sbatch --parsable --nodes=2 --ntasks-per-node=1 "${@:2}" "$folder/gpipe/share/gpipe/gpipe.sbatch" "$1"; }
in_state() { scontrol show job "$1" | grep -qE "JobState=($2) "; }
said() { grep -q -e "$2" "slurm-$1.out" 2>/dev/null; }
# Programs of the archive, and what Slurm runs.
running() {
  find /proc -maxdepth 2 -name exe -lname "$folder/gpipe/*" -printf '%l\n' 2>/dev/null
  pgrep -af "$folder/slurm/spool.*slurm_script|^srun" || true
}
nothing_runs() { [ -z "$(running)" ]; }
await_state() { await 120 in_state "$1" "$2" || fail "batch job $1 is not $2: $(scontrol show job "$1")"; }
# What does not end by itself Slurm kills, after 20 seconds.
await_nothing() { await 15 nothing_runs || fail "there is still $(running)"; }

say "to the end"
job=$(batch simple_infer.yaml --wait) || fail "exit code $?"
await_nothing
ls "gpipe-$job-results"
[ ! -e "gpipe-$job" ] || fail "the state of a job that succeeded was left"

say "a job that fails"
code=0
batch not_finite.yaml --wait || code=$?
[ "$code" = 1 ] || fail "exit code $code, not the job's"
await_nothing

say "cancelled"
job=$(batch digits_train.yaml)
await 60 said "$job" 'step 1[0-9][0-9]' || fail "no progress"
scancel "$job"
await_state "$job" CANCELLED
await_nothing

say "requeued, and at its time limit"
job=$(batch digits_train.yaml)
await 60 said "$job" 'step 2[0-9][0-9]' || fail "no progress"
scontrol requeue "$job"
await 60 in_state "$job" PENDING
await_nothing
await 60 said "$job" 'step 5[0-9][0-9]' || fail "no progress"
scancel --batch --signal=USR1 "$job"
await 60 in_state "$job" PENDING
await_nothing
await_state "$job" COMPLETED
grep 'STARTING, attempt' "slurm-$job.out"
[ "$(grep -c 'STARTING, attempt .* from the checkpoint' "slurm-$job.out")" = 2 ] || fail "it began anew"
if grep -E 'restarts in [0-9]+ s \(' "slurm-$job.out"; then fail "a requeue counted as one of max_restarts"; fi

say "undisturbed: the same"
other=$(batch digits_train.yaml --wait) || fail "exit code $?"
same_curves "gpipe-$job-results" "gpipe-$other-results"
say "passed"
