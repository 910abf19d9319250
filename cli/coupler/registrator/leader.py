"""One writer at a time: what elections have in common. etcd holds some (etcd/election.py), Kubernetes others
(sources/kubernetes/lease.py).

Time is counted by the clock that starts with the machine: it never jumps, and passes while the machine is suspended.
A leader stops before its lease can have expired: when who holds the election does not answer, it is no leader any more,
though nobody has told it so.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from coupler.errors import CouplerError

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY = 1.0
"""Seconds between two attempts, where nothing says otherwise."""


def boot_clock() -> float:
    """Return the seconds since the machine was booted, with those that it was suspended (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Fence:
    """What proves to etcd that we lead: the key, created by us at this revision (v3) or index (v2)."""

    key: str
    created: int


class Election(Protocol):
    """An election, whoever holds it: etcd, or a Lease of Kubernetes.

    `key` says which one; `problem` why the last attempt to stand for it failed.
    """

    key: str
    problem: str | None

    @property
    def leads(self) -> bool:
        """Whether nobody else can lead now."""

    @property
    def fence(self) -> Fence | None:
        """What writes to etcd are to be compared with; None where the election is not held in etcd, or is lost."""

    async def run(self, notify: Callable[[bool], None]) -> None:
        """Stand for election for ever; `notify` is called with each change of `leads`. Failures are retried within."""

    async def resign(self) -> None:
        """Lead no more, and let others lead at once."""


class Elector(ABC):
    """One who stands for election: `_tenure` leads once and returns or raises when that is over.

    `problem` says why the last attempt failed, `rival` who else was last seen to lead.
    """

    def __init__(self, key: str, ttl: int, identity: str | None) -> None:
        self.key, self.ttl = key, ttl
        self.identity = identity or uuid.uuid4().hex
        self.problem: str | None = None
        self.rival: str | None = None
        self._led = False
        self._silent = False
        self._until = 0.0
        self._created = 0

    @property
    def leads(self) -> bool:
        """Whether nobody else can lead now."""
        return self._created > 0 and boot_clock() < self._until

    @property
    def fence(self) -> Fence | None:
        """Return what our writes are compared with; None while we do not lead."""
        return Fence(self.key, self._created) if self.leads else None

    @property
    def left(self) -> float:
        """Return for how many seconds nobody else can lead, if nothing is heard any more."""
        return max(0.0, self._until - boot_clock()) if self._created else 0.0

    @property
    def unanswered(self) -> bool:
        """Whether our time has run out without an answer, and nobody has told us since that another leads."""
        return self._silent or (self._created > 0 and not self.leads)

    async def run(self, notify: Callable[[bool], None]) -> None:
        """Stand for election for ever."""
        try:
            while True:
                try:
                    self.problem = None
                    await self._tenure(notify)
                except CouplerError as error:
                    self.problem = error.summary
                finally:
                    self._lost(notify)
                await asyncio.sleep(min(RETRY, self.ttl / 3))
        finally:
            self._lost(notify)

    def _won(self, notify: Callable[[bool], None], created: int, until: float) -> None:
        self._created, self._until = created, until
        self._silent, self.rival = False, None
        if not self._led and self.leads:
            self._led = True
            notify(True)  # noqa: FBT003 - the protocol's one word

    def _beaten_by(self, rival: str) -> None:
        self._silent, self.rival = False, rival

    def _lost(self, notify: Callable[[bool], None]) -> None:
        self._silent = self.unanswered
        self._created, self._until = 0, 0.0
        if self._led:
            self._led = False
            notify(False)  # noqa: FBT003 - the protocol's one word

    async def _expired(self) -> None:
        while boot_clock() < self._until:
            await asyncio.sleep(self._until - boot_clock())

    @abstractmethod
    async def _tenure(self, notify: Callable[[bool], None]) -> None:
        """Wait until there is no leader, lead, and return or raise when that is over."""
