"""What sources say becomes the desired state; what a relist takes away is believed when it was said twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from coupler.registrator.intake import Intake, News, lost
from coupler.registrator.model import Backend, Endpoint, Host, Offer, Route, TcpRoute
from coupler.registrator.sources import Change, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def shop(*uids: str) -> Offer:
    endpoints = tuple(Endpoint(uid, "127.0.0.1", 80) for uid in uids)
    return Offer((Backend("shop", endpoints),), (Route("shop", "shop", "shop.test"),))


class Told:
    """A source that says what a test tells it. `truth` is what a second list brings; None: it cannot be had."""

    def __init__(self, name: str, offer: Offer) -> None:
        self.name, self._offer, self.truth = name, offer, offer
        self.synced, self.problem, self.confirmations, self.answers = True, None, 0, True
        self.notify: Callable[[Change], None] = lambda change: None

    def offer(self) -> Offer:
        return self._offer

    def say(self, offer: Offer, change: Change) -> None:
        self._offer = offer
        self.notify(change)

    async def run(self, notify: Callable[[Change], None]) -> None:
        self.notify = notify
        self.notify(Change(relisted=True))
        await asyncio.Event().wait()

    async def confirm(self) -> None:
        self.confirmations += 1
        await asyncio.sleep(0)
        if not self.answers:
            raise SourceError("no answer")
        self._offer = self.truth


def live(scenario: Callable[[Intake, list[News]], Coroutine[None, None, None]], *sources: Told) -> None:
    async def run() -> None:
        news: list[News] = []
        intake = Intake(sources, news.append)
        task = asyncio.create_task(intake.run())
        await asyncio.sleep(0.01)
        try:
            await scenario(intake, news)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


async def until(holds: Callable[[], bool], why: str) -> None:
    """Wait until something holds; how long does not matter."""
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.005)
    pytest.fail(why)


def uids(intake: Intake) -> list[str]:
    return [endpoint.uid for endpoint in intake.desired.backends["shop"].endpoints]


def test_nothing_may_go_before_every_source_has_synced_and_said_so_twice() -> None:
    ready, late = Told("ready", shop("a")), Told("late", Offer())
    late.synced = False

    async def scenario(intake: Intake, news: list[News]) -> None:
        assert uids(intake) == ["a"]
        assert ready.confirmations == 1
        assert not intake.may_remove
        late.synced, late.answers = True, False
        late.say(Offer(), Change(relisted=True))
        await asyncio.sleep(0.01)
        assert not intake.may_remove
        late.answers = True
        await until(lambda: intake.may_remove, "nothing may ever be removed")
        assert late.confirmations == 2

    live(scenario, ready, late)


@pytest.mark.parametrize("seen", [shop("a"), shop(), Offer()])
def test_a_relist_that_lost_more_than_half_waits_for_a_second_list(seen: Offer) -> None:
    source = Told("s", shop("a", "b", "c"))

    async def scenario(intake: Intake, news: list[News]) -> None:
        source.say(seen, Change(relisted=True))
        assert uids(intake) == ["a", "b", "c"]
        assert "are missing" in str(intake.states()[0].held)
        await asyncio.sleep(0.01)
        assert uids(intake) == ["a", "b", "c"], "the second list says that nothing is missing"
        assert intake.states()[0].held is None
        source.truth = shop()
        source.say(seen, Change(relisted=True))
        await asyncio.sleep(0.01)
        assert uids(intake) == [], "two lists agree"

    live(scenario, source)


def test_while_the_second_list_cannot_be_had_the_last_state_stays() -> None:
    source = Told("s", shop("a", "b"))

    async def scenario(intake: Intake, news: list[News]) -> None:
        source.answers = False
        source.say(Offer(), Change(relisted=True))
        source.say(shop("z"), Change(frozenset({"shop"})))
        await asyncio.sleep(0.05)
        assert uids(intake) == ["a", "b"]
        source.answers, source.truth = True, shop("z")
        await until(lambda: uids(intake) == ["z"], "the second list is not asked for again")

    live(scenario, source)


def test_events_are_believed_at_once_and_so_is_a_relist_that_lost_little() -> None:
    source = Told("s", shop("a", "b", "c"))

    async def scenario(intake: Intake, news: list[News]) -> None:
        source.say(shop("a", "b"), Change(relisted=True))
        assert uids(intake) == ["a", "b"]
        source.say(shop(), Change(frozenset({"shop"}), since=5.0))
        assert uids(intake) == []
        assert news[-1] == News(intake.desired, frozenset({"shop"}), 5.0)
        assert source.confirmations == 1

    live(scenario, source)


def test_only_what_differs_is_news() -> None:
    source = Told("s", shop("a"))

    async def scenario(intake: Intake, news: list[News]) -> None:
        other = Backend("other")
        source.say(Offer((*shop("a").backends, other)), Change())
        assert news[-1].backends == {"other"}
        source.say(shop("a"), Change())
        assert news[-1].backends == {"other"}

    live(scenario, source)


def test_losses_are_counted_for_routes_and_hosts_too() -> None:
    full = Offer(
        (Backend("b"),),
        tuple(Route(str(n), "b", path=f"/{n}") for n in range(3)),
        (TcpRoute("t", "b", 1),),
        (Host("h"),),
    )
    assert lost(full, full) is None
    assert lost(full, Offer(full.backends, full.routes[:2], full.tcp_routes, full.hosts)) is None
    assert lost(full, Offer(full.backends, full.routes[:1], full.tcp_routes, full.hosts)) == "2 of 3 routes are missing"
    assert lost(full, Offer(full.backends, full.routes, (), full.hosts)) == "1 of 1 TCP routes are missing"
    assert lost(full, Offer(full.backends, full.routes, full.tcp_routes)) == "1 of 1 hosts are missing"


def test_a_backend_that_is_missing_whole_is_a_loss_among_many() -> None:
    backends = tuple(Backend(name, (Endpoint(f"{name}-1", "127.0.0.1", 80),)) for name in ("a", "b", "c"))
    routes = tuple(Route(backend.id, backend.id, f"{backend.id}.test") for backend in backends)
    full = Offer(backends, routes)
    assert lost(full, Offer(backends[:2], routes[:2])) == "1 of 1 endpoints of c are missing"
    without = (*backends[:2], Backend("c"))
    assert lost(Offer(without, routes), Offer(backends[:2], routes[:2])) is None, "it had no endpoint to lose"
