"""Values as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence


def bytes_text(count: int) -> str:
    """`64.0 KiB`"""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{count} B" if units[0] == "B" else f"{value:.1f} {units[0]}"


def clock_text(seconds: float) -> str:
    """`0:07`, `12:34`, `1:02:03`"""
    whole = max(0, round(seconds))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def seconds_text(seconds: float) -> str:
    """`87.5 us`, `3.42 ms`, `1.25 s`, then as a clock shows it."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    if seconds < 0.1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    return clock_text(seconds)


def percent_text(share: float) -> str:
    """`23%`"""
    return f"{share * 100:.0f}%"


def loss_text(loss: float) -> str:
    """Four digits behind the point, or what shows something."""
    return f"{loss:.3e}" if loss != 0 and abs(loss) < 0.001 else f"{loss:.4f}"


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
