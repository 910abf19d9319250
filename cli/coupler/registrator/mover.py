"""One balancer, kept where the desired state is.

The first change is applied at once; what comes while it is applied, or within the balancer's `settle`, is applied
together. A backend that fails is tried again with growing pauses, and so is a balancer that does not answer. Another
process behind the balancer's address means that everything is looked at anew; an audit finds what was changed behind
our back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coupler.registrator.balancers import Applied, BalancerError
from coupler.registrator.model import Desired

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coupler.registrator.balancers import Balancer
    from coupler.registrator.intake import News

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often and how soon, in seconds."""

    identity: float = 1.0
    audit: float = 60.0
    first_retry: float = 0.05
    longest_retry: float = 10.0
    persist_after: float = 2.0
    persist_at_most: float = 30.0


@dataclass(slots=True)
class Record:
    """What a mover did, for metrics and for people. Times are in seconds; `errors` counts moves that failed whole."""

    moves: int = 0
    changes: int = 0
    errors: int = 0
    drifted: int = 0
    error: str | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()
    busy: float = 0.0
    stepped: bool = False  # the last look at the balancer, or move of it, found nothing wrong


class Mover:
    """Moves one balancer. `may_write` says whether this registrator may now, where several share the balancer."""

    def __init__(
        self,
        balancer: Balancer,
        *,
        may_remove: Callable[[], bool],
        may_write: Callable[[], bool] = lambda: True,
        propagated: Callable[[float], None] = lambda _: None,
        pace: Pace | None = None,
    ) -> None:
        self.balancer = balancer
        self.record = Record()
        self._pace = pace or Pace()
        self._may_remove = may_remove
        self._may_write = may_write
        self._propagated = propagated
        self._desired = Desired()
        self._everything = True
        self._removed = False  # whether a move of everything was made with leave to remove
        self._dirty: set[str] = set()
        self._ways = False  # routes or hosts have changed, with no backend that did
        self._since: list[float] = []
        self._retries: dict[str, tuple[float, float]] = {}  # when, and after which pause
        self._identity: str | None = None
        self._wake = asyncio.Event()
        self._moving = False
        self._led = False  # whether we were the one who may write when we last looked
        self._unwritten: float | None = None  # since when
        self._changed_at = 0.0

    def tell(self, news: News) -> None:
        """Take in a new desired state."""
        self._ways = self._ways or _ways(news.desired) != _ways(self._desired)
        self._desired = news.desired
        if news.backends is None:
            self._everything = True
        else:
            self._dirty |= news.backends
        if news.since is not None:
            self._since.append(news.since)
        self._wake.set()

    def look(self) -> None:
        """Look again: what may be written or removed has changed."""
        self._wake.set()

    @property
    def leads(self) -> bool:
        """Whether this registrator is the one that may write to the balancer."""
        return self._may_write()

    @property
    def in_step(self) -> bool:
        """Whether the balancer has the desired state, as far as is known."""
        return (
            self.record.stepped
            and self._removed
            and not (self._moving or self._everything or self._dirty or self._ways)
        )

    async def run(self) -> None:
        """Move the balancer, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name=f"watch {self.balancer.name}")
            group.create_task(self._audit(), name=f"audit {self.balancer.name}")
            group.create_task(self._persist(), name=f"persist {self.balancer.name}")
            pause = self._pace.first_retry
            while True:
                await self._due()
                if await self._move():
                    pause = self._pace.first_retry
                    await asyncio.sleep(self.balancer.settle)
                else:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, self._pace.longest_retry)

    async def finish(self) -> None:
        """Write down what the balancer's next start needs, and let go; routes stay as they are."""
        try:
            if self._unwritten is not None and self.leads:
                await self.balancer.persist(self._desired)
        except BalancerError as error:
            _log.warning("what the balancer has is not written down", extra=self._about(error))
        finally:
            await self.balancer.close()

    async def _due(self) -> None:
        """Return when there is something to do."""
        while not self._work():
            self._wake.clear()
            times = [when for when, _ in self._retries.values()]
            try:
                async with asyncio.timeout(max(0.0, min(times) - time.monotonic()) if times else None):
                    await self._wake.wait()
            except TimeoutError:
                now = time.monotonic()
                self._dirty |= {name for name, (when, _) in self._retries.items() if when <= now}

    def _work(self) -> bool:
        led, self._led = self._led, self.leads
        if not self._led:
            return False
        self._everything = self._everything or not led
        due = self._everything or self._ways or bool(self._dirty) or bool(self._since)
        return due or self._may_remove() is not self._removed

    async def _move(self) -> bool:
        """Apply what is due; return whether the balancer as a whole could be moved."""
        remove = self._may_remove()
        everything = self._everything or remove is not self._removed
        names, since = frozenset(self._dirty), self._since
        desired = self._desired
        self._dirty, self._since, self._everything, self._ways = set(), [], False, False
        self._moving = True
        started = time.monotonic()
        try:
            applied = await self.balancer.apply(desired, None if everything else names, remove=remove)
        except BalancerError as error:
            self._everything = self._everything or everything
            self._dirty |= names
            self._since, self._ways = since + self._since, True
            self._stumbled(error)
            return False
        finally:
            self._moving = False
            self.record.busy += time.monotonic() - started
        if everything:
            self._removed = remove
            self._retries.clear()
        self._note(applied, names)
        now = time.time()
        for moment in since:
            self._propagated(max(0.0, now - moment))
        return True

    def _stumbled(self, error: BalancerError) -> None:
        if self.record.error is None:
            _log.error("the balancer cannot be moved", extra=self._about(error))
        self.record.errors += 1
        self.record.error = error.summary
        self.record.stepped = False

    def _note(self, applied: Applied, names: frozenset[str]) -> None:
        record = self.record
        if record.error is not None:
            _log.info("the balancer can be moved again", extra={"balancer": self.balancer.name})
        record.moves += 1
        record.changes += applied.changes
        for name, why in applied.failed.items():
            if record.failed.get(name) != why:
                _log.error("a backend fails", extra={"balancer": self.balancer.name, "backend": name, "why": why})
        now = time.monotonic()
        unfinished = applied.failed.keys() | applied.pending
        for name in unfinished:
            _, pause = self._retries.get(name, (now, self._pace.first_retry / 2))
            pause = min(2 * pause, self._pace.longest_retry)
            self._retries[name] = now + pause, pause
        for name in names - unfinished:
            self._retries.pop(name, None)
        kept = {name: why for name, why in record.failed.items() if name in self._retries}
        record.failed = {**kept, **applied.failed}
        record.pending = frozenset(self._retries.keys() - record.failed.keys())
        record.error = None
        record.stepped = not record.failed
        if applied.changes and self._unwritten is None:
            self._unwritten = now
        self._changed_at = now

    async def _watch(self) -> None:
        """Notice another process behind the balancer's address."""
        while True:
            identity = await self.balancer.identity()
            if identity != self._identity:
                self._identity = identity
                if identity is not None:
                    self._everything = True
                    self._wake.set()
                else:
                    self.record.stepped = False
            await asyncio.sleep(self._pace.identity)

    async def _audit(self) -> None:
        """Look for what changed behind our back."""
        while True:
            await asyncio.sleep(self._pace.audit)
            if self._everything or self.record.error is not None or not self.leads:
                continue
            await self._write()  # or the files would be found to have drifted
            try:
                drifted = await self.balancer.drift(self._desired)
            except BalancerError:
                continue  # the next move says so
            drifted -= self._dirty | self._retries.keys()
            if drifted:
                self.record.drifted += len(drifted)
                shown = sorted(drifted)[:10]
                _log.warning("the balancer has drifted", extra={"balancer": self.balancer.name, "backends": shown})
                self._dirty |= drifted
                self._wake.set()

    async def _persist(self) -> None:
        """Write down what the balancer's next start needs: when it is quiet, and now and then when it never is."""
        while True:
            await asyncio.sleep(self._pace.persist_after / 2)
            now = time.monotonic()
            if self._unwritten is None or not self.leads:
                continue
            if now - self._changed_at < self._pace.persist_after and now - self._unwritten < self._pace.persist_at_most:
                continue
            await self._write()

    async def _write(self) -> None:
        if self._unwritten is None or not self._removed:
            return
        self._unwritten = None
        try:
            await self.balancer.persist(self._desired)
        except BalancerError as error:
            self._unwritten = time.monotonic()
            self.record.error = error.summary
            _log.error("what the balancer has is not written down", extra=self._about(error))

    def _about(self, error: BalancerError) -> dict[str, object]:
        return {"balancer": self.balancer.name, "what": error.what, "why": error.why, "next": error.next_step}


def _ways(desired: Desired) -> tuple[object, ...]:
    """Return what leads to backends: the same objects as before where only endpoints have changed."""
    return desired.routes, desired.tcp_routes, desired.hosts
