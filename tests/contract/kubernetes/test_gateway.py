"""The Gateway API on the stand-in API server: what is offered, and what the conditions say."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.contract.kubernetes.site import (
    GATEWAY,
    GRANTS,
    Site,
    at_work,
    endpoint_slice,
    gateway,
    gateway_class,
    http_route,
    made,
    service,
)
from tests.fakes.kube_api import KubeApi
from tests.fakes.kube_store import GATEWAY_KINDS, V1_32, Kind

from coupler.registrator.model import TcpRoute

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

WITH_GATEWAYS = replace(V1_32, kinds=(*V1_32.kinds, *GATEWAY_KINDS, GRANTS))
FRONT = gateway_class(), gateway(), service("web"), endpoint_slice("web", "one")


def on(scenario: Callable[[Site], Awaitable[None]], *objects: Any, personality: Any = WITH_GATEWAYS) -> None:
    async def run() -> None:
        async with KubeApi(personality, bookmark_seconds=0.1) as api:
            for item in objects:
                api.put(copy.deepcopy(item))
            async with at_work(api, {"published": ("192.0.2.1",)}) as site:
                await scenario(site)

    asyncio.run(run())


def conditions(entries: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in entries}


def parents(site: Site, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.status("httproutes", name).get("parents") or []
    return found


def test_a_route_is_offered_and_everybody_is_told() -> None:
    async def scenario(site: Site) -> None:
        await site.sees(lambda: bool(parents(site, "web") and site.status("gateways", "front")))
        assert site.routes() == {"a.example/": "shop/web:80"}
        assert site.endpoints("shop/web:80") == {"one": "ready"}
        [parent] = parents(site, "web")
        assert (parent["parentRef"], parent["controllerName"]) == ({"name": "front"}, "coupler.io/registrator")
        assert conditions(parent["conditions"]) == {
            "Accepted": ("True", "Accepted"),
            "ResolvedRefs": ("True", "ResolvedRefs"),
        }
        assert all(entry["lastTransitionTime"].endswith("Z") for entry in parent["conditions"])
        status = site.status("gateways", "front")
        assert status["addresses"] == [{"type": "IPAddress", "value": "192.0.2.1"}]
        assert conditions(status["conditions"])["Programmed"] == ("True", "Programmed")
        assert [entry["attachedRoutes"] for entry in status["listeners"]] == [1]
        accepted = site.api.objects("gatewayclasses")["", "coupler"]["status"]["conditions"]
        assert conditions(accepted) == {"Accepted": ("True", "Accepted")}

    on(scenario, *FRONT, http_route("web", "a.example", "web"))


def test_a_condition_turns_when_a_service_comes_and_only_that_one_has_a_new_time() -> None:
    async def scenario(site: Site) -> None:
        def resolved() -> tuple[str, str]:
            return (
                conditions(parents(site, "web")[0]["conditions"])["ResolvedRefs"] if parents(site, "web") else ("", "")
            )

        await site.sees(lambda: resolved() == ("False", "BackendNotFound"))
        [event] = site.events() or [{}]
        accepted = parents(site, "web")[0]["conditions"][0]
        item = site.held("httproutes", "web")
        item["status"]["parents"][0]["conditions"][0]["lastTransitionTime"] = "2020-01-01T00:00:00Z"
        site.api.put(item)
        site.api.put(service("later"))
        await site.sees(lambda: resolved() == ("True", "ResolvedRefs"))
        fresh = parents(site, "web")[0]["conditions"]
        assert fresh[0] == accepted | {"lastTransitionTime": "2020-01-01T00:00:00Z"}
        assert fresh[1]["lastTransitionTime"] > "2020-01-01T00:00:00Z"
        assert event == {} or "there is no Service shop/later" in event["message"]

    on(scenario, *FRONT, http_route("web", "a.example", "later"))


def test_what_another_controller_says_stays() -> None:
    theirs = {"parentRef": {"name": "other"}, "controllerName": "example.com/other", "conditions": []}

    async def scenario(site: Site) -> None:
        await site.sees(lambda: len(parents(site, "web")) == 2)
        assert parents(site, "web")[0] == theirs
        site.api.delete("gateways", "front", "shop")
        await site.sees(lambda: parents(site, "web") == [theirs])
        assert site.routes() == {}

    on(scenario, *FRONT, http_route("web", "a.example", "web", status={"parents": [theirs]}))


def test_what_is_not_supported_is_refused_and_not_offered() -> None:
    route = http_route("web", "a.example", "web")
    route["spec"]["rules"][0]["matches"] = [{"method": "GET"}]

    async def scenario(site: Site) -> None:
        await site.sees(lambda: bool(parents(site, "web")))
        assert conditions(parents(site, "web")[0]["conditions"])["Accepted"] == ("False", "UnsupportedValue")
        assert site.offer.routes == ()
        await site.sees(lambda: bool(site.events()))
        assert "rules[0].matches[0].method is not supported" in site.events()[0]["message"]

    on(scenario, *FRONT, route)


def test_a_tcp_route_takes_the_port_of_its_listener() -> None:
    listener = {"name": "pg", "protocol": "TCP", "port": 5432}
    refs = [{"name": "web", "port": 80}]
    spec = {"parentRefs": [{"name": "front"}], "rules": [{"backendRefs": refs}]}
    route = made(f"{GATEWAY}/v1alpha2", "TCPRoute", "pg", spec=spec)

    async def scenario(site: Site) -> None:
        assert site.offer.tcp_routes == (TcpRoute("shop/pg:5432/tcp", "shop/web:80/tcp", 5432),)
        await site.sees(lambda: bool(site.status("tcproutes", "pg")))

    on(scenario, gateway_class(), gateway(listener), *FRONT[2:], route)


def test_shares_follow_the_endpoints() -> None:
    route = http_route("web", "a.example", "web", "next")
    route["spec"]["rules"][0]["backendRefs"][1]["weight"] = 3

    def weights(site: Site) -> dict[str, int]:
        [backend] = site.offer.backends
        return {endpoint.uid: endpoint.weight for endpoint in backend.endpoints}

    async def scenario(site: Site) -> None:
        assert weights(site) == {"one": 85, "two": 256}
        site.changes.clear()
        site.api.put(endpoint_slice("next", "two", "three"))
        await site.sees(lambda: weights(site) == {"one": 171, "two": 256, "three": 256})
        assert [change.backends for change in site.changes] == [frozenset(("shop/web#0",))]

    on(scenario, *FRONT, service("next"), endpoint_slice("next", "two"), route)


def test_a_server_of_before_has_its_status_written_where_it_is() -> None:
    old = Kind(f"/apis/{GATEWAY}/v1beta1", "httproutes", "HTTPRoute", status=True)
    kinds = (*V1_32.kinds, *(kind for kind in GATEWAY_KINDS if kind.name != "HTTPRoute"), old)

    async def scenario(site: Site) -> None:
        assert site.routes() == {"a.example/": "shop/web:80"}
        await site.sees(lambda: bool(parents(site, "web")))
        assert f"PATCH /apis/{GATEWAY}/v1beta1/namespaces/shop/httproutes/web/status" in site.writes()

    route = http_route("web", "a.example", "web", version="v1beta1")
    on(scenario, *FRONT, route, personality=replace(V1_32, kinds=kinds))


def test_an_api_that_is_installed_while_we_run_is_followed() -> None:
    async def scenario(site: Site) -> None:
        assert site.source.problem is None
        site.api.install(*GATEWAY_KINDS)
        for item in (gateway_class(), gateway(), http_route("web", "a.example", "web")):
            site.api.put(item)
        await site.sees(lambda: site.routes() == {"a.example/": "shop/web:80"})

    on(scenario, *FRONT[2:], personality=V1_32)
