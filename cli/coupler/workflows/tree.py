"""Paths as a tree, and rows as columns whose last one wraps: for answers that a person reads in a terminal."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

WIDTH = 100
"""Columns of the terminal that text is laid out for."""
_LEAST = 30
"""The last column is at least so wide, whatever stands before it."""


@dataclass(frozen=True)
class Row:
    """A line of columns: what it is about, and its cells. `hang` stands before the lines of a cell that wraps."""

    head: str
    cells: tuple[str, ...] = ()
    hang: str = ""


def columns(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of rows in aligned columns, the last one wrapped to `WIDTH`."""
    rows = list(rows)
    head = max((len(row.head) for row in rows), default=0)
    inner = max((len(row.cells) for row in rows), default=1) - 1
    widths = [max((len(row.cells[i]) for row in rows if row.cells), default=0) for i in range(inner)]
    for row in rows:
        if not row.cells:
            yield row.head
            continue
        fixed = [cell.ljust(width) for cell, width in zip(row.cells, widths, strict=False)]
        start = "  ".join([row.head.ljust(head), *fixed]) + "  "
        room = max(WIDTH - len(start), _LEAST)
        first, *rest = textwrap.wrap(row.cells[-1], room, break_on_hyphens=False, break_long_words=False) or [""]
        yield (start + first).rstrip()
        yield from (row.hang.ljust(len(start)) + line for line in rest)


def tree(files: Mapping[str, tuple[str, ...]], indent: str = "  ") -> Iterator[str]:
    """Yield a tree of absolute paths with the cells of each; a chain of folders with nothing else is one line."""
    root: dict[str, object] = {}
    for path in sorted(files):
        folder = root
        *folders, name = path.strip("/").split("/")
        for part in folders:
            folder = folder.setdefault(f"{part}/", {})  # type: ignore[assignment]
        folder[name] = files[path]
    yield from columns(_rows(root, indent, root=True))


def _rows(folder: dict[str, object], prefix: str, *, root: bool = False) -> Iterator[Row]:
    names = list(folder)
    for number, name in enumerate(names):
        content, last = folder[name], number == len(names) - 1
        while isinstance(content, dict) and len(content) == 1 and isinstance(next(iter(content.values())), dict):
            (inner, content) = next(iter(content.items()))
            name += inner  # noqa: PLW2901 - the chain grows
        branch, below = ("", "  ") if root else ("└─ ", "   ") if last else ("├─ ", "│  ")
        head = f"{prefix}{branch}{'/' if root else ''}{name}"
        if isinstance(content, dict):
            yield Row(head)
            yield from _rows(content, prefix + below)
        else:
            yield Row(head, content, hang=prefix + below)  # type: ignore[arg-type]
