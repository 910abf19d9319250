"""Turns: one node after another, and none after one that failed."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coupler.errors import HostFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.model import Node


class Turns:
    """What nodes do in turns: `was` is what a node was not that had to stand back, such as `asked to pull`."""

    def __init__(self, was: str) -> None:
        self._was = was
        self._lock = threading.Lock()
        self._failed: str | None = None

    @contextmanager
    def turn_of(self, node: Node) -> Iterator[None]:
        """Wait for the turn of `node`. Raises HostFailedError where an earlier one failed."""
        with self._lock:
            if self._failed:
                raise HostFailedError(
                    f"it was not {self._was}",
                    why=f"{self._failed} failed before it, and with both etcd might lose its quorum",
                    next_step=f"mend {self._failed}, then run the same command again",
                    host=node.name,
                )
            try:
                yield
            except BaseException:
                self._failed = node.name
                raise
