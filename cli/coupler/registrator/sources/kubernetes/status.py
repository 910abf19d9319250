"""What the API is told: statuses that are not what they should be, and Events about objects that have a mistake.

A status is written again only where the server still shows another one. An Event is told anew after five minutes, by
counting it up. What cannot be written is tried again, and never holds up the routing.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Any

from coupler.registrator.sources.kubernetes.client import ApiError
from coupler.registrator.sources.kubernetes.objects import stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from coupler.registrator.sources.kubernetes.client import ApiClient
    from coupler.registrator.sources.kubernetes.objects import Complaint, Wish

_EVENT_AGAIN = 300.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_NOT_FOUND, _CONFLICT = 404, 409
_COMPONENT = "coupler-registrator"
_REASON = "Rejected"
_LONGEST_MESSAGE = 1000  # characters; the API takes 1024


class StatusWriter:
    """Writes beside everything else. `may_write` says whether this registrator is the one that does."""

    def __init__(
        self,
        client: ApiClient,
        *,
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._may_write, self._clock = client, may_write, clock
        self._wishes: tuple[Wish, ...] = ()
        self._complaints: tuple[Complaint, ...] = ()
        self._told: dict[Complaint, tuple[float, int]] = {}
        self._wake = asyncio.Event()
        self.problem: str | None = None

    def want(self, wishes: Iterable[Wish], complaints: Iterable[Complaint]) -> None:
        """Take what should be written from now on, in place of what was wanted before."""
        self._wishes, self._complaints = tuple(wishes), tuple(complaints)
        self._told = {complaint: told for complaint, told in self._told.items() if complaint in self._complaints}
        self._wake.set()

    async def run(self) -> None:
        """Write, for ever."""
        pause = _FIRST_PAUSE
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._may_write():
                continue
            failures = [await self._wish(wish) for wish in self._wishes]
            failures += [await self._complain(complaint) for complaint in self._complaints]
            self.problem = next((failure for failure in failures if failure), None)
            if self.problem:
                self._wake.set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                pause = _FIRST_PAUSE

    async def _wish(self, wish: Wish) -> str | None:
        return await self._tried(lambda: self._client.patch(wish.path, wish.patch))

    async def _complain(self, complaint: Complaint) -> str | None:
        now = self._clock()
        last, count = self._told.get(complaint, (float("-inf"), 0))
        if now - last < _EVENT_AGAIN:
            return None
        path, event = _event(complaint, now, count + 1)
        failure = await self._tried(lambda: self._client.post(path, event), fine=(_NOT_FOUND, _CONFLICT))
        if count or failure is None:
            again = {"count": count + 1, "lastTimestamp": stamp(now)}
            failure = await self._tried(lambda: self._client.patch(f"{path}/{event['metadata']['name']}", again))
        if failure is None:
            self._told[complaint] = now, count + 1
        return failure

    async def _tried(self, write: Callable[[], Any], fine: Sequence[int] = (_NOT_FOUND,)) -> str | None:
        try:
            await write()
        except ApiError as error:
            return None if error.status in fine else f"{error.what}: {error.why}"
        return None


def _event(complaint: Complaint, now: float, count: int) -> tuple[str, dict[str, Any]]:
    about = complaint.about
    namespace = about.namespace or "default"
    digest = hashlib.blake2b(f"{about.uid}{complaint.message}".encode(), digest_size=8).hexdigest()
    return f"/api/v1/namespaces/{namespace}/events", {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{about.name}.{digest}", "namespace": namespace},
        "involvedObject": {
            "apiVersion": about.api,
            "kind": about.kind,
            "name": about.name,
            "uid": about.uid,
            **({"namespace": about.namespace} if about.namespace else {}),
        },
        "type": "Warning",
        "reason": _REASON,
        "message": complaint.message[:_LONGEST_MESSAGE],
        "source": {"component": _COMPONENT},
        "firstTimestamp": stamp(now),
        "lastTimestamp": stamp(now),
        "count": count,
    }
