"""Announcements, read from a real etcd of both APIs, through its bad days."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.contract.etcd_client.following import until

from coupler.registrator.etcd.endpoints import Access
from coupler.registrator.etcd.v2 import EtcdV2
from coupler.registrator.etcd.v3 import EtcdV3
from coupler.registrator.model import Problem, Route, State
from coupler.registrator.sources import Change, SourceError
from coupler.registrator.sources.announcements import Announcements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.contract.etcd import Etcd

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")


class Site:
    """A source on a real etcd, and somebody who announces by the same API."""

    def __init__(self, etcd: Etcd, api: int, grace: float) -> None:
        self.api = api
        access = Access((etcd.url,), request_timeout=1.0)
        self.client = EtcdV3(access) if api == 3 else EtcdV2(access)
        self.source = Announcements(self.client, grace=grace)
        self.changes: list[Change] = []

    async def put(self, key: str, value: str, ttl: int | None = None) -> None:
        if isinstance(self.client, EtcdV2):
            await self.client.set(f"/services/{key}", value.encode(), ttl=ttl)
        else:
            lease = (await self.client.grant(ttl)).id if ttl else 0
            await self.client.put(f"/services/{key}", value.encode(), lease)

    async def delete(self, key: str) -> None:
        await self.client.delete(f"/services/{key}")

    def instances(self, service: str = "shop") -> dict[str, tuple[str, int, State]]:
        backends = {backend.id: backend for backend in self.source.offer().backends}
        if service not in backends:
            return {}
        return {e.uid.rpartition("/")[2]: (e.address, e.port, e.state) for e in backends[service].endpoints}


@contextlib.asynccontextmanager
async def following(etcd: Etcd, api: int, *first: tuple[str, str], grace: float = 0.0) -> AsyncIterator[Site]:
    site = Site(etcd, api, grace)
    for key, value in first:
        await site.put(key, value)
    task = asyncio.create_task(site.source.run(site.changes.append))
    try:
        await until(lambda: site.source.synced, "nothing is read")
        yield site
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await site.client.close()


ONE, TWO = ("shop/one", "127.0.0.1:81"), ("shop/two", '{"address": "127.0.0.1", "port": 82, "state": "drain"}')


@pytest.mark.parametrize("api", [2, 3])
def test_instances_come_change_and_go(etcd: Etcd, api: int) -> None:
    async def scenario() -> None:
        async with following(etcd, api, ONE) as site:
            assert site.changes == [Change(relisted=True)]
            assert site.source.offer().routes == (Route("shop", "shop", "shop"),)
            await site.put(*TWO)
            await until(lambda: len(site.instances()) == 2, "the second instance is not seen")
            assert site.changes[-1].backends == {"shop"}
            assert not site.changes[-1].relisted
            assert site.instances()["two"] == ("127.0.0.1", 82, State.DRAIN)
            await site.put("shop/one", "127.0.0.1:91")
            await until(lambda: site.instances()["one"][1] == 91, "a new port is not seen")
            await site.delete("shop/two")
            await until(lambda: list(site.instances()) == ["one"], "who leaves is not seen")
            await site.delete("shop/one")
            await until(lambda: site.source.offer().backends == (), "the last one's leave is not seen")
            assert site.changes[-1].backends is None, "a route went with it"

    asyncio.run(scenario())


@pytest.mark.parametrize("api", [2, 3])
def test_an_announcement_that_is_not_renewed_goes(etcd: Etcd, api: int) -> None:
    async def scenario() -> None:
        async with following(etcd, api, ONE) as site:
            await site.put("shop/two", "127.0.0.1:82", ttl=1)
            await until(lambda: len(site.instances()) == 2, "the second instance is not seen")
            await until(lambda: list(site.instances()) == ["one"], "an expired announcement stays")

    asyncio.run(scenario())


@pytest.mark.parametrize("api", [2, 3])
def test_a_document_says_how_a_service_is_served_and_a_bad_one_leaves_the_last_good(etcd: Etcd, api: int) -> None:
    key = "/services/shop/.service"

    async def scenario() -> None:
        async with following(etcd, api, ONE, ("blog/one", "127.0.0.1:83")) as site:
            await site.put("shop/.service", '{"host": "www.example.org"}')
            await until(lambda: site.source.offer().routes[1].host == "www.example.org", "the document is not read")
            await site.put("shop/.service", '{"hostt": "www.example.org"}')
            await until(lambda: bool(site.source.offer().problems), "the bad document is not noticed")
            said = "there is no key 'hostt': did you mean 'host'?; the one before it still counts"
            assert site.source.offer().problems == (Problem(key, said),)
            assert [route.host for route in site.source.offer().routes] == ["blog", "www.example.org"]
            await site.put("shop/two", "nonsense")
            await until(lambda: len(site.source.offer().problems) == 2, "the bad instance is not noticed")
            assert list(site.instances()) == ["one"]
            await site.delete("shop/.service")
            await site.delete("shop/two")
            await until(lambda: not site.source.offer().problems, "problems outlive their cause")
            assert [route.host for route in site.source.offer().routes] == ["blog", "shop"]

    asyncio.run(scenario())


@pytest.mark.parametrize("api", [2, 3])
def test_while_etcd_is_away_everything_stays_and_what_is_missed_is_found(etcd: Etcd, api: int) -> None:
    async def scenario() -> None:
        async with following(etcd, api, ONE, ("shop/two", "127.0.0.1:82")) as site:
            etcd.stop()
            await until(lambda: site.source.problem is not None, "nobody notices")
            assert len(site.instances()) == 2
            with pytest.raises(SourceError):
                await site.source.confirm()
            assert len(site.instances()) == 2
            await asyncio.to_thread(etcd.start)
            await until(lambda: site.source.problem is None, "it does not come back")
            assert site.changes[-1] == Change(relisted=True)
            await site.delete("shop/two")
            await until(lambda: list(site.instances()) == ["one"], "events are not followed any more")

    asyncio.run(scenario())


@pytest.mark.parametrize("api", [2, 3])
def test_what_went_while_etcd_was_away_is_gone_afterwards(etcd: Etcd, api: int) -> None:
    async def scenario() -> None:
        async with following(etcd, api, ONE, ("shop/two", "127.0.0.1:82"), ("web/one", "127.0.0.1:83")) as site:
            etcd.stop()
            await until(lambda: site.source.problem is not None, "nobody notices")
            shutil.rmtree(etcd.folder / "data")
            await asyncio.to_thread(etcd.start)
            await site.put("shop/two", "127.0.0.1:82")
            await until(lambda: list(site.instances()) == ["two"], "who went stays for ever")
            assert not site.instances("web")

    asyncio.run(scenario())


def test_what_goes_soon_after_etcd_came_back_is_told_as_a_relist_and_confirmed_after_the_grace(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with following(etcd, 3, ONE, grace=3.0) as site:
            etcd.stop()
            await until(lambda: site.source.problem is not None, "nobody notices")
            await asyncio.to_thread(etcd.start)
            await until(lambda: site.source.problem is None, "it does not come back")
            await site.delete("shop/one")
            await until(lambda: not site.instances(), "events are not followed any more")
            assert site.changes[-1].relisted
            confirmation = asyncio.create_task(site.source.confirm())
            await asyncio.sleep(0.1)
            assert not confirmation.done(), "it is confirmed within the grace"
            await site.put(*ONE)
            await confirmation
            assert list(site.instances()) == ["one"]

    asyncio.run(scenario())


def test_history_that_was_compacted_is_read_anew(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with following(etcd, 3, ONE) as site:
            etcd.stop()
            await until(lambda: site.source.problem is not None, "nobody notices")
            await asyncio.to_thread(etcd.start)
            for n in range(5):
                await asyncio.to_thread(etcd.put, f"/services/shop/n{n}", f"127.0.0.1:{90 + n}")
            await asyncio.to_thread(etcd.ctl, "compact", "6")
            await until(lambda: len(site.instances()) == 6, "what was compacted is lost")

    asyncio.run(scenario())


def test_a_list_that_is_overtaken_by_events_does_not_undo_them(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with following(etcd, 3, ONE) as site:
            for n in range(30):
                confirmation = asyncio.create_task(site.source.confirm())
                await site.put("shop/one", f"127.0.0.1:{100 + n}")
                await confirmation
            await until(lambda: site.instances()["one"][1] == 129, "an older list has the last word")

    asyncio.run(scenario())
