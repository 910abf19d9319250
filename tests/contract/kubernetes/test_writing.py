"""What is written back to the API server, by whom and how often; and Secrets, which may be forbidden."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from tests.contract.kubernetes.site import Json, at_work, endpoint_slice, following, ingress, made, service
from tests.contract.kubernetes.world import eventually
from tests.fakes.kube_api import KubeApi
from tests.fakes.kube_store import V1_21, V1_32, Refused
from tests.unit.registrator.kubernetes.cases import secret

from coupler.registrator.sources import Change, SourceError
from coupler.registrator.sources.kubernetes import notices
from coupler.registrator.sources.kubernetes.objects import stamp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

PUBLISHED = {"published": ("192.0.2.1",)}
SHOP = service("web"), endpoint_slice("web", "one"), ingress("web", "a.example", "web")
WRONG = ingress("wrong", "b.example", "web", read_timeout="soon")


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await scenario()

    asyncio.run(whole())


def shown(status: Json) -> list[Json]:
    found: list[Json] = (status.get("loadBalancer") or {}).get("ingress") or []
    return found


def test_one_who_may_not_write_does_not_and_begins_when_elected() -> None:
    leading: list[bool] = []

    async def scenario() -> None:
        async with following(*SHOP, WRONG, settings=PUBLISHED, may_write=lambda: bool(leading)) as site:
            await site.sees(lambda: len(site.source.writer.planned) == 2)
            assert site.writes() == []
            leading.append(True)
            await site.sees(lambda: shown(site.status("ingresses", "web")) == [{"ip": "192.0.2.1"}])
            await site.sees(lambda: len(site.events()) == 1)

    run(scenario)


def test_a_dry_run_writes_nothing_and_says_what_it_would() -> None:
    async def scenario() -> None:
        async with following(*SHOP, WRONG, settings=PUBLISHED, dry_run=True) as site:
            await site.sees(lambda: len(site.source.writer.planned) == 2)
            path = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web/status"
            patch = '{"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}'
            assert site.source.writer.planned[0] == f"PATCH {path} {patch}"
            site.api.put(service("other"))
            await asyncio.sleep(0.1)
            assert site.writes() == []

    run(scenario)


def test_a_status_is_written_once_and_again_when_somebody_clears_it() -> None:
    async def scenario() -> None:
        async with following(*SHOP, settings=PUBLISHED) as site:
            await site.sees(lambda: bool(shown(site.status("ingresses", "web"))))
            await site.sees(lambda: site.source.writer.planned == [])
            site.api.put(service("other"))
            await asyncio.sleep(0.1)
            assert len(site.writes()) == 1
            item = site.held("ingresses", "web")
            site.api.put(item | {"status": {"loadBalancer": {}}})
            await site.sees(lambda: bool(shown(site.status("ingresses", "web"))))

    run(scenario)


def test_balancers_hear_of_routes_and_of_endpoints_and_not_of_statuses() -> None:
    async def scenario() -> None:
        async with following(*SHOP, settings=PUBLISHED) as site:
            await site.sees(lambda: site.source.writer.planned == [])
            site.changes.clear()
            site.api.put(ingress("more", "b.example", "web"))
            await site.sees(lambda: bool(shown(site.status("ingresses", "more"))))
            await site.sees(lambda: site.source.writer.planned == [])
            assert site.changes == [Change()]
            site.api.put(endpoint_slice("web", "one", "two"))
            await site.sees(lambda: len(site.changes) == 2)
            assert site.changes[1] == Change(frozenset(("shop/web:80",)))
            site.changes.clear()
            await site.source.confirm()
            assert site.changes == []

    run(scenario)


def test_a_status_that_is_refused_is_tried_again() -> None:
    class Moody(KubeApi):
        """A server that fails the first writes."""

        failures = 3

        async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
            if request.method == "PATCH" and self.failures:
                self.failures -= 1
                raise Refused(500, "InternalError", "etcdserver: leader changed")
            return await super()._answer(request)

    async def scenario() -> None:
        async with Moody(V1_32) as api:
            for item in SHOP:
                api.put(item)
            async with at_work(api, PUBLISHED) as site:
                site.source.writer._backoff = (0.01, 0.1)
                await site.sees(lambda: bool(shown(site.status("ingresses", "web"))))
                assert api.failures == 0
                await site.sees(lambda: site.source.writer.problem is None)

    run(scenario)


def test_an_event_is_told_once_in_five_minutes_and_counted_also_over_a_restart() -> None:
    async def scenario() -> None:
        async with KubeApi(V1_32) as api:
            for item in (*SHOP, WRONG):
                api.put(item)
            async with at_work(api) as site:
                await site.sees(lambda: len(site.events()) == 1)
                [event] = site.events()
                assert event["involvedObject"] | {"uid": ""} == {
                    "apiVersion": "networking.k8s.io/v1",
                    "kind": "Ingress",
                    "namespace": "shop",
                    "name": "wrong",
                    "uid": "",
                }
                assert (event["type"], event["count"]) == ("Warning", 1)
                assert "coupler.io/read-timeout: 'soon' cannot be used" in event["message"]
                api.put(service("other", annotations={"coupler.io/host": "c.example"}))
                await site.sees(lambda: "c.example/" in site.routes())
            async with at_work(api) as site:
                await site.sees(lambda: any("GET" in request and "/events/" in request for request in api.requests))
                assert [event["count"] for event in site.events()] == [1]
            [event] = site.events()
            kind = {"apiVersion": "v1", "kind": "Event"}
            api.put(event | kind | {"lastTimestamp": stamp(time.time() - notices.EVERY - 1)})
            async with at_work(api) as site:
                await site.sees(lambda: [event["count"] for event in site.events()] == [2])

    run(scenario)


class Guarded(KubeApi):
    """A server that lets nobody read Secrets until it is told to."""

    guarded = True

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.guarded and "/secrets" in request.path:
            raise Refused(403, "Forbidden", 'secrets "tls" is forbidden')
        return await super()._answer(request)


def tls_secret(name: str, host: str) -> Json:
    return {"apiVersion": "v1", **secret("shop", name, host)}


def test_a_secret_that_may_not_be_read_harms_its_own_host_alone() -> None:
    async def scenario() -> None:
        async with Guarded(V1_32) as api:
            for item in (*SHOP, ingress("safe", "b.example", "web", tls="tls"), tls_secret("tls", "b.example")):
                api.put(item)
            async with at_work(api) as site:
                assert set(site.routes()) == {"a.example/", "b.example/"}
                assert site.offer.hosts == ()
                [problem] = site.offer.problems
                assert problem.subject == "Ingress shop/safe"
                assert "the API server does not let us read it" in problem.message
                assert "Secret shop/tls: " in (site.source.problem or "")
                api.guarded = False
                await site.sees(lambda: [host.name for host in site.offer.hosts] == ["b.example"])
                assert site.offer.problems == ()
                assert site.source.problem is None

    run(scenario)


def test_only_secrets_that_are_named_are_asked_for_each_by_its_name() -> None:
    async def scenario() -> None:
        named = ingress("safe", "b.example", "web", tls="tls")
        async with following(*SHOP, named, tls_secret("tls", "b.example"), tls_secret("other", "c.example")) as site:
            await site.sees(lambda: bool(site.offer.hosts))
            asked = [request for request in site.api.requests if "/secrets" in request]
            assert asked
            assert all("/secrets/tls" in request or "fieldSelector=metadata.name%3Dtls" in request for request in asked)
            site.api.delete("ingresses", "safe", "shop")
            await site.sees(lambda: not any(watch.kind.resource == "secrets" for watch in site.api.watches))

    run(scenario)


def test_nothing_is_offered_before_everything_was_read() -> None:
    async def scenario() -> None:
        async with KubeApi(V1_21) as api:  # which is listed, and not watched from the beginning
            for item in SHOP:
                api.put(item)
            api.hold_lists()
            async with at_work(api, synced=False) as site:
                await asyncio.sleep(0.1)
                assert not site.source.synced
                assert site.offer.routes == ()
                assert site.changes == []
                assert site.source.problem is not None
                api.release_lists()
                await site.sees(lambda: site.source.synced)
                assert site.routes() == {"a.example/": "shop/web:80"}
                assert site.changes[0].relisted
                await site.sees(lambda: site.source.problem is None)

    run(scenario)


def test_while_the_server_is_away_everything_stays_and_the_problem_names_what_is_old() -> None:
    async def scenario() -> None:
        async with following(*SHOP) as site:
            offer = site.offer
            site.api.down()
            await site.sees(lambda: "services: " in (site.source.problem or ""))
            assert site.offer is offer
            with pytest.raises(SourceError):
                await site.source.confirm()
            assert site.offer is offer
            await site.api.up()
            await site.sees(lambda: site.source.problem is None)
            await site.source.confirm()
            assert site.offer is offer

    run(scenario)


def test_a_pod_leaves_when_its_time_to_drain_is_over() -> None:
    pod = made("v1", "Pod", "web-1", annotations={"coupler.io/host": "a.example", "coupler.io/drain-seconds": "300ms"})
    pod |= {"spec": {"containers": [{"name": "app", "ports": [{"containerPort": 8080}]}]}}
    pod |= {"status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}}

    async def scenario() -> None:
        async with following(pod, settings={"pods": ""}) as site:
            assert list(site.endpoints("shop/web-1").values()) == ["ready"]
            site.changes.clear()
            leaving = site.held("pods", "web-1")
            leaving["metadata"] |= {"deletionTimestamp": stamp(time.time() + 31), "deletionGracePeriodSeconds": 30}
            site.api.put(leaving)
            await site.sees(lambda: list(site.endpoints("shop/web-1").values()) == ["drain"])
            await site.sees(lambda: site.endpoints("shop/web-1") == {})
            assert [change.backends for change in site.changes] == [frozenset(("shop/web-1",))] * 2

    run(scenario)


def test_only_the_namespaces_that_are_named_are_looked_at() -> None:
    async def scenario() -> None:
        other = ingress("web", "b.example", "web")
        other["metadata"]["namespace"] = "blog"
        async with following(*SHOP, other, settings={"namespaces": ("shop", "forum")}) as site:
            assert set(site.routes()) == {"a.example/"}
            await eventually(lambda: bool(site.api.requests), "nothing is asked")
            assert not any("/namespaces/blog" in request for request in site.api.requests)

    run(scenario)
