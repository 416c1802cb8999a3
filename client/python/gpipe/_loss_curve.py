"""The losses of a job over its steps.

Drawn here, as the page of the orchestrator does it (orchestrator/web/static/chart.js), so that a notebook needs nothing
but this package.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from gpipe._format import loss_text
from gpipe._metrics import Evaluations, Floats, Integers, Metrics
from gpipe._svg import Drawn, Svg

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, MARGIN = 880, 380, 72, 24, 84, 52, 24
SMOOTH_FROM = 60  # Steps from which on a mean helps to see the trend.
MOST_TICKS = 8
STYLE = """text { font: 11px Helvetica, Arial, sans-serif; fill: #1e293b; }
.title { font-size: 16px; font-weight: bold; }
.note { fill: #475569; }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.grid { fill: none; stroke: #e2e8f0; }
.step { fill: none; stroke: #2563eb; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.faint { stroke-width: 1; stroke-opacity: 0.45; }
.dot { stroke-width: 5; }
.evaluation { fill: #b45309; stroke: #ffffff; }
"""


class LossCurve(Drawn):
    """Of a job. `metrics` has the numbers; a notebook shows it as a drawing."""

    def __init__(self, job: str, metrics: Metrics, logarithmic: bool = False):
        self.job, self.metrics, self.logarithmic = job, metrics, logarithmic

    def svg(self) -> str:
        """The drawing: each step, of many also their running mean, and the evaluations."""
        return _Drawing(self).draw()

    def __repr__(self) -> str:
        return f"<LossCurve of {self.job}: {_summary(self.metrics)}>"


@dataclasses.dataclass(frozen=True)
class _Points:
    """By step; a height is a loss or its logarithm, NaN where there is none to be drawn."""

    step: Integers
    height: Floats


@dataclasses.dataclass(frozen=True)
class _Axes:
    """Places in the drawing."""

    first: float
    last: float
    ticks: list[tuple[float, str]]  # Heights, from the lowest to the highest place, with what is written there.

    def x(self, step: Floats | Integers) -> Floats:
        share: Floats = (np.asarray(step, np.float64) - self.first) / max(1.0, self.last - self.first)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, height: Floats) -> Floats:
        low, high = self.ticks[0][0], self.ticks[-1][0]
        share: Floats = (np.asarray(height, np.float64) - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


class _Drawing:
    def __init__(self, curve: LossCurve):
        self._curve, metrics = curve, curve.metrics
        self._steps = self._points(metrics.step, metrics.loss)
        self._mean = self._points(metrics.step, _running_mean(metrics.loss))
        self._evaluations = self._points(metrics.evaluations.step, metrics.evaluations.loss)
        self._svg = Svg("gpipe-loss", STYLE)

    def draw(self) -> str:
        self._svg.text(MARGIN, 28, "title", f"loss of {self._curve.job}")
        self._svg.text(MARGIN, 46, "note", _summary(self._curve.metrics))
        axes = self._axes()
        if axes is not None:
            self._draw_legend()
            self._draw_axes(axes)
            self._draw_curves(axes)
            self._draw_evaluations(axes)
        return self._svg.render(WIDTH, HEIGHT)

    def _points(self, step: Integers, loss: Floats) -> _Points:
        seen = np.isfinite(loss) & ((loss > 0) | (not self._curve.logarithmic))
        height = np.where(seen, loss, np.nan)
        return _Points(step, np.log10(height) if self._curve.logarithmic else height)

    @property
    def _is_smooth(self) -> bool:
        return len(self._steps.step) >= SMOOTH_FROM

    def _axes(self) -> _Axes | None:
        """None where there is nothing to draw."""
        heights = np.concatenate([self._steps.height, self._evaluations.height])
        heights = heights[np.isfinite(heights)]
        if not len(heights):
            return None
        steps = np.concatenate([self._steps.step, self._evaluations.step])
        ticks = _powers if self._curve.logarithmic else _rounded
        return _Axes(float(steps.min()), float(steps.max()), ticks(float(heights.min()), float(heights.max())))

    def _draw_legend(self) -> None:
        entries = [("step faint", "step"), ("step", "running mean")] if self._is_smooth else [("step", "step")]
        for i, (look, words) in enumerate(entries):
            self._svg.path(f"M{LEFT + i * 80},62 h20", look)
            self._svg.text(LEFT + i * 80 + 26, 66, "note", words)
        if len(self._evaluations.step):
            x = LEFT + len(entries) * 80 + 50
            self._svg.path(_diamond(x, 62), "evaluation")
            self._svg.text(x + 12, 66, "note", "evaluation")

    def _draw_axes(self, axes: _Axes) -> None:
        for height, words in axes.ticks:
            y = round(float(axes.y(np.array(height))))
            self._svg.path(f"M{LEFT},{y}.5 H{WIDTH - RIGHT}", "grid")
            self._svg.text(LEFT - 8, y + 4, "note end", words)
        for step, words in _inside(axes.first, axes.last):
            self._svg.text(round(float(axes.x(np.array(step)))), HEIGHT - BOTTOM + 18, "note middle", words)
        self._svg.text((LEFT + WIDTH - RIGHT) // 2, HEIGHT - 12, "note middle", "step")

    def _draw_curves(self, axes: _Axes) -> None:
        if len(self._steps.step):
            self._svg.path(_line(axes, self._steps), "step faint" if self._is_smooth else "step")
        if dots := _dots(axes, self._steps):
            self._svg.path(dots, "step dot")
        if self._is_smooth:
            self._svg.path(_line(axes, self._mean), "step")

    def _draw_evaluations(self, axes: _Axes) -> None:
        points, evaluations = self._evaluations, self._curve.metrics.evaluations
        for i, (x, y) in enumerate(zip(axes.x(points.step), axes.y(points.height))):
            if not math.isnan(y):
                self._svg.path(_diamond(x, y), "evaluation", _evaluation(evaluations, i))


# --- Words ---

def _summary(metrics: Metrics) -> str:
    """How it began, and how it is."""
    seen = np.flatnonzero(~np.isnan(metrics.loss))
    words = "; ".join([f"{loss_text(metrics.loss[i])} at step {metrics.step[i]:,}" for i in seen[[0, -1][:len(seen)]]])
    if len(metrics.evaluations):
        words += ("; " if words else "") + _evaluation(metrics.evaluations, -1)
    return words or "no step has a loss"


def _evaluation(evaluations: Evaluations, i: int) -> str:
    accuracy = evaluations.accuracy[i]
    return (f"evaluation after step {evaluations.step[i]:,}: loss {loss_text(evaluations.loss[i])}"
            + ("" if np.isnan(accuracy) else f", accuracy {accuracy:.1%}"))


# --- Ticks ---

def _step(low: float, high: float, most: int) -> float:
    """A round number of which no more than `most` are between."""
    least = (high - low) / most
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def _around(low: float, high: float, step: float) -> list[float]:
    """Multiples of `step`, with both ends between them."""
    return [number * step for number in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _rounded(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers, with both ends between them."""
    if not high - low > 1e-6 * max(abs(low), abs(high)):
        low, high = low - 0.5 * abs(low) - 0.1, high + 0.5 * abs(high) + 0.1
    return [(tick, f"{tick:.6g}") for tick in _around(low, high, _step(low, high, MOST_TICKS - 2))]


def _powers(low: float, high: float) -> list[tuple[float, str]]:
    """As _rounded, of logarithms."""
    low, high = (low, high) if high - low > 0.1 else (low - 0.2, high + 0.2)
    if high - low > 2:
        ticks = _around(low, high, max(1.0, _step(low, high, MOST_TICKS - 2)))
    else:
        ticks = [tick + math.log10(factor) for tick in _around(low, high, 1) for factor in (1, 2, 5)]
        end = min(tick for tick in ticks if tick >= high)
        ticks = [tick for tick in ticks if max(each for each in ticks if each <= low) <= tick <= end]
    return [(tick, f"{10 ** tick:.3g}") for tick in ticks]


def _inside(first: float, last: float) -> list[tuple[float, str]]:
    """Whole round numbers between both ends."""
    step = max(1, round(_step(first, max(last, first + 1), MOST_TICKS)))
    return [(number * step, f"{number * step:,}") for number in range(math.ceil(first / step), int(last // step) + 1)]


# --- Lines ---

def _running_mean(loss: Floats) -> Floats:
    """Over about a fiftieth of what there is."""
    weight, mean, means = 2 / (1 + max(2.0, len(loss) / 50)), math.nan, np.full(len(loss), np.nan)
    for i, value in enumerate(loss.tolist()):
        if math.isfinite(value):
            mean = value if math.isnan(mean) else mean + weight * (value - mean)
        means[i] = mean
    return means


def _line(axes: _Axes, points: _Points) -> str:
    """With a gap where nothing is to be drawn."""
    x, pen = axes.x(points.step), "M"
    kept, words = _thinned(x, points.height), []
    for left, top in zip(x[kept].tolist(), axes.y(points.height[kept]).tolist()):
        if not math.isnan(top):
            words.append(f"{pen}{left:.1f},{top:.1f}")
        pen = "M" if math.isnan(top) else "L"
    return "".join(words)


def _dots(axes: _Axes, points: _Points) -> str:
    """The points that no line goes to."""
    seen = np.pad(~np.isnan(points.height), 1)
    alone = seen[1:-1] & ~seen[:-2] & ~seen[2:]
    places = zip(axes.x(points.step[alone]).tolist(), axes.y(points.height[alone]).tolist())
    return "".join(f"M{x:.1f},{y:.1f}h0" for x, y in places)


def _thinned(x: Floats, height: Floats) -> Integers:
    """Of the points that share a pixel the least and the greatest."""
    pixel = np.floor(x)
    order = np.lexsort((height, pixel))
    begins = np.flatnonzero(np.diff(pixel[order], prepend=-1))
    ends = np.append(begins[1:], len(x)) - 1
    return np.unique(np.concatenate([order[begins], order[ends]]))


def _diamond(x: float, y: float) -> str:
    return f"M{x:.1f},{y - 5:.1f}l5,5l-5,5l-5,-5z"
