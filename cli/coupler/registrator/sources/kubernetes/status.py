"""Writes statuses and Events back to the API server: late rather than wrong, and only while we are the one to write.

Wishes are level-triggered: each time all those are taken that still differ from what the server has. One that failed is
tried again after a pause that grows; one that succeeded is looked at again only if it is still wished ten seconds
later.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.registrator.sources.kubernetes import notices
from coupler.registrator.sources.kubernetes.client import ApiError
from coupler.registrator.sources.kubernetes.conditions import with_times
from coupler.registrator.sources.kubernetes.objects import stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coupler.registrator.sources.kubernetes.client import ApiClient
    from coupler.registrator.sources.kubernetes.objects import Complaint, Wish

_NOT_FOUND, _CONFLICT, _FORBIDDEN = 404, 409, 403
_AGAIN = 10.0
_ELECTION = 1.0


@dataclass(slots=True)
class _Task:
    wish: Wish
    due: float = 0.0
    failures: int = 0


class Writer:
    """Writes what is wished. `may_write` is asked before each request; with `dry_run` nothing is ever written.

    `problem` says why the last request failed. `backoff` is the shortest and the longest pause after failures.
    """

    def __init__(
        self,
        client: ApiClient,
        may_write: Callable[[], bool] = lambda: True,
        *,
        dry_run: bool = False,
        backoff: tuple[float, float] = (0.5, 60.0),
    ) -> None:
        self.problem: str | None = None
        self._client, self._may_write, self._dry_run, self._backoff = client, may_write, dry_run, backoff
        self._tasks: dict[str, _Task] = {}
        self._notices = notices.Notices()
        self._quiet_until = 0.0
        self._wake = asyncio.Event()

    @property
    def planned(self) -> list[str]:
        """Return what would be written, one line for each request."""
        return [f"PATCH {path} {task.wish.text}" for path, task in sorted(self._tasks.items())]

    def want(self, wishes: Iterable[Wish], complaints: Iterable[Complaint]) -> None:
        """Take all that differs now, and all that is wrong now."""
        before, self._tasks = self._tasks, {}
        for wish in wishes:
            known = before.get(wish.path)
            same = known is not None and known.wish.text == wish.text
            self._tasks[wish.path] = known if known is not None and same else _Task(wish)
        self._notices.take(complaints, time.time())
        self._wake.set()

    async def run(self) -> None:
        """Write for ever. Ends by cancellation."""
        while True:
            self._wake.clear()
            pause: float | None = None
            if not self._dry_run and (self._tasks or self._notices.next()):
                pause = await self._round() if self._may_write() else _ELECTION
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _round(self) -> float | None:
        """Write all that is due; return how long the rest can wait, None for ever."""
        for task in list(self._tasks.values()):
            if task.due <= time.monotonic() and self._tasks.get(task.wish.path) is task and self._may_write():
                await self._write(task)
        if self._quiet_until <= time.monotonic():
            await self._say()
        waits = [task.due for task in self._tasks.values()]
        waits += [self._quiet_until] if self._notices.next() else []
        return max(0.0, min(waits) - time.monotonic()) if waits else None

    async def _write(self, task: _Task) -> None:
        try:
            await self._client.patch(task.wish.path, with_times(task.wish.patch, stamp(time.time())))
        except ApiError as error:
            if error.status in {_NOT_FOUND, _CONFLICT}:
                # it is gone, or newer than what we know: the watch will say, and then the wish comes anew
                task.due = time.monotonic() + _AGAIN
                return
            self.problem = f"the status of {task.wish.about}: {error}: {error.why}"
            task.failures += 1
            task.due = time.monotonic() + self._delay(task.failures, error)
        else:
            self.problem = None
            task.failures, task.due = 0, time.monotonic() + _AGAIN

    def _delay(self, failures: int, error: ApiError) -> float:
        shortest, longest = self._backoff
        return max(min(longest, shortest * 2.0 ** min(failures - 1, 30)), error.retry_after or 0.0)

    async def _say(self) -> None:
        """Write the Events that are due; where that is refused, be quiet for a while: they are not worth a storm."""
        while (complaint := self._notices.next()) is not None and self._may_write():
            try:
                await self._event(complaint)
            except ApiError as error:
                if error.status not in {_NOT_FOUND, _FORBIDDEN, _CONFLICT} and error.status not in range(400, 429):
                    self._quiet_until = time.monotonic() + self._backoff[1]
                    self.problem = f"an Event about {complaint.about}: {error}: {error.why}"
                    return
            self._notices.done(complaint, time.time())

    async def _event(self, complaint: Complaint) -> None:
        now = time.time()
        try:
            await self._client.post(notices.path(complaint), notices.event(complaint, now))
        except ApiError as error:
            if error.status != _CONFLICT:
                raise
            where = f"{notices.path(complaint)}/{notices.name(complaint)}"
            patch = notices.repeated(await self._client.get(where), now)
            if patch is not None:
                await self._client.patch(where, patch)
