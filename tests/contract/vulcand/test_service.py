"""The whole service with vulcand: announcements in etcd, keys in etcd, and two registrators of which one writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.contract.etcd_client.following import until
from tests.contract.service.world import Registrator
from tests.contract.vulcand.world import APIS, at, world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.etcd import Etcd


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Registrator]]:
    """Make registrators; they end with the test."""
    made: list[Registrator] = []

    def one(name: str, settings: dict[str, object]) -> Registrator:
        made.append(Registrator(tmp_path / name, settings))
        return made[-1]

    yield one
    for registrator in made:
        registrator.kill()


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_next_registrator_goes_on_where_the_leader_ended(
    api: str, end: str, etcd: Etcd, make: Callable[..., Registrator]
) -> None:
    async def announce(store: object, port: int) -> None:
        key, value = f"/services/shop/{port}", f"127.0.0.1:{port}"
        await (store.set(key, value) if api == "v2" else store.put(key, value.encode()))

    async def scenario() -> None:
        source = {"endpoints": [etcd.url], "api": int(api[1:])}
        async with world(api, etcd) as it:
            settings = {
                "sources": {"announcements": {"etcd": source, "domain": "test"}},
                "balancers": {"vulcand": {"etcd": source, "probe": [it.url]}},
                "audit": 1.0,
            }
            await announce(it.store, 1001)
            first, second = make("first", settings), make("second", settings)
            await asyncio.to_thread(first.start)
            # ready is who knows what is wanted; it may not have been elected yet
            await until(lambda: it.vulcand.ask("/", "shop.test") == at(1001), "nobody writes")
            await asyncio.to_thread(second.start, ready=False)
            await announce(it.store, 1002)
            await until(lambda: it.vulcand.ask("/", "shop.test") == at(1001, 1002), "the leader does not write")
            await asyncio.sleep(2)  # audits, in which vulcand is asked
            assert it.vulcand.ask("/", "shop.test") == at(1001, 1002)
            assert not first.events("the balancer has drifted")
            await asyncio.to_thread(first.stop if end == "stop" else first.kill)
            await announce(it.store, 1003)
            await until(lambda: it.vulcand.ask("/", "shop.test") == at(1001, 1002, 1003), "nobody follows the leader")
            before = len(it.events)
            assert await asyncio.to_thread(second.stop) == 0
            await it.caught_up()
            assert not [event for event in it.events[before:] if event[0] == "delete"]
            assert not it.vulcand.refused
            await it.restart()

    asyncio.run(scenario())
