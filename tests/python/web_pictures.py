#!/usr/bin/env python3
"""Takes the pictures of the web page in docs/images/, of a real cluster and its jobs on this machine.

    web_pictures.py [--output docs/images] [--workers 4] [--seconds 60]
"""

import argparse
import contextlib
import pathlib
import sys
import tempfile
import time

import yaml

from browser import Browser
from cluster import ROOT, gpipe, wait_until, write_spec
from failure_table import training_spec
from test_web import WebCluster

sys.path.insert(0, str(ROOT / "scripts"))
import make_data

PICTURES = [  # name, page, width, height, dark, how far down
    ("jobs", "#/jobs", 1280, 620, False, None),
    ("job", "#/jobs/{job}", 1280, 1230, False, None),
    ("job-dark", "#/jobs/{job}", 1280, 1230, True, None),
    ("timeline", "#/jobs/{job}", 1280, 760, False, "[data-part=timeline]"),
    ("workers", "#/workers", 1280, 480, False, None),
    ("workers-dark", "#/workers", 1280, 480, True, None),
    ("failed", "#/jobs/{failed}", 1280, 820, False, None),
    ("jobs-narrow", "#/jobs", 390, 844, False, None),
    ("job-narrow", "#/jobs/{job}", 390, 1180, True, None),
]


def wide_digits(folder: pathlib.Path, workers: int) -> pathlib.Path:
    """The digits of the examples, with layers that are worth a pipeline."""
    spec = yaml.safe_load((ROOT / "examples" / "digits_train.yaml").read_text())
    width, hidden = 1024, [{"linear": {"in_features": 1024, "out_features": 1024}}, {"gelu": {}}, {"layer_norm": {"normalized_shape": [1024]}}]
    spec.update(name="digits-wide", model={"init_seed": 3, "sequential": [
        {"flatten": {}}, {"linear": {"in_features": 64, "out_features": width}}, {"gelu": {}}, *hidden * (3 * workers - 1),
        {"linear": {"in_features": width, "out_features": 10}}]})
    spec["pipeline"] = {"workers": workers, "chunks": 8, "checkpoint": "except_last"}
    spec["train"].update(batch_size=1024, drop_last=True, epochs=4000, checkpoint_every=20, keep_checkpoints=2,
                         optimizer={"adam": {"lr": 4e-6}}, evaluate={**spec["train"]["evaluate"], "every_steps": 10})
    return write_spec(folder, spec)


def run_others(cluster: WebCluster, folder: pathlib.Path) -> dict:
    """Jobs that are over, in each way."""
    cluster.wait(cluster.submit(ROOT / "examples" / "simple_infer.yaml"))
    (folder / "digits_train.yaml").write_text((ROOT / "examples" / "digits_train.yaml").read_text())
    cluster.wait(cluster.submit(folder / "digits_train.yaml"), 120)
    diverges = training_spec("too-fast")
    diverges["train"].update(optimizer={"sgd": {"lr": 1e30}}, loss={"cross_entropy": {}})
    failed = cluster.submit(write_spec(folder, diverges))
    cluster.wait(failed)
    cancelled = cluster.submit(write_spec(folder, training_spec("stopped", steps=10**6)))
    wait_until(lambda: int(cluster.job(cancelled).get("steps_done", 0)) > 30, 60, "steps")
    gpipe("job", "cancel", cancelled, address=cluster.address)
    cluster.wait(cancelled)
    return {"failed": failed}


def take(browser: Browser, cluster: WebCluster, names: dict, output: pathlib.Path):
    for name, page, width, height, dark, at in PICTURES:
        browser.look_like(width, height, dark, mobile=width < 500, scale=2 if width < 500 else 1)
        browser.open("about:blank")
        browser.open(cluster.url + page.format(**names))
        browser.wait("document.querySelector('tbody tr')")
        time.sleep(4)  # For some of what is live to arrive.
        if at:
            browser.run("scrollTo(0, document.querySelector(arguments[0]).getBoundingClientRect().top - 70)", at)
            time.sleep(0.5)
        browser.screenshot(output / f"web-{name}.png")
        assert browser.complaints() == []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs" / "images")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60, help="of the running job, before the pictures")
    flags = parser.parse_args()
    flags.output.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = WebCluster(folder / "cluster")
        stack.callback(cluster.stop)
        make_data.write_digits(folder)
        cluster.start_workers(flags.workers)
        names = run_others(cluster, folder)
        names["job"] = cluster.submit(wide_digits(folder, flags.workers))
        large = training_spec("needs-more")
        large["pipeline"] = {"workers": 2 * flags.workers, "chunks": 4}
        large["model"]["sequential"] *= 4
        cluster.submit(write_spec(folder, large))
        wait_until(lambda: cluster.job(names["job"])["state"] == "STATE_RUNNING", 120, "the job to run")
        time.sleep(flags.seconds)
        browser = Browser()
        stack.callback(browser.close)
        take(browser, cluster, names, flags.output)


if __name__ == "__main__":
    main()
