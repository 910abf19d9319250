"""Elections by a Lease of the stand-in API server: one leader at a time, also over failures."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.kubernetes.world import eventually
from tests.fakes.kube_api import KubeApi
from tests.fakes.kube_store import V1_21, V1_32

from coupler.registrator.sources.kubernetes.access import plain
from coupler.registrator.sources.kubernetes.client import ApiClient
from coupler.registrator.sources.kubernetes.credentials import Credentials
from coupler.registrator.sources.kubernetes.lease import LeaseElection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.kube_store import Personality

TTL = 2


class Candidate:
    """One who stands for election, with what it was told."""

    def __init__(self, api: KubeApi, ttl: int = TTL) -> None:
        self.client = ApiClient(Credentials(lambda: plain(api.url)), read_seconds=1.0)
        self.election = LeaseElection(self.client, "kube-system", "shop", ttl=ttl)
        self.told: list[bool] = []
        self.task = asyncio.create_task(self.election.run(self.told.append))

    @property
    def leads(self) -> bool:
        return self.election.leads

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.client.close()


@contextlib.asynccontextmanager
async def standing(api: KubeApi, number: int, ttl: int = TTL) -> AsyncIterator[list[Candidate]]:
    each = [Candidate(api, ttl) for _ in range(number)]
    try:
        yield each
    finally:
        for one in each:
            await one.stop()


def lease(api: KubeApi) -> dict[str, Any]:
    return api.objects("leases")["kube-system", "shop"]


async def leader_of(each: list[Candidate]) -> Candidate:
    await eventually(lambda: any(one.leads for one in each), "nobody leads")
    (leader,) = [one for one in each if one.leads]
    return leader


@pytest.mark.parametrize("personality", [V1_21, V1_32], ids=["1.21", "1.32"])
def test_one_leads_and_the_next_follows_when_it_resigns(personality: Personality) -> None:
    async def scenario() -> None:
        async with KubeApi(personality) as api, standing(api, 3) as each:
            for turn in range(3):
                leader = await leader_of(each)
                assert lease(api)["spec"]["holderIdentity"] == leader.election.identity
                assert lease(api)["spec"]["leaseTransitions"] == turn
                renewed = lease(api)["spec"]["renewTime"]
                await asyncio.sleep(TTL * 1.5)
                assert [one for one in each if one.leads] == [leader]
                assert lease(api)["spec"]["renewTime"] > renewed
                await leader.stop()
                assert leader.told == [True, False]
                each.remove(leader)
            assert lease(api)["spec"]["holderIdentity"] == ""

    asyncio.run(scenario())


def test_one_that_died_is_waited_for_and_then_followed() -> None:
    async def scenario() -> None:
        async with KubeApi(V1_32) as api:
            async with standing(api, 1) as (one,):
                await leader_of([one])
                one.election._held = None  # as if killed: nothing is handed back
            died = time.monotonic()
            async with standing(api, 1) as (two,):
                await leader_of([two])
                assert time.monotonic() - died >= TTL
                assert lease(api)["spec"]["leaseTransitions"] == 1

    asyncio.run(scenario())


def test_without_a_server_a_leader_stops_before_its_lease_is_over_and_stands_again_later() -> None:
    async def scenario() -> None:
        async with KubeApi(V1_32) as api, standing(api, 1) as (one,):
            await leader_of([one])
            api.down()
            since = time.monotonic()
            await eventually(lambda: not one.leads, "it leads for ever")
            assert time.monotonic() - since <= TTL
            await eventually(lambda: one.told[-1] is False, "it says nothing")
            await eventually(lambda: one.election.problem is not None, "nobody hears of it")
            await api.up()
            await leader_of([one])
            assert one.told == [True, False, True]

    asyncio.run(scenario())


def test_a_lease_that_is_taken_away_or_deleted_is_noticed() -> None:
    async def scenario() -> None:
        async with KubeApi(V1_32) as api, standing(api, 1) as (one,):
            await leader_of([one])
            taken = lease(api)
            spec = taken["spec"] | {"holderIdentity": "somebody", "leaseDurationSeconds": 1}
            api.put({**taken, "kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "spec": spec})
            await eventually(lambda: one.told == [True, False], "it goes on")
            await eventually(lambda: one.told == [True, False, True], "it does not come back")
            api.delete("leases", "shop", "kube-system")
            await eventually(lambda: one.told[-2:] == [False, True] and len(one.told) == 5, "it goes on")

    asyncio.run(scenario())


def test_a_server_that_refuses_is_named() -> None:
    async def scenario() -> None:
        async with KubeApi(V1_32, tokens=("good",)) as api, standing(api, 1) as (one,):
            await eventually(lambda: one.election.problem is not None, "nobody hears of it")
            assert "401" in (one.election.problem or "")
            assert not one.leads

    asyncio.run(scenario())
