"""One step as it was: what each stage did, and when.

Drawn here, and not by the program `gpipe`, so that a notebook needs nothing but this package.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from gpipe import _atomic, v1
from gpipe._format import percent_text, seconds_text, table_text
from gpipe._svg import Drawn, Svg, hatch

MARGIN, TOP, LABEL, WIDTH, ROW, ROW_STEP, AXIS, TICKS = 24, 76, 150, 1000, 34, 40, 30, 5
LONGEST_LABEL = 22
STYLE = """text { font: 11px Helvetica, Arial, sans-serif; fill: #1e293b; }
.title { font-size: 16px; font-weight: bold; }
.note { fill: #475569; }
.middle { text-anchor: middle; }
.number { font: 10px DejaVu Sans Mono, Menlo, monospace; text-anchor: middle; fill: #ffffff; }
.bubble { fill: url(#gpipe-bubble); stroke: #cbd5e1; stroke-width: 0.5; }
.forward { fill: #2563eb; stroke: #ffffff; stroke-width: 0.5; }
.backward { fill: #15803d; stroke: #ffffff; stroke-width: 0.5; }
.recompute { fill: #0891b2; stroke: #ffffff; stroke-width: 0.5; }
.optimizer { fill: #7c3aed; stroke: #ffffff; stroke-width: 0.5; }
.busy { fill: #64748b; }
.axis { fill: none; stroke: #94a3b8; }
"""
LETTERS = {v1.ACTION_KIND_FORWARD: "F", v1.ACTION_KIND_BACKWARD: "B", v1.ACTION_KIND_RECOMPUTE: "R",
           v1.ACTION_KIND_OPTIMIZER: "OPT", v1.ACTION_KIND_REDUCE_GRAD: "REDUCE_GRAD"}
LOOKS = {v1.ACTION_KIND_FORWARD: "forward", v1.ACTION_KIND_RECOMPUTE: "recompute",
         v1.ACTION_KIND_BACKWARD: "backward", v1.ACTION_KIND_OPTIMIZER: "optimizer"}


class Timeline(Drawn):
    """Of one step of a job. `message` is what the API says of it; a notebook shows it as a drawing."""

    def __init__(self, message: v1.StepTimeline):
        self.message = message

    @property
    def step(self) -> int:
        """Counted from 1."""
        return self.message.step

    @property
    def bubble_share(self) -> float:
        """Share of the workers' time in which they computed nothing."""
        return self.message.bubble_share

    def svg(self) -> str:
        """The drawing."""
        return _draw(self.message)

    def trace(self) -> str:
        """For Perfetto, or chrome://tracing."""
        return json.dumps(_trace(self.message)) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """As a drawing where the name ends with `.svg`, as a trace where it ends with `.json`."""
        makers = {".svg": self.svg, ".json": self.trace}
        target = pathlib.Path(path)
        if target.suffix.lower() not in makers:
            raise ValueError(f"{target}: must end in .svg (a drawing) or .json (a trace)")
        _atomic.write(target, makers[target.suffix.lower()]().encode())

    def __repr__(self) -> str:
        return f"<Timeline: {_title(self.message)}>"

    def __str__(self) -> str:
        return f"{_title(self.message)}\n\n{table_text(_table(self.message))}"


def _title(timeline: v1.StepTimeline) -> str:
    forecast = f", forecast {percent_text(timeline.forecast.bubble_share)}" if timeline.HasField("forecast") else ""
    return (f"step {timeline.step} of {timeline.job}: {seconds_text(timeline.step_seconds)}, bubble "
            f"{percent_text(timeline.bubble_share)}{forecast}, ideal {percent_text(timeline.ideal_bubble_share)}")


def _name(action: v1.ActionDone) -> str:
    return LETTERS.get(action.kind, "?") + ("" if action.micro_batch < 0 else str(action.micro_batch))


def _worker(timeline: v1.StepTimeline, stage: int) -> int:
    return timeline.stage_worker[stage] if 0 <= stage < len(timeline.stage_worker) else -1


def _table(timeline: v1.StepTimeline) -> list[list[str]]:
    rows = [["STAGE", "WORKER", *(look.upper() for look in LOOKS.values()), "BUSY"]]
    for stage in sorted({action.stage for action in timeline.actions}):
        worker = _worker(timeline, stage)
        own = [action for action in timeline.actions if action.stage == stage]
        busy = sum(action.nanos for action in own) * 1e-9
        times = [sum(action.nanos for action in own if action.kind == kind) * 1e-9 for kind in LOOKS]
        rows.append([str(stage), timeline.workers[worker] if 0 <= worker < len(timeline.workers) else "?",
                     *(seconds_text(time) if time else "" for time in times),
                     percent_text(busy / timeline.step_seconds if timeline.step_seconds else 0)])
    return rows


def _trace(timeline: v1.StepTimeline) -> dict[str, Any]:
    events: list[dict[str, Any]] = [{"name": "process_name", "ph": "M", "pid": worker, "args": {"name": name}}
                                    for worker, name in enumerate(timeline.workers)]
    events += [{"name": "thread_name", "ph": "M", "pid": worker, "tid": stage, "args": {"name": f"stage {stage}"}}
               for stage, worker in enumerate(timeline.stage_worker)]
    events += [{"name": _name(action), "cat": LOOKS.get(action.kind, "other"), "ph": "X",
                "ts": action.start_nanos * 1e-3, "dur": action.nanos * 1e-3,
                "pid": max(0, _worker(timeline, action.stage)), "tid": action.stage,
                "args": {"stage": action.stage, "micro_batch": action.micro_batch, "cycle": action.cycle}}
               for action in timeline.actions]
    about = {"job": timeline.job, "attempt": timeline.attempt, "step": timeline.step,
             "step_seconds": timeline.step_seconds, "bubble_share": timeline.bubble_share,
             "ideal_bubble_share": timeline.ideal_bubble_share}
    return {"displayTimeUnit": "ms", "otherData": about, "traceEvents": events}


# --- The drawing ---

def _draw(timeline: v1.StepTimeline) -> str:
    svg = Svg("gpipe-timeline", STYLE, hatch("gpipe-bubble", "#e2b4b4"))
    svg.text(MARGIN, 28, "title", _title(timeline))
    for i, look in enumerate([*LOOKS.values(), "bubble"]):
        svg.box(MARGIN + LABEL + i * 110, 44, 14, 14, look, look, round_by=0)
        svg.text(MARGIN + LABEL + i * 110 + 20, 55, "note", "bubble: nothing computed" if look == "bubble" else look)
    for worker in range(len(timeline.workers)):
        _draw_row(svg, timeline, worker)
    span = max([round(timeline.step_seconds * 1e9), 1, *(a.start_nanos + a.nanos for a in timeline.actions)])
    for action in timeline.actions:
        _draw_action(svg, timeline, action, span)
    bottom = TOP + max(1, len(timeline.workers)) * ROW_STEP
    _draw_axis(svg, bottom, span * 1e-9)
    return svg.render(2 * MARGIN + LABEL + WIDTH, bottom + AXIS + MARGIN)


def _draw_row(svg: Svg, timeline: v1.StepTimeline, worker: int) -> None:
    y, stages = TOP + worker * ROW_STEP, [str(s) for s, w in enumerate(timeline.stage_worker) if w == worker]
    label = f"{'stage' if len(stages) == 1 else 'stages'} {', '.join(stages)}"
    svg.text(MARGIN, y + 15, "", label[:LONGEST_LABEL])
    svg.text(MARGIN, y + 28, "note", timeline.workers[worker][:LONGEST_LABEL])
    svg.box(MARGIN + LABEL, y, WIDTH, ROW, "bubble", "bubble", round_by=0)


def _draw_action(svg: Svg, timeline: v1.StepTimeline, action: v1.ActionDone, span: int) -> None:
    worker = _worker(timeline, action.stage)
    if not 0 <= worker < len(timeline.workers):
        return
    left, right = (MARGIN + LABEL + round(nanos / span * WIDTH)
                   for nanos in (action.start_nanos, action.start_nanos + action.nanos))
    y = TOP + worker * ROW_STEP
    svg.box(left, y, max(1, right - left), ROW, LOOKS.get(action.kind, "busy"),
            f"stage {action.stage} {_name(action)}: {seconds_text(action.nanos * 1e-9)} from "
            f"{seconds_text(action.start_nanos * 1e-9)}", round_by=0)
    number = "" if action.micro_batch < 0 else str(action.micro_batch)
    if number and len(number) * 7 + 2 <= right - left:
        svg.text((left + right) // 2, y + ROW // 2 + 4, "number", number)


def _draw_axis(svg: Svg, bottom: int, seconds: float) -> None:
    left = MARGIN + LABEL
    svg.path(f"M{left},{bottom + 2} H{left + WIDTH}", "axis")
    for tick in range(TICKS + 1):
        x = left + tick * WIDTH // TICKS
        svg.path(f"M{x},{bottom + 2} V{bottom + 7}", "axis")
        svg.text(x, bottom + 20, "note middle", seconds_text(seconds * tick / TICKS) if tick else "0")
