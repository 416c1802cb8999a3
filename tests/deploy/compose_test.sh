#!/usr/bin/env bash
# Builds the images out of build/, starts the CPU profile of deploy/docker-compose.yml with docker-compose, runs the
# examples from the client's container over mTLS, kills a worker in the middle of one, asks Prometheus, and takes all
# down: compose_test.sh. Needs root, Docker, docker-compose, debootstrap, and what scripts/build.sh has built. Images
# stay, for the next time.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/deploy/common.sh

work=$(mktemp -d)
export COMPOSE_PROJECT_NAME=gpipe-test-$$ GPIPE_IMAGES=gpipe-test GPIPE_BASE=gpipe-base:bookworm GPIPE_BUILD_NETWORK=host
export GPIPE_LISTEN=127.0.0.1: GPIPE_HTTP_LISTEN=127.0.0.1: GPIPE_PROMETHEUS_LISTEN=127.0.0.1:
export GPIPE_PROMETHEUS_IMAGE=gpipe-test-prometheus GPIPE_WORK=$work COMPOSE_DOCKER_CLI_BUILD=0
# Somebody's folder, who is nobody to the image.
export GPIPE_USER=12345

fail() { echo "FAILED: $*" >&2; exit 1; }
compose() { docker-compose -f deploy/docker-compose.yml --profile cpu "$@"; }
client() { compose run --rm -T client "$@" </dev/null; }

finish() {
  local code=$?
  if [ "$code" != 0 ]; then compose logs --no-color --tail 60 >&2 || true; fi
  compose down --volumes --timeout 20 >/dev/null 2>&1 || true
  rm -rf "$work" deploy/build-ca.crt
  exit "$code"
}
trap finish EXIT

# field NAME: one of the message on stdin, in the API's JSON.
field() {
  python3 -c 'import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1].split("."): value = value.get(name, {})
print(value or 0)' "$1"
}
past_step() { [ "$(client -o json job get "$1" | field last_step.step)" -ge "$2" ]; }

# What Docker may not give in a sandbox.
if [ "$(ulimit -H -l)" != unlimited ]; then
  GPIPE_MEMLOCK=$(($(ulimit -H -l) * 1024))
  export GPIPE_MEMLOCK
fi

say "the images"
# A proxy's certificates, if there is one.
if [ -n "${PIP_CERT:-}" ]; then cp "$PIP_CERT" deploy/build-ca.crt; fi
deploy/base_image.sh "$GPIPE_BASE"
GPIPE_ARCHIVE=$(deploy/package.sh | cut -d' ' -f1)
export GPIPE_ARCHIVE
compose build --quiet
docker build --quiet --network host --build-arg "BASE=$GPIPE_BASE" --tag "$GPIPE_PROMETHEUS_IMAGE" - \
  <tests/deploy/prometheus.Dockerfile
for program in orchestrator client; do
  megabytes=$(($(docker image inspect --format '{{.Size}}' "$GPIPE_IMAGES-$program") / 1000000))
  echo "$program: $megabytes MB"
  [ "$megabytes" -lt 200 ] || fail "the image of $program has $megabytes MB"
done

say "start"
compose up --detach
cp examples/*.yaml "$work"
.venv/bin/python scripts/make_data.py "$work"
sed -i 's/epochs: 8/epochs: 60\n  checkpoint_every: 50/' "$work/digits_train.yaml"
chown -R "$GPIPE_USER" "$work"
three_workers() { [ "$(client worker list | grep -c IDLE)" = 3 ]; }
await 60 three_workers || fail "the workers did not come"
healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$(compose ps -q "$1")")" = healthy ]; }
for service in orchestrator worker-cpu0 worker-cpu1 worker-cpu2; do
  await 60 healthy "$service" || fail "$service is not healthy"
done

say "the user's example"
client job submit simple_infer.yaml --wait

say "digits, undisturbed"
undisturbed=$(client --quiet job submit digits_train.yaml --wait)
client --quiet job pull "$undisturbed" --output undisturbed

say "digits, and a worker dies"
disturbed=$(client --quiet job submit digits_train.yaml)
await 120 past_step "$disturbed" 60 || fail "no progress"
# From outside, as the machine would do it when it is short of memory; `docker kill` would be an operator's wish.
kill -9 "$(docker inspect --format '{{.State.Pid}}' "$(compose ps -q worker-cpu1)")"
client job watch "$disturbed" || fail "the job did not come back by itself"
[ "$(client -o json job get "$disturbed" | field restarts)" = 1 ] || fail "the job was not disturbed"
client --quiet job pull "$disturbed" --output disturbed
same_curves "$work/undisturbed" "$work/disturbed"

say "Prometheus"
prometheus=$(compose port prometheus 9090)
python3 - "http://$prometheus" 4 <<'PYTHON'
import json, sys, time, urllib.parse, urllib.request

def query(text):
    url = f"{sys.argv[1]}/api/v1/query?" + urllib.parse.urlencode({"query": text})
    return [sample["value"][1] for sample in json.load(urllib.request.urlopen(url))["data"]["result"]]

deadline = time.monotonic() + 60
while query("up") != ["1"] * int(sys.argv[2]) and time.monotonic() < deadline:
    time.sleep(1)
assert query("up") == ["1"] * int(sys.argv[2]), query("up")
assert query("sum(gpipe_job_restarts_total)") == ["1"], query("gpipe_job_restarts_total")
print("scrapes", sys.argv[2], "programs; knows of the restart")
PYTHON

say "stop, and start other images: the jobs are still there"
compose down --timeout 60
GPIPE_VERSION=next compose build --quiet
GPIPE_VERSION=next compose up --detach
[[ $(docker inspect --format '{{.Config.Image}}' "$(compose ps -q orchestrator)") == *:next ]]
client -o json job get "$disturbed" | field state | grep -x STATE_SUCCEEDED
await 60 three_workers || fail "the workers did not come"
client job submit simple_infer.yaml --wait
say "passed"
