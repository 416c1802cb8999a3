"""Curves over steps as an SVG file, with nothing but the standard library."""

from __future__ import annotations

import dataclasses
import math
import pathlib

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 240, 70, 36, 40
# Wide and light first, so that a curve that lies on another one is still seen.
STYLES = (("#9ecae1", 6), ("#08306b", 1.3))


@dataclasses.dataclass
class Panel:
    label: str
    curves: dict[str, list[float]]
    logarithmic: bool = False

    def heights(self, values: list[float]) -> list[float | None]:
        """What is drawn; a logarithm has no zero."""
        if not self.logarithmic:
            return list(values)
        return [math.log10(value) if value > 0 else None for value in values]

    def limits(self) -> tuple[float, float]:
        found = [h for values in self.curves.values() for h in self.heights(values) if h is not None] or [0.0]
        low, high = math.floor(min(found)), math.ceil(max(found))
        return (low, high) if high > low else (low - 1, high + 1)

    def ticks(self) -> list[tuple[float, str]]:
        low, high = (int(limit) for limit in self.limits())
        marks = range(low, high + 1, max(1, (high - low) // 4))
        return [(mark, f"1e{mark}" if self.logarithmic else str(mark)) for mark in marks]


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def _draw(panel: Panel, top: float) -> list[str]:
    low, high = panel.limits()
    count = max(len(values) for values in panel.curves.values())
    span = WIDTH - LEFT - 20

    def at(step: int, height: float) -> tuple[float, float]:
        return LEFT + span * step / max(1, count - 1), top + HEIGHT * (high - height) / (high - low)

    lines = [_text(LEFT, top - 8, panel.label)]
    for mark, words in panel.ticks():
        y = at(0, mark)[1]
        lines += [f'<path d="M{LEFT} {y:.1f}h{span}" stroke="#ddd"/>', _text(LEFT - 6, y + 4, words, "end")]
    for step in range(0, count, max(1, count // 6)):
        lines.append(_text(at(step, low)[0], top + HEIGHT + 16, str(step), "middle"))
    for i, ((name, values), (color, width)) in enumerate(zip(panel.curves.items(), STYLES)):
        points = " ".join("{:.1f},{:.1f}".format(*at(step, height))
                          for step, height in enumerate(panel.heights(values)) if height is not None)
        lines.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="{width}"/>')
        x, y = WIDTH - 290, top + 20 + 20 * i
        lines += [f'<path d="M{x} {y - 4}h30" stroke="{color}" stroke-width="{width}"/>', _text(x + 38, y, name)]
    return lines


def save_plot(path: pathlib.Path, title: str, axis: str, panels: list[Panel]) -> None:
    """Panels one below the other, all over the same steps. At most two curves in each."""
    height = TOP + len(panels) * (HEIGHT + TOP + BOTTOM)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
             'font-size="13">', '<rect width="100%" height="100%" fill="white"/>', _text(LEFT, 22, title)]
    for i, panel in enumerate(panels):
        lines += _draw(panel, 2 * TOP + i * (HEIGHT + TOP + BOTTOM))
    lines += [_text(WIDTH / 2, height - 6, axis, "middle"), "</svg>"]
    path.write_text("\n".join(lines) + "\n")
