"""The service: sources followed, balancers moved, questions answered, and a stop that leaves every route in place."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from coupler.errors import CouplerError
from coupler.registrator import systemd
from coupler.registrator.drains import Drains
from coupler.registrator.intake import Intake, News
from coupler.registrator.memory import be_frugal
from coupler.registrator.metrics import Metrics
from coupler.registrator.mover import Mover, Pace
from coupler.registrator.running import cancelled, raise_of, told_to_stop, work_until
from coupler.registrator.web import Web
from coupler.registrator.wiring import wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from coupler.registrator.leader import Election
    from coupler.registrator.settings import Settings
    from coupler.registrator.wiring import Wired

_STOP_SECONDS = 10.0
_log = logging.getLogger(__name__)


class NotSyncedError(CouplerError):
    """A plan needs every source, and one does not answer."""


class Service:
    """Everything that one registrator does, made of its settings."""

    def __init__(self, settings: Settings, *, dry_run: bool = False) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._drains = Drains(settings.state / "drains.json" if settings.state else None)
        self._wired: Wired = wire(settings, dry_run=dry_run)
        self._intake = Intake(self._wired.sources, self._tell, self._drains)
        self._movers = [
            Mover(
                each.balancer,
                may_remove=lambda: self._intake.may_remove,
                may_write=each.may_write,
                propagated=self._observer(each.balancer.name),
                pace=Pace(audit=settings.audit),
            )
            for each in self._wired.balancers
        ]
        self._metrics.watch(self._intake, self._movers)
        self._web = Web(self._intake, self._movers, self._wired.elections, self._metrics, self._drains)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises CouplerError where it cannot begin."""
        be_frugal()
        stop = told_to_stop()
        try:
            port = await self._web.listen(self._settings.listen)
            if self._settings.control:
                await self._web.control(self._settings.control)
            for each in self._wired.balancers:
                await each.prepare()
            systemd.notify("READY=1")
            _log.info("running", extra={"port": port})
            await self._work(stop)
        finally:
            systemd.notify("STOPPING=1")
            await self._close()

    async def plan(self, seconds: float) -> dict[str, list[str]]:
        """Return by balancer what would be done, in words and commands, and do nothing.

        Raises NotSyncedError where a source has not answered after `seconds`.
        """
        work = asyncio.create_task(self._intake.run())
        try:
            async with asyncio.timeout(seconds):
                while not self._intake.may_remove:
                    if work.done():
                        raise_of(work)
                    await asyncio.sleep(0.01)
            return {
                each.balancer.name: await each.balancer.plan(self._intake.desired) for each in self._wired.balancers
            }
        except TimeoutError:
            waiting = {s.name: s.problem or "no answer" for s in self._intake.states() if not s.confirmed}
            why = "; ".join(f"{name}: {problem}" for name, problem in waiting.items())
            raise NotSyncedError("what is wanted is not known", why, "is the source's address right?") from None
        finally:
            await cancelled(work)
            for each in self._wired.balancers:
                await each.balancer.close()
            await self._wired.close()

    async def _work(self, stop: asyncio.Event) -> None:
        jobs: list[Callable[[], Awaitable[None]]] = [self._intake.run, *(mover.run for mover in self._movers)]
        jobs += [systemd.watchdog, *(self._elect(election) for election in self._wired.elections)]
        await work_until(stop, jobs)

    def _elect(self, election: Election) -> Callable[[], Awaitable[None]]:
        return lambda: election.run(lambda _: self._look())

    def _look(self) -> None:
        for mover in self._movers:
            mover.look()

    def _tell(self, news: News) -> None:
        for mover in self._movers:
            mover.tell(news)

    def _observer(self, balancer: str) -> Callable[[float], None]:
        return lambda seconds: self._metrics.propagated(balancer, seconds)

    async def _close(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                for mover in self._movers:
                    await mover.finish()
                await self._wired.close()
                await self._web.close()
        _log.info("stopped; what is routed stays routed")
