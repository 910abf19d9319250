"""Kubernetes as a source, on the stand-in API server: what objects come to, and what is written back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from tests.contract.certificates import certificate
from tests.contract.etcd_client.following import until
from tests.contract.kubernetes.world import QUICK
from tests.fakes.kube_api import PERSONALITIES, KubeApi
from tests.fakes.kube_objects import endpoint_slice, endpoints, ingress, pod, secret, service

from coupler.registrator.model import Endpoint, Host, Mode, Offer, Route, State, TcpRoute
from coupler.registrator.sources import Change, SourceError
from coupler.registrator.sources.kubernetes.access import plain
from coupler.registrator.sources.kubernetes.client import ApiClient
from coupler.registrator.sources.kubernetes.credentials import Credentials
from coupler.registrator.sources.kubernetes.settings import KubernetesSettings
from coupler.registrator.sources.kubernetes.source import Kubernetes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SHOP = (
    service("shop", 80),
    endpoint_slice("shop-a", "shop", 8080, ("one", "10.0.0.1", "ready"), ("two", "10.0.0.2", "ready")),
    ingress("shop", "shop.test", "shop"),
)


class Site:
    """A source at work on the stand-in."""

    def __init__(self, api: KubeApi, scope: KubernetesSettings) -> None:
        self.api = api
        self.client = ApiClient(Credentials(lambda: plain(api.url)))
        self.source = Kubernetes(scope, self.client, tunables=QUICK)
        self.changes: list[Change] = []

    @property
    def offer(self) -> Offer:
        return self.source.offer()

    def endpoints(self, backend: str) -> dict[str, tuple[str, int, State]]:
        found = next((entry for entry in self.offer.backends if entry.id == backend), None)
        return {e.uid: (e.address, e.port, e.state) for e in found.endpoints} if found else {}

    def weights(self) -> dict[str, int]:
        [backend] = self.offer.backends
        return {e.uid: e.weight for e in backend.endpoints}

    def events(self) -> list[str]:
        return [event["message"] for event in self.api.objects("events", api="/api/v1").values()]

    async def sees(self, holds: Any) -> None:
        await until(holds, f"it is not seen: {self.offer}")


@asynccontextmanager
async def following(*objects: Any, personality: str = "1.32", **scope: Any) -> AsyncIterator[Site]:
    async with KubeApi(PERSONALITIES[personality], bookmark_seconds=0.1) as api:
        for item in objects:
            api.put(item)
        site = Site(api, KubernetesSettings(**scope))
        task = asyncio.create_task(site.source.run(site.changes.append))
        try:
            await until(lambda: site.source.synced, "it never syncs")
            await asyncio.sleep(0.02)
            yield site
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await site.client.close()


def run(scenario: Any) -> None:
    asyncio.run(scenario())


def test_an_ingress_leads_to_the_endpoints_of_its_service() -> None:
    async def scenario() -> None:
        async with following(*SHOP) as site:
            assert site.offer.routes == (Route("shop/shop:shop.test/", "shop/shop:80", "shop.test"),)
            ready = State.READY
            assert site.endpoints("shop/shop:80") == {
                "one": ("10.0.0.1", 8080, ready),
                "two": ("10.0.0.2", 8080, ready),
            }
            assert site.offer.problems == ()
            assert all(change.relisted for change in site.changes)

    run(scenario)


def test_a_change_of_endpoints_is_told_of_its_backend_alone_with_its_own_time() -> None:
    async def scenario() -> None:
        other = (service("blog", 80), ingress("blog", "blog.test", "blog"))
        async with following(*SHOP, *other) as site:
            routes, backends = site.offer.routes, {b.id: b for b in site.offer.backends}
            states = ("one", "10.0.0.1", "terminating"), ("two", "10.0.0.2", "down"), ("new", "10.0.0.3", "ready")
            site.api.put(endpoint_slice("shop-a", "shop", 8080, *states, changed_at="2026-01-01T00:00:00Z"))
            await site.sees(lambda: len(site.endpoints("shop/shop:80")) == 3)
            assert site.changes[-1] == Change(frozenset({"shop/shop:80"}), since=1767225600.0)
            assert [state for _, _, state in site.endpoints("shop/shop:80").values()] == [
                State.READY,
                State.DRAIN,
                State.DOWN,
            ]
            assert site.offer.routes is routes
            assert {b.id: b for b in site.offer.backends}["shop/blog:80"] is backends["shop/blog:80"]

    run(scenario)


def test_an_address_that_is_used_again_and_a_late_delete_do_no_harm() -> None:
    async def scenario() -> None:
        note = {"coupler.io/host": "shop.test"}
        old, new = pod("a", "10.0.0.1", 80, annotations=note), pod("b", "10.0.0.1", 80, annotations=note)
        for item in (old, new):
            item["metadata"]["labels"] = {"app": "shop"}
        async with following(old, pods="app=shop", services=False, ingress=False, load_balancer=False) as site:
            before = set(site.endpoints("shop/shop"))
            site.api.put(new)
            await site.sees(lambda: len(site.endpoints("shop/shop")) == 2)
            site.api.delete("pods", "a", "shop")
            await site.sees(lambda: before.isdisjoint(site.endpoints("shop/shop")))
            assert [address for address, _, _ in site.endpoints("shop/shop").values()] == ["10.0.0.1"]

    run(scenario)


def test_annotated_pods_are_the_ancestors_use() -> None:
    async def scenario() -> None:
        note = {"coupler.io/host": "shop.test", "coupler.io/path": "/v2", "coupler.io/read-timeout": "5s"}
        labels = {"app": "shop"}
        pods = [pod(f"p{n}", f"10.0.0.{n}", 8080, annotations=note, labels=labels, ready=n != 2) for n in (1, 2)]
        async with following(*pods, pods="", services=False, ingress=False, load_balancer=False) as site:
            [route], [backend] = site.offer.routes, site.offer.backends
            assert (route.host, route.path, backend.policy.read_timeout) == ("shop.test", "/v2", 5.0)
            assert sorted(e.state for e in backend.endpoints) == [State.DOWN, State.READY]

    run(scenario)


def test_a_certificate_is_read_of_its_secret_and_a_bad_one_leaves_the_last_good() -> None:
    good, later = certificate("shop.test"), certificate("shop.test")

    async def scenario() -> None:
        objects = (*SHOP[:2], ingress("shop", "shop.test", "shop", tls="shop-tls"), secret("shop-tls", good))
        async with following(*objects, secret("other", later)) as site:
            await site.sees(lambda: site.offer.hosts == (Host("shop.test", good),))
            assert not [request for request in site.api.requests if "secrets" in request and "shop-tls" not in request]
            site.api.put(secret("shop-tls", later))
            await site.sees(lambda: site.offer.hosts == (Host("shop.test", later),))
            bad = secret("shop-tls", good)
            bad["data"]["tls.key"] = secret("x", later)["data"]["tls.key"]
            site.api.put(bad)
            await site.sees(lambda: bool(site.offer.problems))
            assert site.offer.hosts == (Host("shop.test", later),)
            assert "cannot be used: key values mismatch" in site.offer.problems[0].message
            await until(lambda: bool(site.events()), "no Event says so")
            assert "the certificate that it had is still in use" in site.events()[0]

    run(scenario)


def test_a_wrong_annotation_harms_its_own_object_and_an_event_says_so() -> None:
    async def scenario() -> None:
        wrong = ingress("wrong", "wrong.test", "shop", annotations={"coupler.io/canary-percent": "many"})
        async with following(*SHOP, wrong) as site:
            assert [route.host for route in site.offer.routes] == ["shop.test"]
            await until(lambda: bool(site.events()), "no Event says so")
            [message] = site.events()
            assert message.startswith("coupler.io/canary-percent: 'many' cannot be used: it is no whole number")
            site.api.put(ingress("wrong", "wrong.test", "shop"))
            await site.sees(lambda: len(site.offer.routes) == 2)
            assert site.offer.problems == ()

    run(scenario)


def test_of_two_objects_that_want_the_same_the_older_one_has_it() -> None:
    async def scenario() -> None:
        first, second = ingress("zz", "shop.test", "shop"), ingress("aa", "shop.test", "blog")
        first["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        second["metadata"]["creationTimestamp"] = "2026-01-02T00:00:00Z"
        async with following(*SHOP[:2], service("blog", 80), first, second) as site:
            assert [route.backend for route in site.offer.routes] == ["shop/shop:80"]
            [problem] = site.offer.problems
            assert problem.subject == "Ingress shop/aa"

    run(scenario)


@pytest.mark.parametrize("percent", [0, 10, 100])
def test_a_canary_takes_its_part(percent: int) -> None:
    async def scenario() -> None:
        canary = ingress("canary", "shop.test", "next", annotations={"coupler.io/canary-percent": str(percent)})
        following_slice = endpoint_slice("next-a", "next", 8080, ("new", "10.0.1.1", "ready"))
        async with following(*SHOP, service("next", 80), following_slice, canary) as site:
            weights = site.weights()
            share = weights["new"] / sum(weights.values())
            assert share == pytest.approx(percent / 100, abs=0.01)
            assert len(site.offer.routes) == 1

    run(scenario)


def test_a_load_balancer_gets_an_address_and_loses_it_with_its_type() -> None:
    async def scenario() -> None:
        db = service("db", 5432, type="LoadBalancer")
        instance = endpoint_slice("db-a", "db", 5432, ("db", "10.0.0.9", "ready"))
        async with following(db, instance, pool=("192.0.2.0/29",)) as site:

            def shown() -> Any:
                status = site.api.objects("services")[("shop", "db")].get("status") or {}
                return (status.get("loadBalancer") or {}).get("ingress")

            await until(lambda: shown() == [{"ip": "192.0.2.1"}], "the status is not set")
            assert site.offer.tcp_routes == (TcpRoute("shop/db:5432/tcp", "shop/db:5432/tcp", 5432),)
            assert site.offer.backends[0].mode is Mode.TCP
            plain = service("db", 5432) | {"status": site.api.objects("services")[("shop", "db")]["status"]}
            site.api.put(plain)
            await until(lambda: not shown(), "the status is not cleared")
            await site.sees(lambda: site.offer.tcp_routes == ())

    run(scenario)


def test_the_status_of_an_ingress_says_where_it_is_reached() -> None:
    async def scenario() -> None:
        async with following(*SHOP, published=("192.0.2.7", "lb.test")) as site:

            def shown() -> Any:
                status = site.api.objects("ingresses")[("shop", "shop")].get("status") or {}
                return (status.get("loadBalancer") or {}).get("ingress")

            await until(lambda: shown() == [{"ip": "192.0.2.7"}, {"hostname": "lb.test"}], "the status is not set")

    run(scenario)


def test_an_ingress_of_another_class_is_not_ours() -> None:
    async def scenario() -> None:
        theirs = ingress("theirs", "theirs.test", "shop", class_name="nginx")
        nobodys = ingress("nobodys", "nobodys.test", "shop", class_name=None)
        async with following(*SHOP, theirs, nobodys) as site:
            assert [route.host for route in site.offer.routes] == ["shop.test"]
            kind = {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass"}
            note = {"ingressclass.kubernetes.io/is-default-class": "true"}
            spec = {"controller": "coupler.io/registrator"}
            site.api.put(kind | {"metadata": {"name": "main", "annotations": note}, "spec": spec})
            await site.sees(lambda: [route.host for route in site.offer.routes] == ["nobodys.test", "shop.test"])

    run(scenario)


def test_a_server_without_slices_is_asked_for_endpoints() -> None:
    async def scenario() -> None:
        annotated = service("shop", 80, annotations={"coupler.io/host": "shop.test"})
        objects = (annotated, endpoints("shop", 8080, ["10.0.0.1"]))
        async with following(*objects, personality="1.2") as site:
            await site.sees(lambda: site.endpoints("shop/shop:80") == {"10.0.0.1": ("10.0.0.1", 8080, State.READY)})

    run(scenario)


def test_confirmation_reads_everything_again_and_fails_where_the_server_is_away() -> None:
    async def scenario() -> None:
        async with following(*SHOP, personality="1.21") as site:
            site.api.empty_next_list("endpointslices")
            site.api.put(service("other", 80))
            site.api.compact()
            site.api.cut()
            await site.sees(lambda: site.endpoints("shop/shop:80") == {})
            assert site.changes[-1].relisted
            await site.source.confirm()
            assert len(site.endpoints("shop/shop:80")) == 2
            site.api.down()
            with pytest.raises(SourceError):
                await site.source.confirm()
            assert len(site.endpoints("shop/shop:80")) == 2

    run(scenario)


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_events_comes_to_what_a_fresh_list_comes_to(seed: int) -> None:
    chance = Random(seed)
    pair = certificate("a.test")

    def some() -> Any:
        name = chance.choice("abc")
        states = [(f"{name}{n}", f"10.0.0.{n}", chance.choice(("ready", "down", "terminating"))) for n in range(3)]
        note = {"coupler.io/canary-percent": "20"} if chance.random() < 0.3 else {}
        host = f"{chance.choice('ab')}.test"
        return chance.choice(
            [
                service(name, 80, annotations=chance.choice([None, {"coupler.io/host": f"{name}.svc.test"}])),
                endpoint_slice(f"{name}-s", name, 8080, *states[: chance.randrange(4)]),
                ingress(name, host, chance.choice("abc"), annotations=note, tls=chance.choice([None, "tls"])),
                pod(name, "10.1.0.1", 80, annotations={"coupler.io/host": host}, labels={"app": chance.choice("xy")}),
                secret("tls", pair),
            ]
        )

    async def scenario() -> None:
        async with following(pods="") as site:
            for _ in range(60):
                item = some()
                resource = {"Ingress": "ingresses"}.get(item["kind"], f"{item['kind'].lower()}s")
                exists = ("shop", item["metadata"]["name"]) in site.api.objects(resource)
                if exists and resource != "secrets" and chance.random() < 0.3:  # the last good one would stay
                    site.api.delete(resource, item["metadata"]["name"], "shop")
                else:
                    site.api.put(item)
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.random() * 0.01)
            fresh = Site(site.api, KubernetesSettings(pods=""))
            task = asyncio.create_task(fresh.source.run(fresh.changes.append))
            await until(lambda: fresh.source.synced, "it never syncs")

            def parts(offer: Offer) -> Any:
                backends = {backend.id: backend for backend in offer.backends}
                return backends, set(offer.routes), offer.hosts, set(offer.problems)

            await until(lambda: parts(site.offer) == parts(fresh.offer), "events and list differ")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await fresh.client.close()

    run(scenario)


def test_an_endpoint_is_what_it_was_when_nothing_changed() -> None:
    async def scenario() -> None:
        async with following(*SHOP) as site:
            first: tuple[Endpoint, ...] = site.offer.backends[0].endpoints
            more = ("one", "10.0.0.1", "ready"), ("two", "10.0.0.2", "ready"), ("zzz", "10.0.0.3", "ready")
            site.api.put(endpoint_slice("shop-a", "shop", 8080, *more))
            await site.sees(lambda: len(site.endpoints("shop/shop:80")) == 3)
            assert all(old is new for old, new in zip(first, site.offer.backends[0].endpoints[:2], strict=True))

    run(scenario)
