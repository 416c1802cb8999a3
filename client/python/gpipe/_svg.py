"""Drawings as SVG, in whole pixels from the top left. Later shapes cover earlier ones."""

from __future__ import annotations

import html
import os
import pathlib
import re

from gpipe import _atomic


def escaped(text: str) -> str:
    """What XML cannot hold at all becomes a question mark."""
    return html.escape(re.sub(r"[\x00-\x1f]", "?", text))


class Drawn:
    """What a notebook shows as a drawing."""

    def svg(self) -> str:
        """The drawing."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> None:
        """The drawing, as a file."""
        _atomic.write(pathlib.Path(path), self.svg().encode())

    def _repr_html_(self) -> str:
        return f'<div style="overflow-x: auto">{self.svg()}</div>'


class Svg:
    """`look` is a class of the style sheet, where several drawings of one page share nothing: its rules hold below the
    drawing's own element only."""

    def __init__(self, kind: str, style: str, definitions: str = ""):
        self._kind, self._style, self._definitions = kind, style, definitions
        self._shapes: list[str] = []

    def box(self, x: int, y: int, width: int, height: int, look: str, title: str = "", round_by: int = 4) -> None:
        """`title` is shown when a mouse rests on it."""
        self._shapes.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{round_by}" class="{look}">'
                            f"{_title(title)}</rect>")

    def text(self, x: int, y: int, look: str, text: str) -> None:
        """Around `x` as the look has it (text-anchor)."""
        self._shapes.append(f'<text x="{x}" y="{y}" class="{look}">{escaped(text)}</text>')

    def path(self, path: str, look: str, title: str = "") -> None:
        """`path` is in SVG's language."""
        self._shapes.append(f'<path d="{path}" class="{look}">{_title(title)}</path>')

    def render(self, width: int, height: int) -> str:
        """The whole file."""
        rules = "\n".join(f"svg.{self._kind} {rule}" for rule in self._style.strip().splitlines())
        return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" class="{self._kind}" width="{width}" '
                          f'height="{height}" viewBox="0 0 {width} {height}">', f"<style>\n{rules}\n</style>",
                          f"<defs>{self._definitions}</defs>", '<rect width="100%" height="100%" fill="#ffffff"/>',
                          *self._shapes, "</svg>\n"])


def _title(text: str) -> str:
    return f"<title>{escaped(text)}</title>" if text else ""


def arrow(name: str, color: str) -> str:
    """For looks that say `marker-end: url(#NAME)`."""
    return (f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            f'<path d="M0,0 L8,4 L0,8 z" fill="{color}"/></marker>')


def hatch(name: str, color: str) -> str:
    """Stripes, for looks that say `fill: url(#NAME)`."""
    return (f'<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
            f'<rect width="2" height="6" fill="{color}"/></pattern>')


def shortened(text: str, length: int) -> str:
    """The beginning."""
    return text if len(text) <= length else f"{text[:length - 3]}..."
