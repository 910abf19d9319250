"""Long work in pieces, so that others get their turn."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_TURN = 0.002


class Pace:
    """Counts the time that somebody has worked without a pause, in seconds, and lets others run when it is much."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    async def breathe(self) -> None:
        """Let others run, if it is time."""
        if time.monotonic() - self._since > _TURN:
            await asyncio.sleep(0)
            self._since = time.monotonic()


async def joined(pieces: Iterable[str]) -> str:
    """Return the text that `pieces` make together."""
    pace = Pace()
    made: list[str] = []
    for piece in pieces:
        made.append(piece)
        await pace.breathe()
    return "".join(made)
