"""A balancer is moved at once, together, again after failures, and after another process took its place."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from coupler.registrator.balancers import Applied, BalancerError
from coupler.registrator.intake import News
from coupler.registrator.model import Backend, Desired, Host, Route
from coupler.registrator.mover import Mover, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Set

PACE = Pace(identity=0.01, audit=0.05, first_retry=0.01, longest_retry=0.04, persist_after=0.04, persist_at_most=0.2)


class Noted:
    """A balancer that writes down what it is asked for."""

    name, settle, shared = "noted", 0.0, False

    def __init__(self) -> None:
        self.asked: list[tuple[frozenset[str] | None, bool]] = []
        self.process: str | None = "1"
        self.error: BalancerError | None = None
        self.answer = Applied(1)
        self.drifted: frozenset[str] = frozenset()
        self.persisted, self.closed, self.slow = 0, False, 0.0

    async def identity(self) -> str | None:
        return self.process

    async def apply(self, desired: Desired, backends: Set[str] | None, *, remove: bool) -> Applied:
        await asyncio.sleep(self.slow)
        self.asked.append((None if backends is None else frozenset(backends), remove))
        if self.error:
            raise self.error
        return self.answer

    async def drift(self, desired: Desired) -> frozenset[str]:
        drifted, self.drifted = self.drifted, frozenset()
        return drifted

    async def plan(self, desired: Desired) -> list[str]:
        return []

    async def persist(self, desired: Desired) -> None:
        self.persisted += 1

    async def close(self) -> None:
        self.closed = True


class Gate:
    """What may be done."""

    remove, write = True, True


def live(
    scenario: Callable[[Noted, Mover, Gate], Coroutine[None, None, None]], balancer: Noted, pace: Pace = PACE
) -> None:
    async def run() -> None:
        gate = Gate()
        mover = Mover(balancer, may_remove=lambda: gate.remove, may_write=lambda: gate.write, pace=pace)
        task = asyncio.create_task(mover.run())
        await until(lambda: mover.in_step or not gate.write, "the first move is never made")
        try:
            await scenario(balancer, mover, gate)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await mover.finish()
        assert balancer.closed

    asyncio.run(run())


async def until(holds: Callable[[], bool], why: str) -> None:
    """Wait until something holds; how long does not matter."""
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.005)
    pytest.fail(why)


def news(*names: str) -> News:
    return News(Desired({name: Backend(name) for name in names}), frozenset(names))


def test_changes_during_a_move_are_applied_together_after_it() -> None:
    async def scenario(balancer: Noted, mover: Mover, gate: Gate) -> None:
        balancer.asked.clear()
        balancer.slow = 0.02
        mover.tell(news("a"))
        await asyncio.sleep(0.005)
        mover.tell(news("b"))
        mover.tell(news("c"))
        await until(lambda: len(balancer.asked) > 1, "the rest is never applied")
        await until(lambda: mover.in_step, "it is never in step")
        assert balancer.asked == [(frozenset("a"), True), (frozenset("bc"), True)]

    live(scenario, Noted())


def test_routes_and_hosts_that_change_alone_are_a_change() -> None:
    async def scenario(balancer: Noted, mover: Mover, gate: Gate) -> None:
        state = news("a").desired
        mover.tell(News(state, frozenset("a")))
        await until(lambda: mover.in_step, "it is never in step")
        for changed in (
            replace(state, routes=(Route("r", "a"),)),
            replace(state, routes=(Route("r", "a"),), hosts=(Host("a.test", hsts=1),)),
        ):
            balancer.asked.clear()
            mover.tell(News(changed, frozenset()))
            assert not mover.in_step
            await until(lambda: mover.in_step, "it is not applied")
            mover.tell(News(replace(changed), frozenset()))  # nothing is new
            await asyncio.sleep(0.02)
            assert balancer.asked == [(frozenset(), True)]
        balancer.error = BalancerError("away", "no socket")
        mover.tell(News(state, frozenset()))
        await until(lambda: mover.record.error is not None, "the error is not noted")
        balancer.error = None
        await until(lambda: mover.in_step, "it is not tried again")

    live(scenario, Noted(), replace(PACE, audit=60.0))


def test_a_balancer_that_fails_is_tried_again_and_nothing_is_forgotten() -> None:
    async def scenario(balancer: Noted, mover: Mover, gate: Gate) -> None:
        balancer.error = BalancerError("away", "no socket")
        mover.tell(news("a"))
        await until(lambda: mover.record.error is not None, "the error is not noted")
        assert mover.record.error == "away: no socket"
        assert not mover.in_step
        mover.tell(news("b"))
        balancer.error = None
        await until(lambda: mover.record.error is None, "it is not tried again")
        assert balancer.asked[-1] == (frozenset("ab"), True)
        assert mover.in_step

    live(scenario, Noted())


@pytest.mark.parametrize("answer", [Applied(0, {"a": "refused"}), Applied(0, {}, frozenset("a"))])
def test_a_backend_that_fails_or_waits_is_tried_again_with_growing_pauses(answer: Applied) -> None:
    async def scenario(balancer: Noted, mover: Mover, gate: Gate) -> None:
        balancer.asked.clear()
        balancer.answer = answer
        mover.tell(news("a", "b"))
        await until(lambda: len(balancer.asked) > 5, "it is not tried again")
        assert balancer.asked[0] == (frozenset("ab"), True)
        assert set(balancer.asked[1:]) == {(frozenset("a"), True)}
        assert mover.in_step is not bool(answer.failed)
        assert PACE.longest_retry == mover._retries["a"][1], "the pauses grow up to a bound"
        balancer.answer = Applied(1)
        await until(lambda: not mover.record.failed and not mover.record.pending, "it is tried for ever")
        done = len(balancer.asked)
        await asyncio.sleep(0.1)
        assert len(balancer.asked) == done

    live(scenario, Noted())


def test_another_process_gets_everything() -> None:
    async def scenario(balancer: Noted, mover: Mover, gate: Gate) -> None:
        assert {names for names, _ in balancer.asked} == {None}
        await asyncio.sleep(0.05)
        balancer.asked.clear()
        balancer.process = None
        await until(lambda: not mover.in_step, "it is not noticed that the process is gone")
        assert balancer.asked == []
        balancer.process = "2"
        await until(lambda: mover.in_step, "the new process is not noticed")
        assert balancer.asked == [(None, True)]

    live(scenario, Noted())


def test_leave_to_remove_moves_everything_once_more() -> None:
    async def scenario(balancer: Noted, mover: Mover, gate: Gate) -> None:
        gate.remove = False
        mover.look()
        await until(lambda: (None, False) in balancer.asked, "it is not looked at")
        balancer.asked.clear()
        gate.remove = True
        mover.look()
        await until(lambda: bool(balancer.asked), "it is not looked at again")
        assert balancer.asked == [(None, True)]

    live(scenario, Noted())


def test_who_does_not_lead_writes_nothing_and_who_leads_again_looks_at_everything() -> None:
    async def scenario(balancer: Noted, mover: Mover, gate: Gate) -> None:
        gate.write = False
        balancer.asked.clear()
        balancer.drifted = frozenset("x")
        mover.tell(news("a"))
        await asyncio.sleep(0.1)
        assert balancer.asked == []
        gate.write, balancer.drifted = True, frozenset()
        mover.look()
        await until(lambda: bool(balancer.asked), "who leads does not write")
        assert balancer.asked == [(None, True)]

    live(scenario, Noted())


def test_drift_is_applied() -> None:
    async def scenario(balancer: Noted, mover: Mover, gate: Gate) -> None:
        balancer.asked.clear()
        balancer.drifted = frozenset({"x"})
        await until(lambda: bool(balancer.asked), "drift is not applied")
        assert balancer.asked == [(frozenset({"x"}), True)]
        assert mover.record.drifted == 1

    live(scenario, Noted())


def test_what_the_next_start_needs_is_written_when_it_is_quiet() -> None:
    async def scenario(balancer: Noted, mover: Mover, gate: Gate) -> None:
        await until(lambda: balancer.persisted > 0, "it is not written")
        await asyncio.sleep(0.1)
        assert balancer.persisted == 1

        def churn() -> bool:
            mover.tell(news("a"))
            return balancer.persisted > 1

        await until(churn, "changes without a pause keep it from being written for ever")

    live(scenario, Noted(), replace(PACE, audit=60.0))  # an audit writes it too


def test_what_the_next_start_needs_is_written_at_the_end() -> None:
    balancer = Noted()

    async def scenario(balancer: Noted, mover: Mover, gate: Gate) -> None:
        assert balancer.persisted == 0

    live(scenario, balancer, replace(PACE, audit=60.0, persist_after=60.0, persist_at_most=60.0))
    assert balancer.persisted == 1
