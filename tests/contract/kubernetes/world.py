"""A reflector at work on the fake API server, and a listener that remembers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from coupler.registrator.sources.kubernetes.access import plain
from coupler.registrator.sources.kubernetes.client import ApiClient
from coupler.registrator.sources.kubernetes.credentials import Credentials
from coupler.registrator.sources.kubernetes.reflector import Collection, Reflector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from tests.fakes.kube_api import KubeApi

DEADLINE = 20.0
PODS = Collection("/api/v1", "pods")
QUICK: dict[str, Any] = {
    "stall_seconds": 3.0,
    "initial_seconds": 1.0,
    "page_size": 7,
    "backoff": (0.005, 0.05),
    "absent_seconds": 0.1,
}

Key = tuple[str, str]


def key_of(item: dict[str, Any]) -> Key:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def bare(item: dict[str, Any]) -> dict[str, Any]:
    """Return an object without what only events say of it."""
    return {key: value for key, value in item.items() if key not in {"kind", "apiVersion"}}


class Kept:
    """A listener that keeps everything, and finds fault with an object that goes back in time."""

    def __init__(self) -> None:
        self.objects: dict[Key, dict[str, Any]] = {}
        self.said: list[str] = []
        self.went_back: list[str] = []

    def replaced(self, objects: Iterable[dict[str, Any]]) -> None:
        listed = {key_of(item): bare(item) for item in objects}
        for key, item in listed.items():
            self._compare(key, item)
        self.objects = listed
        self.said.append(f"replaced {len(listed)}")

    def changed(self, item: dict[str, Any]) -> None:
        self._compare(key_of(item), item)
        self.objects[key_of(item)] = bare(item)
        self.said.append(f"changed {key_of(item)[1]}")

    def deleted(self, item: dict[str, Any]) -> None:
        held = self.objects.get(key_of(item))
        if held is not None and held["metadata"]["uid"] == item["metadata"]["uid"]:
            del self.objects[key_of(item)]
        self.said.append(f"deleted {key_of(item)[1]}")

    def _compare(self, key: Key, item: dict[str, Any]) -> None:
        """The fake's versions are numbers; a reflector may not know that, but a test may."""
        held = self.objects.get(key)
        if held is not None and int(held["metadata"]["resourceVersion"]) > int(item["metadata"]["resourceVersion"]):
            self.went_back.append(f"{key}: {held['metadata']['resourceVersion']} before {item['metadata']}")


async def eventually(what: Callable[[], bool], why: Callable[[], str] | str) -> None:
    """Wait until `what` holds; fail with `why` at the deadline."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not what():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(why if isinstance(why, str) else why()) from None


def pod(name: str, namespace: str = "shop", app: str = "web", **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": {"app": app}, "annotations": {"city": "Łódź — 東京"}}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "status": {"phase": "Running"} | status}


class World:
    """A reflector that runs, what it said, and the server that it talks to."""

    def __init__(self, api: KubeApi, client: ApiClient, collection: Collection, **settings: Any) -> None:
        self.api, self.client, self.kept = api, client, Kept()
        self.reflector = Reflector(client, collection, self.kept, **(QUICK | settings))

    def expected(self) -> dict[Key, dict[str, Any]]:
        return dict(self.api.objects(self.reflector.collection.resource))

    async def agrees(self, expected: dict[Key, dict[str, Any]] | None = None) -> None:
        """Wait until the listener holds what the server holds."""
        await eventually(
            lambda: self.reflector.synced and self.kept.objects == (self.expected() if expected is None else expected),
            lambda: f"{self.reflector.problem}: has {sorted(self.kept.objects)}, wants {sorted(self.expected())}",
        )
        assert self.kept.went_back == []

    async def watches(self) -> None:
        """Wait until there is a watch that works."""
        await eventually(
            lambda: any(not watch.stalled for watch in self.api.watches), lambda: str(self.reflector.problem)
        )


@asynccontextmanager
async def at_work(
    api: KubeApi, collection: Collection = PODS, read_seconds: float = 10.0, **settings: Any
) -> AsyncIterator[World]:
    """Let a reflector run on `api`."""
    client = ApiClient(Credentials(lambda: plain(api.url)), connect_seconds=5.0, read_seconds=read_seconds)
    world = World(api, client, collection, **settings)
    running = asyncio.create_task(world.reflector.run())
    try:
        yield world
        assert not running.done(), running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await client.close()
