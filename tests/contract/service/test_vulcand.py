"""The ancestor's use, `registrator run --pods URL --etcd URL`: annotated pods become keys that a vulcand follows."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.contract.certificates import certificate, get, shown
from tests.contract.etcd_client.following import until
from tests.contract.service.world import Registrator
from tests.contract.vulcand.world import SEAL_KEY, World, at, world
from tests.fakes.kube_objects import endpoint_slice, ingress, pod, secret, service
from tests.fakes.kube_thread import KubeThread
from tests.fakes.vulcand import NO_SERVERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.contract.etcd import Etcd, EtcdCluster

pytestmark = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed")


@pytest.fixture
def kubes() -> Iterator[Callable[[], KubeThread]]:
    """Start stand-in API servers; they end with the test."""
    started: list[KubeThread] = []

    def start() -> KubeThread:
        started.append(KubeThread())
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def kube(kubes: Callable[[], KubeThread]) -> KubeThread:
    """The one API server that most tests need."""
    return kubes()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Registrator]]:
    """Make registrators that are told all by their command line; they end with the test."""
    made: list[Registrator] = []

    def one(name: str, kube: KubeThread, *urls: str) -> Registrator:
        etcd = [word for url in urls for word in ("--etcd", url)]
        made.append(Registrator(tmp_path / name, words=("--pods", kube.url, *etcd)))
        return made[-1]

    yield one
    for registrator in made:
        registrator.kill()


def play(etcd: Etcd | EtcdCluster, scenario: Callable[[World], Awaitable[None]]) -> None:
    """Run a scenario in which a vulcand follows the etcd, and find that another one would start on what is left."""

    async def run() -> None:
        async with world("v3", etcd) as site:
            await scenario(site)
            await site.caught_up()
            assert not site.vulcand.refused
            await site.restart()

    asyncio.run(run())


def put(kube: KubeThread, port: int, *, name: str = "", app: str = "shop", ready: bool = True, uid: str = "") -> None:
    """Create or change a pod that asks for the host of its app; its name is its port's, unless it is given."""
    note, labels = {"coupler.io/host": f"{app}.test"}, {"app": app}
    name = name or f"{app}-{port}"
    kube.put(pod(name, "127.0.0.1", port, annotations=note, labels=labels, ready=ready, uid=uid or None))


async def routed(site: World, *ports: int, app: str = "shop") -> None:
    """Wait until requests for an app go to these ports and no others."""
    host = f"{app}.test"
    wanted = at(*ports) if ports else (NO_SERVERS, frozenset())
    try:
        await until(lambda: site.vulcand.ask("/", host) == wanted, "")
    except AssertionError:
        raise AssertionError(f"{app} is not routed to {ports}, but: {site.vulcand.ask('/', host)}") from None


async def leads(*registrators: Registrator) -> None:
    """Wait until one of these leads."""
    await until(lambda: any(one.state()["balancers"][0]["leads"] for one in registrators), "nobody leads")


def test_pods_that_are_ready_are_routed_and_others_are_not(
    etcd: Etcd, kube: KubeThread, make: Callable[..., Registrator]
) -> None:
    async def scenario(site: World) -> None:
        await site.put("backends/theirs/backend", {"Type": "http", "Settings": {}})
        put(kube, 1001)
        put(kube, 1002, ready=False)
        kube.put(pod("other", "127.0.0.1", 1003, annotations={}))
        make("registrator", kube, etcd.url).start()
        await routed(site, 1001)
        put(kube, 1002)
        await routed(site, 1001, 1002)
        put(kube, 1001, ready=False)
        await routed(site, 1002)
        kube.delete("pods", "shop-1002")
        await routed(site)
        put(kube, 1001)
        await routed(site, 1001)
        assert "backends/theirs/backend" in await site.tree()

    play(etcd, scenario)


@pytest.mark.parametrize("away", ["API server", "etcd"])
def test_while_one_side_is_away_routes_stay_and_afterwards_nothing_was_missed(
    away: str, etcd: Etcd, kube: KubeThread, make: Callable[..., Registrator]
) -> None:
    async def scenario(site: World) -> None:
        for port in (1001, 1002, 1003):
            put(kube, port)
        registrator = make("registrator", kube, etcd.url)
        registrator.start()
        await routed(site, 1001, 1002, 1003)
        before = len(site.events)
        if away == "etcd":
            etcd.stop()
        else:
            kube.do(kube.api.down)
            await until(lambda: registrator.state()["sources"][0]["problem"] is not None, "nobody notices")
        put(kube, 1004)
        kube.delete("pods", "shop-1001")
        if away == "etcd":
            seen = "shop/shop"
            await until(lambda: len(registrator.state()["backends"][seen]["endpoints"]) == 3, "the pods are not heard")
            await asyncio.to_thread(etcd.start)
        else:
            kube.do(kube.api.compact)
            kube.do(kube.api.restart)
            assert len(site.events) == before, "something was written on no word of the API server"
            kube.up()
        await routed(site, 1002, 1003, 1004)
        assert not [event for event in site.events[before:] if event[0] == "delete" and "frontends" in event[1]]

    play(etcd, scenario)


def test_a_start_without_the_api_server_leaves_what_is_routed(
    etcd: Etcd, kube: KubeThread, make: Callable[..., Registrator]
) -> None:
    async def scenario(site: World) -> None:
        put(kube, 1001)
        registrator = make("registrator", kube, etcd.url)
        registrator.start()
        await routed(site, 1001)
        registrator.stop()
        kube.do(kube.api.down)
        before = len(site.events)
        registrator.start(ready=False)
        await until(lambda: len(registrator.events("running")) == 2, "it does not start")
        await leads(registrator)
        put(kube, 1002)
        await site.caught_up()
        assert len(site.events) == before
        kube.up()
        await routed(site, 1001, 1002)

    play(etcd, scenario)


def test_when_the_leader_is_killed_the_other_takes_over(
    etcd: Etcd, kube: KubeThread, make: Callable[..., Registrator]
) -> None:
    async def scenario(site: World) -> None:
        put(kube, 1001)
        first, second = make("first", kube, etcd.url), make("second", kube, etcd.url)
        first.start()
        await routed(site, 1001)
        second.start()
        assert [one.state()["balancers"][0]["leads"] for one in (first, second)] == [True, False]
        before = len(site.events)
        first.kill()
        await leads(second)
        assert site.events[before:] == [], "what it wrote went with it"
        put(kube, 1002)
        kube.delete("pods", "shop-1001")
        await routed(site, 1002)

    play(etcd, scenario)


def test_a_leader_that_was_paused_for_longer_than_its_lease_writes_nothing(
    etcd: Etcd, kubes: Callable[[], KubeThread], make: Callable[..., Registrator]
) -> None:
    async def scenario(site: World) -> None:
        past, present = kubes(), kubes()  # what the paused one writes is told by what only its own server says
        for kube in (past, present):
            put(kube, 1001)
        first, second = make("first", past, etcd.url), make("second", present, etcd.url)
        first.start()
        await routed(site, 1001)
        second.start()
        first.pause()
        put(past, 1002)
        put(present, 1003)
        await routed(site, 1001, 1003)
        before = len(site.events)
        first.resume()
        await until(lambda: len(first.state()["backends"]["shop/shop"]["endpoints"]) == 2, "it does not go on")
        assert not first.state()["balancers"][0]["leads"]
        put(past, 1004)
        await until(lambda: len(first.state()["backends"]["shop/shop"]["endpoints"]) == 3, "it does not go on")
        await asyncio.sleep(1)  # a write of it would be seen by now
        await site.caught_up()
        assert site.events[before:] == []
        put(present, 1005)
        await routed(site, 1001, 1003, 1005)

    play(etcd, scenario)


def test_the_address_of_a_pod_that_is_gone_may_be_another_ones(
    etcd: Etcd, kube: KubeThread, make: Callable[..., Registrator]
) -> None:
    async def scenario(site: World) -> None:
        put(kube, 1001)
        put(kube, 1002)
        registrator = make("registrator", kube, etcd.url)
        registrator.start()
        await routed(site, 1001, 1002)
        # the late word: whose address it was is deleted after the next one has it
        put(kube, 1001, name="web-new", app="web")
        put(kube, 1001, name="shop-new")
        await routed(site, 1001, app="web")
        kube.delete("pods", "shop-1001")
        await until(lambda: len(registrator.state()["backends"]["shop/shop"]["endpoints"]) == 2, "it is not heard")
        await until(registrator.ready, "it is never in step")
        await routed(site, 1001, 1002)
        await routed(site, 1001, app="web")
        # a name that is used again, as by a StatefulSet
        kube.delete("pods", "shop-new")
        put(kube, 1001, name="shop-new", ready=False)
        await routed(site, 1002)
        put(kube, 1001, name="shop-new")
        await routed(site, 1001, 1002)

    play(etcd, scenario)


def test_without_a_quorum_of_etcd_routes_stay_and_afterwards_nothing_was_missed(
    etcd_cluster: EtcdCluster, kube: KubeThread, make: Callable[..., Registrator]
) -> None:
    async def scenario(site: World) -> None:
        put(kube, 1001)
        put(kube, 1002)
        registrator = make("registrator", kube, *etcd_cluster.urls)
        registrator.start()
        await routed(site, 1001, 1002)
        before = len(site.events)
        etcd_cluster.stop(1)
        etcd_cluster.stop(2)
        put(kube, 1003)
        kube.delete("pods", "shop-1001")
        await until(lambda: not registrator.state()["balancers"][0]["leads"], "it leads without a quorum")
        assert len(site.events) == before
        assert site.vulcand.ask("/", "shop.test") == at(1001, 1002)
        etcd_cluster.start(1)
        await routed(site, 1002, 1003)
        etcd_cluster.start(2)
        await asyncio.to_thread(etcd_cluster.healthy)

    play(etcd_cluster, scenario)


def test_certificates_of_secrets_are_served_renewed_and_kept_where_they_turn_bad(
    etcd: Etcd, kube: KubeThread, tmp_path: Path
) -> None:
    key = tmp_path / "seal-key"
    key.write_text(SEAL_KEY.hex())
    key.chmod(0o600)

    async def served(site: World, name: str) -> str:
        return (await asyncio.to_thread(shown, site.https_port, name)).strip()

    async def scenario(site: World) -> None:
        vulcand = {"etcd": {"endpoints": [etcd.url]}, "seal-key-file": str(key), "https-port": site.https_port}
        settings = {"sources": {"kubernetes": {"server": kube.url}}, "balancers": {"vulcand": vulcand}, "audit": 0.5}
        first, second = certificate("shop.test"), certificate("shop.test")
        note = {"coupler.io/redirect-to-ssl": "true"}

        def hosts() -> list[tuple[str, str]]:
            return [event for event in site.events if event[1].startswith("hosts/")]

        kube.put(service("shop", 80), endpoint_slice("shop-1", "shop", 1001, ("one", "127.0.0.1", "ready")))
        kube.put(ingress("shop", "shop.test", "shop", tls="shop-tls", annotations=note), secret("shop-tls", first))
        kube.put(ingress("blog", "blog.test", "shop", tls="blog-tls"), secret("blog-tls", certificate("other.test")))
        registrator = Registrator(tmp_path / "registrator", settings)
        try:
            await asyncio.to_thread(registrator.start, ready=False)
            await until(lambda: bool(site.vulcand.shows("shop.test")), "no certificate comes")
            assert await served(site, "shop.test") == first.chain.strip()
            await routed(site, 1001)
            answer = await asyncio.to_thread(get, site.http_port, "shop.test", tls=False)
            assert (answer[0], answer[1]["location"]) == (302, f"https://shop.test:{site.https_port}/")
            failed = registrator.state()["balancers"][0]["failed"]
            assert failed.keys() == {"host blog.test"}
            drifted = len(registrator.events("the balancer has drifted"))  # there may be one of the start
            kube.put(secret("shop-tls", second))
            await until(lambda: len(hosts()) == 2, "the new certificate does not come")
            assert await served(site, "shop.test") == second.chain.strip()
            bad = secret("shop-tls", first)
            bad["data"]["tls.key"] = secret("x", second)["data"]["tls.key"]
            kube.put(bad)
            await asyncio.sleep(1.5)  # audits go by
            assert await served(site, "shop.test") == second.chain.strip()
            assert len(registrator.events("the balancer has drifted")) == drifted
            assert len(hosts()) == 2, "a host is written without need"
        finally:
            registrator.kill()

    play(etcd, scenario)


def test_a_service_does_not_begin_with_a_seal_key_that_others_may_read(etcd: Etcd, tmp_path: Path) -> None:
    key = tmp_path / "seal-key"
    key.write_text(SEAL_KEY.hex())
    key.chmod(0o644)
    source = {"etcd": {"endpoints": [etcd.url]}}
    vulcand = source | {"seal-key-file": str(key)}
    registrator = Registrator(tmp_path / "r", {"sources": {"announcements": source}, "balancers": {"vulcand": vulcand}})
    registrator.start(ready=False)
    try:
        assert registrator.process is not None
        assert registrator.process.wait(timeout=30) != 0
        assert f"chmod 0600 {key}" in registrator.log.read_text()
    finally:
        registrator.kill()
