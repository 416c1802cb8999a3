"""What bench/pipeline_bound.py and bench/exported_bound.py share: a pipeline and the machine's own bound in turns."""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
from collections.abc import Callable

import common

SKIPPED = 2  # Steps at the beginning of a job.

# The specs of the independent jobs, that of the pipeline, and what measures the peer's seconds per step.
Setup = Callable[[pathlib.Path, int, argparse.Namespace], tuple[list[dict], dict, Callable[[], float]]]


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


def side_by_side(cluster: common.Cluster, folder: pathlib.Path, specs: list[dict]) -> float:
    """Seconds that independent jobs running at the same time take until all have done a step."""
    metrics = steps_of(cluster, folder, specs)
    return statistics.median(max(step["step_seconds"] for step in steps) for steps in zip(*metrics))


def pipelined(cluster: common.Cluster, folder: pathlib.Path, spec: dict, bubble: float) -> tuple[float, float]:
    """Seconds of a step, and the slowest stage's seconds * (chunks + K-1) / chunks as a share of it."""
    metrics, = steps_of(cluster, folder, [spec])
    return (statistics.median(step["step_seconds"] for step in metrics),
            statistics.median(max(step["stage_busy"]) * bubble for step in metrics))


def one_run(workers: int, options: argparse.Namespace, setup: Setup) -> dict:
    with tempfile.TemporaryDirectory() as name, \
            common.running_cluster(pathlib.Path(name), workers, options.pin) as cluster:
        folder = pathlib.Path(name)
        alone, pipeline, peer = setup(folder, workers, options)
        chunks, turns = pipeline["pipeline"]["chunks"], []
        bubble = (chunks + workers - 1) / chunks
        before = side_by_side(cluster, folder, alone)
        for _ in range(options.turns):
            step, within = pipelined(cluster, folder, pipeline, bubble)
            after = side_by_side(cluster, folder, alone)
            bound = (before + after) / 2 * bubble
            turns.append({"bound": bound, "pipeline": step, "share": bound / step, "within": within})
            before = after
        result = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
        if not options.no_peer:
            result["peer"] = peer()
            result["speedup"] = result["peer"] / result["pipeline"]
    return result


def main(description: str, default_workers: int, peer_name: str, setup: Setup) -> None:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[default_workers])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--pin", action="store_true", help="each worker on a core of its own")
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    print(f"machine: {common.machine()}")
    for workers in options.workers:
        results = []
        for _ in range(options.runs):
            results.append(one_run(workers, options, setup))
            print(f"K={workers} " + " ".join(f"{key}={value:.4f}" for key, value in results[-1].items()), flush=True)
        middle = {key: statistics.median(result[key] for result in results) for key in results[0]}
        print(f"K={workers} median of {len(results)}: {middle['share']:.1%} of the bound, {middle['within']:.1%} within its "
              "own steps" + ("" if options.no_peer else f", {middle['speedup']:.2f} times as fast as {peer_name}"),
              flush=True)
