"""Sources → the desired state: offers are taken in, guarded against a list that lies, and merged.

A relist that takes away more than half of a backend, of the routes or of the hosts is not believed at once: the offer
before it counts until the source has read everything a second time. The first list is never believed alone: what a
balancer still has of an earlier run may go only when every source has synced and confirmed.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from coupler.registrator.drains import Drains
from coupler.registrator.merge import merge, refresh
from coupler.registrator.model import Desired, Offer
from coupler.registrator.sources import Change, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from coupler.registrator.sources import Source

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_REPORT_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class News:
    """A new desired state, and the backends that differ in it (None: any). `since` as in `Change`."""

    desired: Desired
    backends: frozenset[str] | None
    since: float | None = None


@dataclass(slots=True)
class _Entry:
    """A source and the offer of it that counts. `held` says why its newest offer does not count yet."""

    source: Source
    offer: Offer = field(default_factory=Offer)
    confirmed: bool = False
    held: str | None = None
    confirming: bool = False
    again: bool = False  # what was just heard is newer than the confirmation under way


@dataclass(frozen=True, slots=True)
class SourceState:
    """How a source stands, for people."""

    name: str
    synced: bool
    confirmed: bool
    problem: str | None
    held: str | None
    backends: int
    endpoints: int


class Intake:
    """What all sources say, in the order of their precedence. `tell` is called with each new desired state."""

    def __init__(self, sources: Sequence[Source], tell: Callable[[News], None], drains: Drains | None = None) -> None:
        self._entries = [_Entry(source) for source in sources]
        self._tell = tell
        self._drains = drains or Drains()
        self._merged = Desired()  # before the drains
        self._confirmations: set[asyncio.Task[None]] = set()
        self.desired = Desired()

    @property
    def may_remove(self) -> bool:
        """Whether what no source names may go."""
        return all(entry.confirmed for entry in self._entries)

    def states(self) -> list[SourceState]:
        """Return how the sources stand."""
        return [
            SourceState(
                entry.source.name,
                entry.source.synced,
                entry.confirmed,
                entry.source.problem,
                entry.held,
                len(entry.offer.backends),
                sum(len(backend.endpoints) for backend in entry.offer.backends),
            )
            for entry in self._entries
        ]

    async def run(self) -> None:
        """Follow every source, for ever."""
        try:
            async with asyncio.TaskGroup() as group:
                for entry in self._entries:
                    group.create_task(self._follow(entry), name=f"source {entry.source.name}")
                    group.create_task(_report(entry.source), name=f"report {entry.source.name}")
        finally:
            for task in self._confirmations:
                task.cancel()

    async def _follow(self, entry: _Entry) -> None:
        await entry.source.run(lambda change: self._hear(entry, change))

    def _hear(self, entry: _Entry, change: Change) -> None:
        fresh = entry.source.offer()
        if entry.held is not None:
            return  # what is new meanwhile is in the offer that the confirmation finds
        if change.relisted and (loss := lost(entry.offer, fresh)):
            entry.held = loss
            _log.warning("a relist is held back", extra={"source": entry.source.name, "why": loss})
            self._confirm(entry)
            return
        self._take(entry, fresh, change)
        if entry.source.synced and not entry.confirmed and not entry.confirming:
            self._confirm(entry)

    def redrain(self) -> None:
        """Look at the drains again: they have changed."""
        self._publish(self._merged, None)

    def _take(self, entry: _Entry, fresh: Offer, change: Change) -> None:
        entry.offer = fresh
        offers = [(other.source.name, other.offer) for other in self._entries]
        merged = None if change.backends is None else refresh(self._merged, offers, change.backends)
        if merged is None:
            self._publish(merge(offers), change.since)
        else:
            self._publish(merged, change.since, change.backends)

    def _publish(self, merged: Desired, since: float | None, ids: frozenset[str] | None = None) -> None:
        before, self._merged = self.desired, merged
        self.desired = self._drains.over(merged) if ids is None else self._drained(merged, ids)
        self._tell(News(self.desired, _differing(before, self.desired) if ids is None else ids, since))

    def _drained(self, merged: Desired, ids: frozenset[str]) -> Desired:
        """Return `merged` with the drains: what was drained before is carried over, only `ids` are looked at."""
        if not self._drains.names:
            return merged
        backends = {**self.desired.backends, **{id_: merged.backends[id_] for id_ in ids}}
        return self._drains.over(replace(merged, backends=MappingProxyType(backends)), ids)

    def _confirm(self, entry: _Entry) -> None:
        entry.again = True
        if not entry.confirming:
            entry.confirming = True
            task = asyncio.create_task(self._until_confirmed(entry), name=f"confirm {entry.source.name}")
            self._confirmations.add(task)
            task.add_done_callback(self._confirmations.discard)

    async def _until_confirmed(self, entry: _Entry) -> None:
        pause = _FIRST_PAUSE
        while entry.again:
            entry.again = False
            try:
                await entry.source.confirm()
            except SourceError:
                entry.again = True
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        entry.held, entry.confirming, entry.confirmed = None, False, True
        self._take(entry, entry.source.offer(), Change())


async def _report(source: Source) -> None:
    """Log when a source falls behind, and when it is up to date again."""
    known: str | None = None
    while True:
        await asyncio.sleep(_REPORT_SECONDS)
        if (source.problem is None) == (known is None):
            continue
        known = source.problem
        if known is None:
            _log.info("a source is up to date again", extra={"source": source.name})
        else:
            _log.warning(
                "a source is behind; what it said last still counts", extra={"source": source.name, "why": known}
            )


def lost(before: Offer, after: Offer) -> str | None:
    """Return what of `before` is missing in `after`, if that is more than half of a backend, the routes or hosts."""
    now = {backend.id: backend for backend in after.backends}
    for backend in before.backends:
        kept = {endpoint.uid for endpoint in now[backend.id].endpoints} if backend.id in now else set()
        if text := _mostly_gone(f"endpoints of {backend.id}", [e.uid for e in backend.endpoints], kept):
            return text
    return (
        _mostly_gone("routes", [route.id for route in before.routes], {route.id for route in after.routes})
        or _mostly_gone("TCP routes", [r.id for r in before.tcp_routes], {r.id for r in after.tcp_routes})
        or _mostly_gone("hosts", [host.name for host in before.hosts], {host.name for host in after.hosts})
    )


def _mostly_gone(what: str, before: Collection[str], after: Collection[str]) -> str | None:
    gone = sum(name not in after for name in before)
    return f"{gone} of {len(before)} {what} are missing" if 2 * gone > len(before) else None


def _differing(before: Desired, after: Desired) -> frozenset[str]:
    names: Iterable[str] = before.backends.keys() | after.backends.keys()
    return frozenset(name for name in names if before.backends.get(name) != after.backends.get(name))
