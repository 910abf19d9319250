"""Announcements in etcd: the fleet sidekick's pattern, `/services/<name>/<instance>` with a TTL.

An instance's value is `address:port`, or JSON with `address`, `port`, `weight` and `state`. What is to be said of the
service as a whole (its host, its path, how it is treated) is the JSON document `/services/<name>/.service`. The key is
the instance's identity: who announces it again, elsewhere too, is the same instance.

When etcd was away, announcements expired that nobody could renew. So for `grace` seconds after it came back, what goes
is not believed as an event but held back as a relist, and confirmed only when the grace is over.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coupler.registrator.etcd import EtcdError
from coupler.registrator.model import Backend, ModelError, Offer, Problem
from coupler.registrator.sources import Change, SourceError
from coupler.registrator.sources.announced import Service, endpoint_of, service_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coupler.registrator.etcd import Event, Item, Store
    from coupler.registrator.model import Endpoint

DOCUMENT = ".service"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0


@dataclass(slots=True)
class _Entry:
    """What is announced of one service: instances by key, its document, what is wrong with either, by key.

    `service` is what the document means, None until it is looked at; `good` the last document that could be used.
    """

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    document: bytes = b""
    wrong: dict[str, Problem] = field(default_factory=dict)
    service: Service | None = None
    good: Service | None = None
    backend: Backend | None = None


class Announcements:
    """A source. `domain` is appended to the names of services that say no host of their own."""

    name = "announcements"

    def __init__(self, store: Store, prefix: str = "/services/", domain: str = "", *, grace: float = 15.0) -> None:
        self._store = store
        self._prefix = prefix.rstrip("/") + "/"
        self._domain = domain.strip(".")
        self._grace = grace
        self._entries: dict[str, _Entry] = {}
        self._offer = Offer()
        self._back_at = float("-inf")  # when etcd came back last
        self._revision = 0  # up to which events are in the offer
        self.synced = False
        self.problem: str | None = "not read yet"

    def offer(self) -> Offer:
        """Return what is announced now."""
        return self._offer

    async def run(self, notify: Callable[[Change], None]) -> None:
        """Read everything, follow it, and begin again where that fails, for ever."""
        pause = _FIRST_PAUSE
        while True:
            try:
                revision = await self._list()
                notify(Change(relisted=True))
                pause = _FIRST_PAUSE
                await self._follow(revision + 1, notify)
            except EtcdError as error:
                self.problem = error.summary
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def confirm(self) -> None:
        """Read everything by quorum: at once, or when the grace is over if etcd was away."""
        await asyncio.sleep(max(0.0, self._back_at + self._grace - time.monotonic()))
        try:
            await self._list()
        except EtcdError as error:
            raise SourceError("announcements cannot be read", error.what) from error

    async def _list(self) -> int:
        snapshot = await self._store.range(self._prefix)
        while self.problem is None and snapshot.revision < self._revision:  # overtaken by events meanwhile
            snapshot = await self._store.range(self._prefix)
        self._revision = snapshot.revision
        if self.synced and self.problem is not None:
            self._back_at = time.monotonic()
        former, self._entries = self._entries, {}
        for item in snapshot.items:
            self._put(item)
        for name, entry in self._entries.items():
            entry.good = former[name].good if name in former else None
        self._rebuild(self._entries)
        self.synced, self.problem = True, None
        return snapshot.revision

    async def _follow(self, revision: int, notify: Callable[[Change], None]) -> None:
        async for batch in self._store.watch(self._prefix, revision):
            if batch.revision <= self._revision:
                continue
            self._revision = batch.revision
            shapes = {name: self._shape(name) for name in {self._split(event.key)[0] for event in batch.events}}
            for event in batch.events:
                self._hear(event)
            if not shapes:
                continue
            self._rebuild(shapes)
            same = all(shape == self._shape(name) for name, shape in shapes.items())
            relisted = time.monotonic() < self._back_at + self._grace
            notify(Change(frozenset(shapes) if same else None, relisted, None if relisted else time.time()))

    def _shape(self, name: str) -> object:
        """Return what of a service is more than its endpoints."""
        entry = self._entries.get(name)
        return None if entry is None else (entry.service, tuple(entry.wrong.values()))

    def _split(self, key: str) -> tuple[str, str]:
        """Return service and instance of a key; a service's name may have slashes."""
        name, _, instance = key.removeprefix(self._prefix).rpartition("/")
        return name, instance

    def _hear(self, event: Event) -> None:
        if event.item is not None:
            self._put(event.item)
        elif event.directory:
            self._drop_below(event.key)
        else:
            self._drop(event.key)

    def _put(self, item: Item) -> None:
        name, instance = self._split(item.key)
        if not name or not instance:
            return
        entry = self._entries.setdefault(name, _Entry())
        entry.wrong.pop(item.key, None)
        if instance == DOCUMENT:
            entry.document, entry.service = item.value, None
            return
        try:
            entry.endpoints[item.key] = endpoint_of(item.key, item.value)
        except ModelError as error:
            entry.endpoints.pop(item.key, None)
            entry.wrong[item.key] = Problem(item.key, error.summary)

    def _drop_below(self, directory: str) -> None:
        below = directory.rstrip("/") + "/"
        for name, entry in list(self._entries.items()):
            for key in [*entry.endpoints, *entry.wrong, f"{self._prefix}{name}/{DOCUMENT}"]:
                if key.startswith(below):
                    self._drop(key)

    def _drop(self, key: str) -> None:
        name, instance = self._split(key)
        entry = self._entries.get(name)
        if entry is None:
            return
        entry.endpoints.pop(key, None)
        entry.wrong.pop(key, None)
        if instance == DOCUMENT:
            entry.document, entry.service = b"", None
        if not (entry.endpoints or entry.document or entry.wrong):
            del self._entries[name]

    def _rebuild(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._entries:
                self._entries[name] = self._built(name, self._entries[name])
        entries = [entry for _, entry in sorted(self._entries.items())]
        whole = [(entry.service, entry.backend) for entry in entries if entry.service and entry.backend]
        self._offer = Offer(
            tuple(backend for _, backend in whole),
            tuple(route for service, _ in whole for route in service.routes),
            tuple(route for service, _ in whole for route in service.tcp_routes),
            tuple(service.host for service, _ in whole if service.host is not None),
            tuple(problem for entry in entries for problem in entry.wrong.values()),
        )

    def _built(self, name: str, entry: _Entry) -> _Entry:
        key = f"{self._prefix}{name}/{DOCUMENT}"
        if entry.service is None:
            entry.wrong.pop(key, None)
            try:
                entry.service = entry.good = service_of(name, entry.document, self._domain)
            except ModelError as error:
                entry.service = entry.good
                kept = "; the one before it still counts" if entry.good else ""
                entry.wrong[key] = Problem(key, f"{error.summary}{kept}")
        if entry.service is not None:
            entry.backend = Backend(name, tuple(entry.endpoints.values()), entry.service.mode, entry.service.policy)
        return entry
