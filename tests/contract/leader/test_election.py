"""Elections in a real etcd: one leader at a time, and no write of a former one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from tests.contract.etcd_client.following import until

from coupler.registrator.etcd.election import ElectionV2, ElectionV3
from coupler.registrator.etcd.endpoints import Access
from coupler.registrator.etcd.v2 import EtcdV2
from coupler.registrator.etcd.v3 import Created, EtcdV3, Put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.contract.etcd import Etcd, EtcdCluster

KEY = "coupler/registrator/shop"
APIS = {"v2": (EtcdV2, ElectionV2), "v3": (EtcdV3, ElectionV3)}


class Candidate:
    """One who stands for election, with what it was told."""

    def __init__(self, api: str, *urls: str, ttl: int = 2) -> None:
        client, election = APIS[api]
        self.etcd = client(Access(urls, request_timeout=1.0))
        self.election = election(self.etcd, KEY, ttl=ttl)
        self.told: list[bool] = []
        self.task = asyncio.create_task(self.election.run(self.told.append))

    @property
    def leads(self) -> bool:
        return self.election.leads

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.etcd.close()


@contextlib.asynccontextmanager
async def candidates(api: str, number: int, *urls: str) -> AsyncIterator[list[Candidate]]:
    each = [Candidate(api, *urls) for _ in range(number)]
    try:
        yield each
    finally:
        for one in each:
            await one.stop()


@pytest.mark.parametrize("api", APIS)
def test_one_leads_and_the_next_follows_when_it_resigns(api: str, etcd: Etcd) -> None:
    async def scenario() -> None:
        async with candidates(api, 3, etcd.url) as each:
            for _ in range(3):
                await until(lambda: any(one.leads for one in each), "nobody leads")
                (leader,) = [one for one in each if one.leads]
                assert leader.told == [True]
                assert leader.election.fence is not None
                await asyncio.sleep(3)  # longer than the time to live: it is renewed
                assert [one for one in each if one.leads] == [leader]
                await leader.stop()
                assert leader.told == [True, False]
                assert leader.election.fence is None
                each.remove(leader)

    asyncio.run(scenario())


@pytest.mark.parametrize("api", APIS)
def test_a_leader_whose_key_is_deleted_leads_no_more(api: str, etcd: Etcd) -> None:
    async def scenario() -> None:
        async with candidates(api, 1, etcd.url) as (one,):
            await until(lambda: one.leads, "nobody leads")
            first = one.election.fence
            assert first is not None
            await one.etcd.delete(first.key)
            await until(lambda: one.told[:2] == [True, False], "it did not notice")
            await until(lambda: one.leads, "it does not stand again")
            second = one.election.fence
            assert second is not None
            assert second.created > first.created

    asyncio.run(scenario())


@pytest.mark.parametrize("api", APIS)
def test_without_etcd_a_leader_stops_before_its_lease_can_have_expired(api: str, etcd: Etcd) -> None:
    async def scenario() -> None:
        async with candidates(api, 1, etcd.url) as (one,):
            await until(lambda: one.leads, "nobody leads")
            etcd.stop()
            at = time.monotonic()
            await until(lambda: one.told == [True, False], "it goes on leading")
            assert time.monotonic() - at < 4
            assert one.election.fence is None
            await asyncio.to_thread(etcd.start)
            await until(lambda: one.leads, "it does not stand again")

    asyncio.run(scenario())


@pytest.mark.parametrize("api", APIS)
def test_a_leader_outlives_a_short_absence_of_etcd(api: str, etcd: Etcd) -> None:
    async def scenario() -> None:
        client, election = APIS[api]
        store = client(Access((etcd.url,), request_timeout=1.0))
        standing = election(store, KEY, ttl=30)
        told: list[bool] = []
        task = asyncio.create_task(standing.run(told.append))
        try:
            await until(lambda: standing.leads, "nobody leads")
            etcd.stop()
            await asyncio.to_thread(etcd.start)
            await asyncio.sleep(1)
            assert told == [True]
            assert standing.leads
            await store.delete(KEY)
            await until(lambda: told[:2] == [True, False], "it watches no more")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("api", APIS)
def test_a_leader_that_died_is_followed(api: str, etcd: Etcd) -> None:
    async def scenario() -> None:
        async with candidates(api, 1, etcd.url) as (dead,):
            await until(lambda: dead.leads, "nobody leads")
            await dead.etcd.close()
            dead.etcd.range = dead.etcd.watch = dead.etcd._http.ask = never  # type: ignore[method-assign]
            async with candidates(api, 1, etcd.url) as (next_one,):
                await until(lambda: next_one.leads, "nobody follows")
                assert not dead.leads

    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    asyncio.run(scenario())


@pytest.mark.parametrize("api", APIS)
def test_whose_time_ran_out_without_an_answer_knows_when_another_is_named(api: str, etcd: Etcd) -> None:
    async def scenario() -> None:
        async with candidates(api, 1, etcd.url) as (one,):
            await until(lambda: one.leads, "nobody leads")
            assert not one.election.unanswered
            etcd.stop()
            await until(lambda: one.election.unanswered, "it takes silence for an answer")
            await asyncio.to_thread(etcd.start)
            await until(lambda: one.leads, "it does not stand again")
            assert (one.election.unanswered, one.election.rival) == (False, None)
            async with candidates(api, 1, etcd.url) as (other,):
                await until(lambda: other.election.rival == one.election.identity, "it does not see who leads")
                assert (other.election.unanswered, other.election.left) == (False, 0.0)
                assert one.election.left > 0

    asyncio.run(scenario())


@pytest.mark.parametrize("api", APIS)
def test_an_earlier_life_does_not_stand_in_ones_way(api: str, etcd: Etcd) -> None:
    async def scenario() -> None:
        client, election = APIS[api]
        store = client(Access((etcd.url,)))
        tasks = []
        try:
            for _ in range(2):
                standing = election(store, KEY, ttl=60, identity="node-1 10.0.0.11")
                tasks.append(asyncio.create_task(standing.run(lambda _: None)))
                await until(lambda one=standing: one.leads, "it waits for itself")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store.close()

    asyncio.run(scenario())


def test_no_write_of_a_former_leader_is_taken(etcd: Etcd) -> None:
    async def scenario() -> None:
        async with candidates("v3", 1, etcd.url) as (one,):
            await until(lambda: one.leads, "nobody leads")
            fence = one.election.fence
            assert fence is not None
            condition = [Created(fence.key, fence.created)]
            assert await one.etcd.write([Put("a", b"1")], condition)
            await one.election.resign()
            await until(lambda: one.leads, "it does not stand again")
            assert not await one.etcd.write([Put("a", b"2")], condition)

    asyncio.run(scenario())


def test_without_a_quorum_nobody_leads(etcd_cluster: EtcdCluster) -> None:
    async def scenario() -> None:
        async with candidates("v3", 2, *etcd_cluster.urls) as each:
            await until(lambda: any(one.leads for one in each), "nobody leads")
            etcd_cluster.stop(0)
            await until(lambda: any(one.leads for one in each), "nobody leads with two of three members")
            etcd_cluster.stop(1)
            await until(lambda: not any(one.leads for one in each), "somebody leads without a quorum")
            etcd_cluster.start(0)
            await until(lambda: any(one.leads for one in each), "nobody leads again")
            await asyncio.sleep(1)
            assert sum(one.leads for one in each) == 1

    asyncio.run(scenario())
