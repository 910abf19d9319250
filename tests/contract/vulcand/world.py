"""A real etcd, the adapter that writes to it, and a fake vulcand that follows it, in either API."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web
from tests.contract.etcd_client.following import until
from tests.fakes.vulcand import NOT_FOUND, Vulcand

from coupler.registrator.balancers.vulcand.adapter import Vulcand as Adapter
from coupler.registrator.balancers.vulcand.keys import KeysV2, KeysV3
from coupler.registrator.etcd import EtcdError
from coupler.registrator.etcd.endpoints import Access
from coupler.registrator.etcd.v2 import EtcdV2
from coupler.registrator.etcd.v3 import EtcdV3
from coupler.registrator.model import Backend, Desired, Endpoint, Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from tests.contract.etcd import Etcd, EtcdCluster

APIS = ("v2", "v3")
PREFIX = "vulcand"
SEAL_KEY = bytes(range(32))


def backend(name: str, *ports: int, **more: Any) -> Backend:
    """Return a backend whose endpoints are ready, on loopback."""
    return Backend(name, tuple(Endpoint(f"{name}-{port}", "127.0.0.1", port) for port in ports), **more)


def desired(*backends: Backend, routes: Iterable[Route] | None = None, **more: Any) -> Desired:
    """Return a desired state; each backend is routed by a host of its name where no routes are given."""
    given = tuple(Route(each.id, each.id, f"{each.id}.test") for each in backends) if routes is None else tuple(routes)
    return Desired(MappingProxyType({each.id: each for each in backends}), given, **more)


def at(*ports: int) -> tuple[int, frozenset[str]]:
    """Return the answer of one of these servers."""
    return 200, frozenset(f"http://127.0.0.1:{port}" for port in ports)


class World:
    """The fake follows a real etcd by a watch of its own, and sees actions as a real vulcand sees them."""

    def __init__(self, api: str, etcd: Etcd | EtcdCluster, **options: Any) -> None:
        self.api, self.etcd = api, etcd
        access = Access((etcd.url,), request_timeout=3.0)
        self.store: Any = EtcdV2(access) if api == "v2" else EtcdV3(access)
        self.keys: Any = KeysV2(self.store, PREFIX) if api == "v2" else KeysV3(self.store, PREFIX)
        self.vulcand = Vulcand(int(api[1:]), SEAL_KEY)
        self.seen = 0
        self.events: list[tuple[str, str]] = []
        self.deaf = False
        self._options = options
        self.url = ""
        self.http_port = self.https_port = 0

    def adapter(self, **options: Any) -> Adapter:
        return Adapter(self.keys, PREFIX, **{**self._options, **options})

    async def put(self, path: str, value: object) -> int:
        """Write a key as somebody else; return the revision that it made."""
        text = value if isinstance(value, str) else json.dumps(value)
        if self.api == "v2":
            return int((await self.store.set(f"/{PREFIX}/{path}", text)).modified)
        return int(await self.store.put(f"{PREFIX}/{path}", text.encode()))

    async def delete(self, path: str) -> None:
        """Delete a key as somebody else."""
        assert await self.store.delete(f"{PREFIX}/{path}")

    async def tree(self) -> dict[str, Any]:
        """Return what is in etcd: values by path, directories of v2 that have no key with None."""
        if self.api == "v3":
            items = (await self.store.range(f"{PREFIX}/")).items
            return {item.key.removeprefix(f"{PREFIX}/"): json.loads(item.value) for item in items}
        found: dict[str, Any] = {}

        def add(node: Any) -> None:
            path = node.key.strip("/").removeprefix(PREFIX).strip("/")
            if not node.directory:
                found[path] = json.loads(node.value)
            elif not node.nodes and path.count("/") == 1:
                found[path] = None
            for inner in node.nodes:
                add(inner)

        root = (await self.store.get(f"/{PREFIX}")).node
        if root is not None:
            add(root)
        return found

    async def revision(self) -> int:
        return int((await self.store.range(f"{PREFIX}/")).revision)

    async def caught_up(self) -> None:
        """Wait until the fake has seen every write up to now."""
        now = await self.put("marker", "{}")
        await until(lambda: self.seen >= now, "the fake does not follow")

    async def ask(self, host: str, path: str = "/", **headers: str) -> tuple[int, frozenset[str]]:
        await self.caught_up()
        return self.vulcand.ask(path, host, headers)

    async def restart(self) -> None:
        """Start a vulcand on what is there; raises ExitsError if it would not."""
        tree = {path: value for path, value in (await self.tree()).items() if path != "marker"}
        fresh = Vulcand(self.vulcand.api, SEAL_KEY)
        fresh.start({path: json.dumps(v) for path, v in tree.items() if v is not None}, tree)
        assert {r: f.backend.servers for r, f in fresh.routes.items()} == {
            r: f.backend.servers for r, f in self.vulcand.routes.items()
        }
        assert set(fresh.certificates.table) == set(self.vulcand.certificates.table)

    async def _follow(self) -> None:
        revision = self.seen = await self.revision()
        while self.api == "v3":
            with contextlib.suppress(EtcdError):  # while etcd is away, a vulcand waits
                await self._watch()
            await asyncio.sleep(0.05)
        async with aiohttp.ClientSession() as session:
            while True:
                revision += 1
                url = f"{self.etcd.url}/v2/keys/{PREFIX}?wait=true&recursive=true&waitIndex={revision}"
                async with session.get(url) as answer:
                    document = await answer.json()
                node = document["node"]
                revision = node["modifiedIndex"]
                path = node["key"].removeprefix(f"/{PREFIX}").strip("/")
                self._event(document["action"], path, node.get("value"))
                self.seen = revision

    async def _watch(self) -> None:
        async for batch in self.store.watch(f"{PREFIX}/", self.seen + 1):
            for event in batch.events:
                value = event.item.value.decode() if event.item else None
                self._event("put" if event.item else "delete", event.key.removeprefix(f"{PREFIX}/"), value)
            self.seen = max(self.seen, batch.revision)

    def _event(self, action: str, path: str, value: str | None) -> None:
        if path != "marker" and not self.deaf:
            self.events.append((action, path))
            self.vulcand.event(action, path, value)

    def tls(self) -> ssl.SSLContext:
        """Return what a listener for TLS has: the certificate is chosen at each handshake."""

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
            shown = self.vulcand.shows(name)
            if not shown:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            connection.context = random.choice(shown).context
            return None

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = choose  # type: ignore[assignment]
        return context

    async def _serve(self, request: web.Request) -> web.Response:
        plain = not request.secure and request.headers.get("X-Forwarded-Proto") != "https"
        url = f"{'http' if plain else 'https'}://{request.host}{request.raw_path}"
        location = self.vulcand.location(url, request.headers)
        if location is not None:
            return web.Response(status=302, headers={"Location": location})
        status, _ = self.vulcand.ask(request.path, request.host)
        if status == NOT_FOUND:
            return web.json_response({"error": "not found"}, status=status)
        return web.Response(status=status)


@contextlib.asynccontextmanager
async def world(api: str, etcd: Etcd | EtcdCluster, **options: Any) -> AsyncIterator[World]:
    """A world with a vulcand that follows, and answers at `url`."""
    made = World(api, etcd, **options)
    app = web.Application()
    app.router.add_get("/{path:.*}", made._serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=made.tls()).start()
    made.http_port, made.https_port = (address[1] for address in runner.addresses)
    made.url = f"http://127.0.0.1:{made.http_port}"
    task = asyncio.create_task(made._follow())
    try:
        await made.caught_up()
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()
        await made.store.close()
