"""The reflector, through every bad day that a real API server was recorded to have."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.kubernetes.world import PODS, World, at_work, eventually, pod
from tests.fakes.kube_api import KubeApi
from tests.fakes.kube_store import GATEWAY_KINDS, V1_2, V1_21, V1_32, Personality

from coupler.registrator.sources.kubernetes.client import ApiError
from coupler.registrator.sources.kubernetes.reflector import Collection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Servers before 1.19 ignore a query for initial events; an extension server may do so whatever version it has.
PERSONALITIES = {
    "1.2": V1_2,
    "1.21": V1_21,
    "1.32": V1_32,
    "no-cache": replace(V1_21, watch_cache=False),
    "ignorant": replace(V1_32, watch_list="ignored"),
    "gate-closed": replace(V1_32, watch_list="refused"),
}
ROUTES = Collection("/apis/gateway.networking.k8s.io/v1", "httproutes")


@pytest.fixture(params=PERSONALITIES)
def personality(request: pytest.FixtureRequest) -> Personality:
    """Every kind of server."""
    return PERSONALITIES[request.param]


def on(
    scenario: Callable[[World], Awaitable[None]],
    personality: Personality = V1_32,
    collection: Collection = PODS,
    pods: int = 3,
    scale: float = 1.0,
    **settings: Any,
) -> None:
    """Run a scenario on a server with some pods."""

    async def run() -> None:
        async with KubeApi(personality, scale=scale) as api:
            for number in range(pods):
                api.put(pod(f"pod-{number}"))
            async with at_work(api, collection, **settings) as world:
                await scenario(world)
                assert world.kept.went_back == []

    asyncio.run(run())


def test_what_exists_is_told_at_once_and_then_what_changes(personality: Personality) -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        assert world.kept.said[0] == "replaced 20"
        await world.watches()
        world.api.put(pod("new"))
        world.api.put(pod("pod-1", phase="Failed"))
        world.api.delete("pods", "pod-2", "shop")
        await world.agrees()
        assert [word for word in world.kept.said if not word.endswith("pod-19")] == [
            "replaced 20",
            "changed new",
            "changed pod-1",
            "deleted pod-2",
        ]
        assert world.reflector.problem is None
        assert world.reflector.relists == 1

    on(scenario, personality, pods=20)


def test_initial_events_are_asked_for_only_where_they_come(personality: Personality) -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        asked = [request for request in world.api.requests if "sendInitialEvents" in request]
        listed = [request for request in world.api.requests if "limit=" in request]
        assert len(asked) == (1 if personality.version["minor"] == "32" else 0)
        assert bool(listed) == (personality.watch_list != "served")
        world.api.stall()
        world.api.put(pod("new"))
        world.api.compact()
        world.api.put(pod("newer"))
        world.api.cut()
        await world.agrees()
        assert world.reflector.relists == 2
        again = [request for request in world.api.requests if "sendInitialEvents" in request]
        assert len(again) == (2 if personality.watch_list == "served" else len(asked)), "one answer is enough"

    on(scenario, personality)


def test_selectors_are_the_servers_to_apply(personality: Personality) -> None:
    async def scenario(world: World) -> None:
        api = world.api
        api.put(pod("other", app="db"))

        def mine() -> dict[tuple[str, str], dict[str, object]]:
            return {k: v for k, v in world.expected().items() if v["metadata"]["labels"]["app"] == "web"}

        await world.agrees(mine())
        await world.watches()
        api.put(pod("pod-0", app="db"))
        await world.agrees(mine())
        assert world.kept.said[-1] == "deleted pod-0"
        api.put(pod("pod-0"))
        api.put(pod("other"))
        await world.agrees(mine())
        assert set(world.kept.objects) == {("shop", name) for name in ("pod-0", "pod-1", "pod-2", "other")}

    on(scenario, personality, replace(PODS, namespace="shop", label_selector="app in (web),tier notin (x)"))


@pytest.mark.parametrize("midline", [False, True])
def test_a_stream_that_is_cut_is_taken_up_again_where_it_was(personality: Personality, midline: bool) -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        for number in range(3):
            world.api.cut(midline=midline)
            world.api.put(pod("pod-1", podIP=f"10.0.0.{number}"))
            world.api.delete("pods", f"pod-{number}", "shop") if number == 2 else None
            await world.agrees()
            await world.watches()
        assert world.reflector.relists == 1
        assert world.reflector.errors == 3

    on(scenario, personality)


@pytest.mark.parametrize("size", [1, 3, 50])
def test_chunks_may_fall_anywhere(size: int) -> None:
    async def scenario(world: World) -> None:
        world.api.split(size)
        world.api.cut()
        for number in range(5):
            world.api.put(pod(f"né-{number}".replace("é", "e"), message="ü" * number))
        await world.agrees()

    on(scenario)


def test_a_line_may_be_longer_than_every_buffer(personality: Personality) -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        world.api.put(pod("long", message="é" * 2_000_000))
        await world.agrees()

    on(scenario, personality)


def test_a_version_that_is_too_old_means_a_list_which_tells_what_was_deleted(personality: Personality) -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        world.api.stall()
        world.api.delete("pods", "pod-1", "shop")
        world.api.put(pod("new"))
        world.api.compact()
        world.api.put(pod("newer"))
        world.api.cut()
        await world.agrees()
        assert "deleted pod-1" not in world.kept.said
        assert world.reflector.relists == 2

    on(scenario, personality)


def test_a_restarted_server_without_its_cache_is_nothing_special(personality: Personality) -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        for number in range(3):
            world.api.stall()
            world.api.put(pod(f"pod-{number}", phase="Failed"))
            world.api.delete("pods", "pod-1", "shop") if number == 2 else None
            world.api.restart()
            await world.agrees()
            await world.watches()
        assert world.reflector.problem is None

    on(scenario, personality)


def test_a_silent_stream_is_left_and_nothing_is_lost(personality: Personality) -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        world.api.stall()
        world.api.put(pod("meanwhile"))
        world.api.delete("pods", "pod-0", "shop")
        await world.agrees()
        assert world.reflector.stalls >= 1
        assert world.reflector.relists == 1

    on(scenario, personality, stall_seconds=0.2)


def test_quiet_watches_follow_one_another_without_lists_and_without_errors() -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await eventually(lambda: world.reflector.watches >= 6, "no new watch")
        world.api.put(pod("new"))
        await world.agrees()
        assert (world.reflector.relists, world.reflector.errors, world.reflector.problem) == (1, 0, None)

    on(scenario, scale=0.02, watch_seconds=(5, 10), stall_seconds=0.05)


def test_bookmarks_keep_a_quiet_collection_from_growing_old() -> None:
    async def scenario(world: World) -> None:
        world.api.bookmark_seconds = 1
        await world.agrees()
        await world.watches()
        for number in range(20):
            world.api.put(pod("pod-0", namespace="elsewhere", podIP=str(number)))
        before = world.reflector.events
        await eventually(lambda: world.reflector.events > before, "no bookmark")
        world.api.compact()
        world.api.put(pod("new"))
        world.api.cut()
        await world.agrees({k: v for k, v in world.expected().items() if k[0] == "shop"})
        assert world.reflector.relists == 1

    on(scenario, V1_32, replace(PODS, namespace="shop"), scale=0.05, stall_seconds=5.0)


@pytest.mark.parametrize("name", [name for name in PERSONALITIES if name != "1.2"])  # of 1.2 nothing was recorded
def test_a_store_that_went_back_in_time_is_noticed(name: str) -> None:
    """A watch from a version to come is silent for ever, so silence is a reason to ask."""

    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        version = world.api.store.version
        for number in range(10):
            world.api.put(pod(f"lost-{number}"))
        await world.agrees()
        world.api.rewind(version)
        await world.agrees()
        assert ("shop", "lost-1") not in world.kept.objects

    on(scenario, PERSONALITIES[name], scale=0.01, stall_seconds=0.1)


def test_a_server_that_has_too_much_to_do_is_left_alone_for_as_long_as_it_asks(personality: Personality) -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        world.api.requests.clear()
        refused: list[float] = []
        world.api.on_request = lambda _request: refused.append(time.monotonic())
        world.api.too_many(2, retry_after=0.2)
        world.api.cut()
        world.api.put(pod("new"))
        await world.agrees()
        assert refused[1] - refused[0] >= 0.2
        assert refused[2] - refused[1] >= 0.2

    on(scenario, personality)


def test_a_server_that_is_away_is_waited_for_and_the_last_state_kept(personality: Personality) -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        before = dict(world.kept.objects)
        world.api.down()
        await eventually(lambda: world.reflector.problem is not None, "the outage is not noticed")
        assert "does not answer" in str(world.reflector.problem)
        world.api.delete("pods", "pod-0", "shop")
        with pytest.raises(ApiError) as error:
            await world.reflector.relist()
        assert error.value.status == 0
        assert world.kept.objects == before
        world.api.unavailable(2)
        await world.api.up()
        await world.agrees()
        await eventually(lambda: world.reflector.problem is None, lambda: str(world.reflector.problem))

    on(scenario, personality)


def test_etcd_away_behind_the_server_changes_nothing() -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        before = dict(world.kept.objects)
        world.api.etcd_down()
        with pytest.raises(ApiError, match="does not answer"):
            await world.reflector.relist()
        assert world.kept.objects == before
        world.api.etcd_up()
        world.api.put(pod("after"))
        await world.agrees()

    on(scenario, read_seconds=1.0)


def test_a_list_whose_rest_has_expired_is_begun_again() -> None:
    async def scenario(world: World) -> None:
        expired = False

        def compact(request: str) -> None:
            nonlocal expired
            if "continue=" in request and not expired:
                expired = True
                world.api.delete("pods", sorted(world.expected())[0][1], "shop")
                world.api.compact()

        world.api.on_request = compact
        await world.agrees()
        assert expired
        assert world.kept.said[0] == "replaced 29"
        await world.watches()
        expired = False
        await world.reflector.relist()
        assert expired
        await world.agrees()

    on(scenario, V1_21, pods=30)


def test_a_list_that_lies_is_put_right_by_a_second_one(personality: Personality) -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        world.api.empty_next_list("pods")
        await world.reflector.relist()
        assert world.kept.objects == {}
        await world.reflector.relist()
        await world.agrees()
        assert not any("resourceVersion=0" in request for request in world.api.requests)
        await eventually(lambda: world.reflector.watches >= 3, "the watch does not go on from the list")
        world.api.put(pod("new"))
        await world.agrees()

    on(scenario, personality, stall_seconds=60.0)


def test_an_old_list_never_overwrites_newer_events(personality: Personality) -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        world.api.hold_lists()
        listing = asyncio.create_task(world.reflector.relist())
        await eventually(lambda: any("limit=" in r for r in world.api.requests[-1:]), "no list is asked for")
        for number in range(5):
            world.api.put(pod("pod-0", podIP=f"10.0.0.{number}"))
            await asyncio.sleep(0.01)
        world.api.delete("pods", "pod-1", "shop")
        world.api.put(pod("new"))
        await asyncio.sleep(0.05)
        world.api.release_lists()
        await listing
        await world.agrees()
        assert world.kept.went_back == []

    on(scenario, personality)


def test_an_event_that_a_list_has_overtaken_is_not_told(personality: Personality) -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        world.api.hold_lists(unread=True)
        listing = asyncio.create_task(world.reflector.relist())
        await eventually(lambda: any("limit=" in r for r in world.api.requests[-1:]), "no list is asked for")
        world.api.put(pod("pod-0", podIP="10.0.0.1"))
        await asyncio.sleep(0.05)  # it has arrived, and waits
        world.api.stall()
        world.api.put(pod("pod-0", podIP="10.0.0.2"))
        world.api.delete("pods", "pod-1", "shop")
        world.api.release_lists()
        await listing
        await world.agrees()
        assert world.kept.said[-1] == "replaced 2"

    on(scenario, personality)


def test_events_that_waited_for_a_failed_list_are_told() -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        await world.watches()
        world.api.too_many(1)
        world.api.put(pod("new"))
        with pytest.raises(ApiError) as error:
            await world.reflector.relist()
        assert (error.value.status, error.value.retry_after) == (429, 1.0)
        assert "Too many requests" in error.value.message
        await world.agrees()
        assert world.reflector.relists == 1

    on(scenario)


def test_a_kind_that_the_server_does_not_have_is_an_empty_collection_until_it_comes() -> None:
    async def scenario(world: World) -> None:
        api = world.api
        await eventually(lambda: world.reflector.synced, lambda: str(world.reflector.problem))
        assert world.kept.said == ["replaced 0"]
        assert (world.reflector.problem, world.reflector.absent) == (None, True)
        await world.reflector.relist()
        api.install(*GATEWAY_KINDS)
        api.put(
            {
                "kind": "HTTPRoute",
                "apiVersion": "gateway.networking.k8s.io/v1",
                "metadata": {"name": "web", "namespace": "shop"},
            }
        )
        await world.agrees()
        assert set(world.kept.objects) == {("shop", "web")}
        await world.watches()
        api.uninstall(*GATEWAY_KINDS)
        with pytest.raises(ApiError) as error:
            await world.reflector.relist()
        assert error.value.status == 404
        await eventually(lambda: "404" in str(world.reflector.problem), lambda: str(world.reflector.problem))
        assert world.kept.objects, "one answer is not enough to believe that a kind is gone"
        await eventually(lambda: not world.kept.objects, "a kind that is gone keeps its objects")
        assert world.reflector.problem is None

    on(scenario, V1_21, ROUTES, absent_seconds=0.3)


def test_a_server_that_is_still_starting_is_not_believed_to_lack_a_kind() -> None:
    async def scenario(world: World) -> None:
        world.api.ready = False
        await eventually(lambda: world.reflector.problem is not None and "404" in world.reflector.problem, "no 404")
        assert not world.reflector.synced
        world.api.install(*GATEWAY_KINDS)
        await eventually(lambda: world.reflector.synced, lambda: str(world.reflector.problem))

    async def run() -> None:
        async with KubeApi(V1_21) as api:
            api.ready = False
            async with at_work(api, ROUTES) as world:
                await scenario(world)

    asyncio.run(run())


def test_a_right_that_is_missing_is_named() -> None:
    async def scenario(world: World) -> None:
        await world.agrees()
        world.api.powerless.add("")
        world.api.cut()
        await eventually(lambda: "403" in str(world.reflector.problem), lambda: str(world.reflector.problem))
        assert 'cannot watch resource "pods"' in str(world.reflector.problem)
        assert world.kept.objects
        world.api.powerless.clear()
        world.api.put(pod("new"))
        await world.agrees()

    on(scenario)


def test_a_cancelled_reflector_leaves_no_connection() -> None:
    async def run() -> None:
        async with KubeApi(V1_32) as api:
            async with at_work(api) as world:
                await world.watches()
            await eventually(lambda: not api.watches, "the watch is still there")

    asyncio.run(run())


def test_what_a_trim_leaves_out_is_never_told() -> None:
    async def scenario(world: World) -> None:
        await eventually(lambda: world.reflector.synced, "no list")
        await world.watches()
        world.api.put(pod("new"))
        await eventually(lambda: len(world.kept.objects) == 4, "no event")
        assert all(set(item) == {"metadata"} for item in world.kept.objects.values())

    for personality in (V1_21, V1_32):
        on(scenario, personality, trim=lambda item: {"metadata": item["metadata"]})


class Weather:
    """Writes and bad days, as chance has them."""

    def __init__(self, world: World, chance: Random) -> None:
        self.world, self.api, self.chance = world, world.api, chance

    async def happen(self) -> None:
        dice = self.chance.random()
        if dice < 0.6:
            self._write()
        elif dice < 0.9:
            self._bad_moment()
        elif dice < 0.95:
            await self._outage()
        else:
            await self._relist()
        if self.chance.random() < 0.4:
            await asyncio.sleep(self.chance.random() * 0.01)

    def _write(self) -> None:
        name = f"pod-{self.chance.randrange(12)}"
        if self.chance.random() < 0.3 and ("shop", name) in self.world.expected():
            self.api.delete("pods", name, "shop")
        else:
            address = f"10.0.0.{self.chance.randrange(250)}"
            self.api.put(pod(name, app=self.chance.choice(["web", "db"]), podIP=address))

    def _bad_moment(self) -> None:
        chance = self.chance
        moments: list[Callable[[], None]] = [
            lambda: self.api.cut(midline=chance.random() < 0.5),
            self.api.stall,
            self.api.compact,
            self.api.restart,
            lambda: self.api.split(chance.choice([0, 0, 1, 17])),
            lambda: self.api.too_many(chance.randrange(1, 4), retry_after=0.01),
            lambda: self.api.unavailable(1),
        ]
        chance.choice(moments)()

    async def _outage(self) -> None:
        self.api.down(quietly=self.chance.random() < 0.3)
        for _ in range(self.chance.randrange(4)):
            self._write()
        await asyncio.sleep(self.chance.random() * 0.03)
        await self.api.up()

    async def _relist(self) -> None:
        try:
            await self.world.reflector.relist()
        except ApiError:
            self._write()


@pytest.mark.parametrize("seed", range(24))
def test_whatever_happens_the_listener_holds_what_the_server_holds(seed: int) -> None:
    chance = Random(seed)
    collection = chance.choice([PODS, replace(PODS, label_selector="app=web")])

    async def scenario(world: World) -> None:
        weather = Weather(world, chance)
        for _ in range(120):
            await weather.happen()
        await world.agrees(
            {
                key: item
                for key, item in world.expected().items()
                if collection is PODS or item["metadata"]["labels"]["app"] == "web"
            }
        )

    on(
        scenario,
        list(PERSONALITIES.values())[seed % len(PERSONALITIES)],
        collection,
        pods=chance.randrange(20),
        scale=0.01,
        stall_seconds=0.1,
        initial_seconds=0.1,
        watch_seconds=(5, 30),
        random=Random(seed),
    )
