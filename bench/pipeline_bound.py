#!/usr/bin/env python3
"""Pipelining itself, on CPUs: what share of the machine's own bound the pipeline reaches.

24 transformer encoder layers, 32 chunks, no recompute, K workers of one thread each. In each run the same K workers take
turns at two things: K independent one-worker jobs side by side, each with 1/K of the layers (t seconds until all have
done a step), and the pipeline. GPipe's bound on this machine is t * (32+K-1)/32, and `share` is how much of it the
pipeline reaches. They take turns every few seconds, because where cores are shared with other guests their speed changes
within seconds by more than the pipeline costs (bench/machine_noise.py shows it); a run's share is the median of its turns.

`within` takes t from the pipeline's own steps instead: the seconds that the slowest stage computed in a step, as its
worker measured them. It says what the pipeline itself adds to the bubble, and not what sharing the machine costs.
Then torch.distributed.pipelining does the same over Gloo.

    bench/pipeline_bound.py --workers 2 --runs 5
"""

import argparse
import pathlib
import statistics
import tempfile

import common

LAYERS, CHUNKS = 24, 32
SKIPPED = 2  # Steps at the beginning of a job.


def steps_of(cluster: common.Cluster, folder: pathlib.Path, specs: list[dict]) -> list[list[dict]]:
    """Runs jobs at the same time on the cluster; each one's metrics."""
    jobs = [cluster.submit(common.write_spec(folder, spec)) for spec in specs]
    metrics = []
    for spec, job in zip(specs, jobs):
        if cluster.wait(job, 300)["state"] != "STATE_SUCCEEDED":
            raise SystemExit(f"{spec['name']} failed")
        common.gpipe("job", "pull", job, "--output", folder / job, address=cluster.address)
        metrics.append(common.read_jsonl(folder / job / "metrics.jsonl")[SKIPPED:])
    return metrics


def side_by_side(cluster: common.Cluster, folder: pathlib.Path, workers: int, steps: int) -> float:
    """Seconds that independent jobs running at the same time take until all have done a step."""
    specs = [common.transformer_spec(f"alone{i}", LAYERS // workers, 1, steps=steps) for i in range(workers)]
    metrics = steps_of(cluster, folder, specs)
    return statistics.median(max(step["step_seconds"] for step in steps) for steps in zip(*metrics))


def pipelined(cluster: common.Cluster, folder: pathlib.Path, workers: int, steps: int) -> tuple[float, float]:
    """Seconds of a step, and the slowest stage's seconds * (chunks + K-1) / chunks as a share of it."""
    metrics, = steps_of(cluster, folder, [common.transformer_spec("pipeline", LAYERS, workers, steps=steps)])
    bubble = (CHUNKS + workers - 1) / CHUNKS
    return (statistics.median(step["step_seconds"] for step in metrics),
            statistics.median(max(step["stage_busy"]) * bubble for step in metrics))


def one_run(workers: int, options: argparse.Namespace) -> dict:
    bubble, turns = (CHUNKS + workers - 1) / CHUNKS, []
    with tempfile.TemporaryDirectory() as name, common.running_cluster(pathlib.Path(name), workers, options.pin) as cluster:
        folder = pathlib.Path(name)
        common.write_transformer_data(folder)
        before = side_by_side(cluster, folder, workers, options.steps)
        for _ in range(options.turns):
            step, within = pipelined(cluster, folder, workers, options.steps)
            after = side_by_side(cluster, folder, workers, options.steps)
            bound = (before + after) / 2 * bubble
            turns.append({"bound": bound, "pipeline": step, "share": bound / step, "within": within})
            before = after
    result = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
    if not options.no_peer:
        result["peer"] = common.run_peer("torch_pipelining.py", workers, "--layers", LAYERS, "--chunks", CHUNKS,
                                         "--steps", options.steps + 4, pin=options.pin)
        result["speedup"] = result["peer"] / result["pipeline"]
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--pin", action="store_true", help="each worker on a core of its own")
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    print(f"machine: {common.machine()}")
    for workers in options.workers:
        results = [one_run(workers, options) for _ in range(options.runs)]
        for result in results:
            print(f"K={workers} " + " ".join(f"{key}={value:.4f}" for key, value in result.items()), flush=True)
        print(f"K={workers} median of {len(results)}: {statistics.median(r['share'] for r in results):.1%} of the bound, "
              f"{statistics.median(r['within'] for r in results):.1%} within its own steps"
              + ("" if options.no_peer else
                 f", {statistics.median(r['speedup'] for r in results):.2f} times as fast as torch.distributed.pipelining"))


if __name__ == "__main__":
    main()
