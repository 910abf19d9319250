"""Who has the address: the one rule, and the loop that follows it.

An election in etcd says who may take the address. Who has it gives it up when the lease of the election is lost, when
the balancer is unfit, or at the end; first the address goes, then the lease.

When etcd gives no answer, nobody can be elected, and the lease runs out all the same. Whoever has the address then
keeps it until somebody with a better right is known: etcd answers again and names another, or another announces the
address on the network. What must not be twice is an address on one network, and there ARP reaches everybody: a machine
that etcd cannot reach and that hears its successor yields to it; one that does not hear it is on another network by
now, where it harms nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from coupler.registrator.address.arp import Claim, Wire
from coupler.registrator.address.interface import Found, Interface, InterfaceError, has_carrier
from coupler.registrator.leader import boot_clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from coupler.registrator.address.fitness import Fitness
    from coupler.registrator.address.settings import AddressSettings
    from coupler.registrator.leader import Elector

_TICK = 0.25
_REFRESH = 1.0  # between two times that the kernel is told how long the address is valid
_OUTLIVES = 1  # seconds by which the address outlives the lease without us: time to see that etcd does not answer
_KEPT_LIFE = 10  # seconds that it lives without us while it is kept
_FIRST_ANNOUNCEMENTS = 5  # that many ticks in a row; a frame may be lost, a switch may still be learning
_ANNOUNCE = 3.0  # between two later announcements; who kept the address on its own yields at the first it hears
_PROBE = 1.0
_OTHERS_FIRST = 3.0  # how long one that gave the address away leaves it to others
_log = logging.getLogger(__name__)


class Tenure(StrEnum):
    """Whether we have the address: not, by the lease of the election, or because etcd gives no answer."""

    NONE = "none"
    ELECTED = "elected"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Seen:
    """What decides. `leads`: the lease is ours. `unanswered`: it ran out, and etcd has said nothing since.

    `outranked`: somebody with a better right has the address on the network. `fit`: the balancer is.
    """

    leads: bool
    unanswered: bool
    outranked: bool
    fit: bool


def next_tenure(now: Tenure, seen: Seen) -> Tenure:
    """Return whether we should have the address.

    What is kept is kept by the unfit, too: nobody else could be elected.
    """
    if seen.leads:
        return Tenure.ELECTED if seen.fit else Tenure.NONE
    if now is not Tenure.NONE and seen.unanswered and not seen.outranked:
        return Tenure.KEPT
    return Tenure.NONE


def outranks(claim: Claim, own: bytes) -> bool:
    """Return whether to yield to a claim while nobody is known to be elected.

    Only the elected announce. Of two that keep the address on their own and ask for each other, one stays.
    """
    return claim.announced or claim.hardware < own


class Holder:
    """Stands for election while the balancer is fit, and has the address while it is elected."""

    def __init__(self, settings: AddressSettings, fitness: Fitness, elector_of: Callable[[str], Elector]) -> None:
        self._settings, self._fitness, self._elector_of = settings, fitness, elector_of
        self._place = Interface(settings.address, settings.interface)
        self._wake = asyncio.Event()
        self._home: Found | None = None
        self._elector: Elector | None = None
        self._standing: asyncio.Task[None] | None = None
        self._wire: Wire | None = None
        self.tenure = Tenure.NONE
        self._problem: str | None = None
        self._was_ready = False
        self._stand_again = 0.0
        self._outranked = False
        self._conflict: str | None = None
        self._ends = 0.0
        self._refreshed = self._announced = self._probed = self._complained = -math.inf
        self._first = 0

    def wake(self) -> None:
        """Look again now."""
        self._wake.set()

    async def run(self) -> None:
        """Have the address whenever it is ours to have, until cancelled; then give it up."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._turn()
                except InterfaceError as error:
                    await self._fail(error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK if self.tenure is not Tenure.NONE else 4 * _TICK):
                        await self._wake.wait()
        finally:
            await asyncio.shield(self.give_up())

    async def give_up(self) -> None:
        """Take the address away, and then let others be elected."""
        with contextlib.suppress(InterfaceError):  # the kernel ends it soon
            await self._release("stopped")
        await self._sit_down()

    def reasons(self) -> list[str]:
        """Return why this machine could not have the address now; nothing if it could, or has it."""
        elector = self._elector
        problem = elector.problem if elector and self.tenure is Tenure.NONE else None
        cable = "its cable is unplugged" if self._home and not has_carrier(self._home.interface) else None
        return [word for word in (self._problem, *self._fitness.lacks, cable, problem) if word]

    def state(self) -> dict[str, Any]:
        """Return what there is to know, as plain data."""
        elector = self._elector
        return {
            "address": self._settings.address,
            "interface": self._home.interface if self._home else None,
            "holds": self.tenure is not Tenure.NONE,
            "tenure": self.tenure.value,
            "stands": self._standing is not None,
            "not_ready_because": self.reasons(),
            "elected": elector.identity if elector and elector.leads else elector.rival if elector else None,
            "conflict_with": self._conflict,
            "etcd": elector.problem if elector else None,
        }

    async def _turn(self) -> None:
        if self._home is None:
            await self._place.release()  # of an earlier life
            self._home = await self._place.home()
        self._problem = None
        await self._stand_or_not()
        elector = self._elector
        if self.tenure is not Tenure.NONE and boot_clock() >= self._ends:
            await self._release("held up: the kernel has ended it")
        seen = Seen(
            leads=bool(elector and elector.leads),
            unanswered=bool(elector and elector.unanswered),
            outranked=self._outranked,
            fit=self._fitness.serving and has_carrier(self._home.interface),
        )
        before, after = self.tenure, next_tenure(self.tenure, seen)
        if after is Tenure.NONE:
            await self._release("unfit" if seen.leads else "not elected")
            if seen.leads:
                await self._sit_down()
            return
        self.tenure = after
        if after is not before:
            self._outranked = self._outranked and after is Tenure.KEPT
            self._first = _FIRST_ANNOUNCEMENTS
            _log.info("has the address", extra={"address": self._settings.address, "tenure": after.value})
        await self._have(elector)
        if after is Tenure.ELECTED:
            await self._hand_over_or_not()

    async def _stand_or_not(self) -> None:
        fitness, now = self._fitness, boot_clock()
        assert self._home is not None  # noqa: S101 -- the turn has found it
        if self._standing is not None:
            if self._standing.done():
                self._standing.result()
            if self.tenure is Tenure.NONE and not (fitness.serving and has_carrier(self._home.interface)):
                await self._sit_down()
            return
        fit = fitness.serving and has_carrier(self._home.interface) and (fitness.ready or fitness.tired_of_waiting)
        if fit and now >= self._stand_again:
            self._was_ready = False
            # Machines of one network differ by their own address, whatever they are called.
            self._elector = self._elector_of(str(self._home.at.ip))
            self._standing = asyncio.create_task(self._elector.run(lambda _: self.wake()))

    async def _sit_down(self) -> None:
        standing, self._standing = self._standing, None
        if standing is not None:
            standing.cancel()
            await asyncio.gather(standing, return_exceptions=True)
            self._stand_again = boot_clock() + _TICK

    async def _have(self, elector: Elector | None) -> None:
        assert self._home is not None  # noqa: S101 -- the turn has found it
        now = boot_clock()
        if self._wire is None:
            self._wire = Wire(self._home.interface, self._settings.address, self._heard)
        if now - self._refreshed >= _REFRESH:
            life = _KEPT_LIFE
            if elector and self.tenure is Tenure.ELECTED:
                life = math.ceil(elector.left) + _OUTLIVES
            await self._place.hold(self._home.interface, life)
            self._refreshed, self._ends = now, now + life
        if self.tenure is Tenure.ELECTED:
            if self._first > 0 or now - self._announced >= _ANNOUNCE:
                self._first, self._announced = self._first - 1, now
                self._wire.announce()
        elif now - self._probed >= _PROBE:
            self._probed = now
            self._wire.probe()

    async def _hand_over_or_not(self) -> None:
        """Give the address to one that is in step, if there is one: once, for it may come back to us."""
        self._was_ready = self._was_ready or self._fitness.ready
        if self._was_ready and self._fitness.tired_of_waiting:
            await self._release("out of step")
            await self._sit_down()
            self._stand_again = boot_clock() + _OTHERS_FIRST

    async def _release(self, why: str) -> None:
        had, self.tenure = self.tenure, Tenure.NONE
        self._refreshed = -math.inf
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        if had is not Tenure.NONE:
            self._conflict = None
            try:
                await self._place.release()
            except InterfaceError:
                self._home = None  # the next turn takes it away
                raise
            extra = {"address": self._settings.address, "why": why}
            _log.info("has given the address up", extra=extra)

    async def _fail(self, error: InterfaceError) -> None:
        if error.summary != self._problem:
            _log.error("cannot have the address", extra={"why": error.summary})
        with contextlib.suppress(InterfaceError):
            await self._release("failed")
        self._home, self._problem = None, error.summary
        await self._sit_down()

    def _heard(self, claim: Claim) -> None:
        assert self._wire is not None  # noqa: S101 -- it is the one who calls
        self._conflict = claim.name
        now = boot_clock()
        if not (self._elector and self._elector.leads):
            self._outranked = self._outranked or outranks(claim, self._wire.hardware)
            self.wake()
        elif now - self._complained >= 10 * _PROBE:  # RFC 5227, 2.4 (c): defend it, but not all the time
            self._complained = now
            self._wire.announce()
            _log.warning("somebody else has the address", extra={"hardware": claim.name})
