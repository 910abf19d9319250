"""Timing programs from outside, and a table of ratios."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COUPLER = (sys.executable, "-m", "coupler")


class Times:
    """Seconds by name; each name is measured several times, and its median counts."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, seconds: float) -> None:
        """Note one measurement."""
        self._seconds[name].append(seconds)

    def __getitem__(self, name: str) -> float:
        """Return the median of what was measured under `name`."""
        return statistics.median(self._seconds[name])


@dataclass(frozen=True)
class Row:
    """One line of the table: `what` took `seconds`, and `beside` took `reference` of them."""

    what: str
    seconds: float
    beside: str
    reference: float

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The cells of the line."""
        return (self.what, _seconds(self.seconds), f"{self.seconds / self.reference:.2f}", self.beside)


def timed(argv: Sequence[str], cwd: Path, *, stdin: str | None = None, env: Mapping[str, str] | None = None) -> float:
    """Run a program and return the seconds it took. Raises RuntimeError, with what it said, where it fails."""
    began = time.perf_counter()
    done = subprocess.run(argv, cwd=cwd, input=stdin, env=env, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return seconds


def table(rows: Sequence[Row]) -> str:
    """Return the rows as lines of text, the ratio in the middle."""
    lines = [("WHAT", "TIME", "RATIO", "BESIDE"), *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join(
        f"{what:{widths[0]}}  {took:>{widths[1]}}  {ratio:>{widths[2]}}  {beside}"
        for what, took, ratio, beside in lines
    )


def _seconds(seconds: float) -> str:
    if seconds < 0.01:
        return f"{seconds * 1000:.2g} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
