#!/usr/bin/env python3
"""An attacker's hour: hostile calls of every RPC, and what is no call at all, against a private cluster, beside jobs that
train. Prints a table, and exits with 1 if something crashed or grew, a file appeared outside of its folder, or a job did
not end with the losses of one that nobody disturbed.
    attacker.py --minutes 60 [--seed 1]
"""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
import tempfile
import time
from collections import Counter

from attack_target import Beside, Janitor, Target, Usage
from attacks import attacks


@dataclasses.dataclass
class Row:
    calls: int
    outcomes: Counter
    before: Usage
    after: Usage

    def __str__(self):
        words = ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common(8))
        return f"{self.calls:8} | {self.before} | {self.after} | {words}"


class Siege:
    """All attacks, round after round. What is used after the last is compared with what was used halfway: structures that
    have a bound have come to it by then, freed memory goes back to the system, and what is lost with each call does not."""

    def __init__(self, target: Target, say=print):
        self.target, self.say, self.rows, self.problems = target, say, {}, []
        self.attacks, self.used = attacks(target), []

    def round(self, seconds: float):
        """So long for each of them."""
        for name, attack in self.attacks.items():
            before = self.target.usage()
            found = attack(self.target, seconds)
            self.target.check()
            row = Row(sum(found.values()), found, before, self.target.usage())
            self.say(f"{name:45} {row}")
            self.rows.setdefault(name, []).append(row)
        outside = self.target.files_outside()
        assert not outside, f"files outside of their folder: {outside}"
        self.used.append((self.target.usage(), self.target.workers()))

    def run(self, rounds, seconds: float):
        """Every assertion that fails ends it."""
        janitor, beside = Janitor(self.target), Beside(self.target)
        try:
            for _ in rounds:
                self.round(seconds)
        except AssertionError as error:
            self.problems.append(str(error))
        finally:
            self.problems += beside.stop()
            janitor.stop()
        if self.used:
            halfway = self.used[(len(self.used) - 1) // 2]
            self.problems += [f"it has grown: {grown}" for grown in self.target.grown_since(*halfway)]
        self.jobs, self.deleted = beside.jobs, janitor.deleted


def rounds_until(deadline: float):
    number = 0
    while number < 2 or time.monotonic() < deadline:
        number += 1
        yield number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5, help="of each attack in each round")
    parser.add_argument("--steps", type=int, default=2000, help="of each job beside")
    parser.add_argument("--only", help="attacks whose names have this in them")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        target = Target(pathlib.Path(name) / "private", options.seed, options.steps)
        try:
            siege = Siege(target)
            siege.attacks = {name: attack for name, attack in siege.attacks.items() if (options.only or "") in name}
            print(f"seed {options.seed}; the job beside takes {target.seconds:.1f} s alone\n"
                  f"{'attack':45} {'calls':>8} | {'orchestrator before':36} | {'after':36} | outcomes")
            siege.run(rounds_until(time.monotonic() + 60 * options.minutes), options.seconds)
        finally:
            target.stop()
    print(f"{siege.jobs} jobs trained beside, {siege.deleted} of attacks were deleted")
    for problem in siege.problems:
        print(f"FAULT: {problem}")
    return 1 if siege.problems else 0


if __name__ == "__main__":
    sys.exit(main())
