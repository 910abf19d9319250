"""The fake API server, held to what real ones were recorded to answer."""

from __future__ import annotations

import asyncio
import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import aiohttp
import orjson
import pytest
from tests.contract.kubernetes.recordings import Case, exchanges, put_at, replay
from tests.fakes.kube_api import KubeApi
from tests.fakes.kube_store import V1_2, V1_21, V1_32

Json = dict[str, Any]


def config_map(name: str, namespace: str = "page") -> Json:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": namespace}}


def namespaces(api: KubeApi, *names: str) -> None:
    for name in names:
        put_at(api, {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}}, 5)


def object_of(recorded: list[Json], event: str, name: str) -> Json:
    """Return the first object of that name in an event of that type."""
    for exchange in recorded:
        for entry in exchange.get("response", {}).get("events") or ():
            item = entry["event"]["object"]
            if entry["event"]["type"] == event and item["metadata"].get("name") == name:
                return copy.deepcopy(item)
    raise LookupError(name)


def bookmarks(api: KubeApi, recorded: list[Json]) -> None:
    namespaces(api, "shop")
    put_at(api, recorded[0]["response"]["json"]["items"][0] | {"kind": "ConfigMap", "apiVersion": "v1"}, 238)
    put_at(api, object_of(recorded, "ADDED", "web"), 243)


def gone(api: KubeApi, recorded: list[Json]) -> None:
    namespaces(api, "page")
    for number in range(8):
        put_at(api, config_map(f"cm-{number}"), 600 + number)
    put_at(api, config_map("old-rv"), 722)
    watch = next(exchange for exchange in recorded if "resourceVersion=722&timeoutSeconds" in str(exchange))
    for entry in watch["response"]["events"]:
        put_at(api, entry["event"]["object"], int(entry["event"]["object"]["metadata"]["resourceVersion"]))
    api.store.shelf(api.store.kind("configmaps")).floor = 708
    api.store.compact(872, cache=False)


def gone_uncached(api: KubeApi, recorded: list[Json]) -> None:
    namespaces(api, "page")
    put_at(api, config_map("nc"), 1281)
    for entry in recorded[0]["response"]["events"]:
        put_at(api, entry["event"]["object"], int(entry["event"]["object"]["metadata"]["resourceVersion"]))


def pages(api: KubeApi, _recorded: list[Json]) -> None:
    namespaces(api, "page")
    put_at(api, config_map("kube-root-ca.crt"), 709)
    for number in range(7):
        put_at(api, config_map(f"cm-{number}"), 713 + number)


def selectors(api: KubeApi, recorded: list[Json]) -> None:
    namespaces(api, "sel")
    one, two, three = (
        object_of(recorded, "DELETED", "a"),
        object_of(recorded, "MODIFIED", "b"),
        object_of(recorded, "ADDED", "c"),
    )
    two["status"] |= {"phase": "Running", "podIP": "10.244.1.9"}
    three["metadata"]["labels"] = {}
    for version, item in enumerate((one, two, three), 890):
        put_at(api, item, version)


def errors(api: KubeApi, recorded: list[Json]) -> None:
    namespaces(api, "shop")
    put_at(api, config_map("poke-0", "shop"), 200)
    listed = next(e for e in recorded if e["request"]["path"].endswith("services?limit=-1"))
    put_at(api, listed["response"]["json"]["items"][0] | {"kind": "Service", "apiVersion": "v1"}, 243)


def forget_old(api: KubeApi) -> None:
    """Do as etcd 2 does after a thousand events."""
    for resource, floor in {"pods": 10, "services": 1124, "ingresses": 23, "events": 224}.items():
        api.store.shelf(api.store.kind(resource)).floor = floor


CASES = [
    Case("02-bookmarks-and-timeout", scale=0.02, prepare=bookmarks),
    Case("03-gone-watch-cache-on", scale=0.05, prepare=gone),
    Case(
        "03-gone-watch-cache-off",
        replace(V1_21, watch_cache=False),
        scale=0.05,
        prepare=gone_uncached,
        before={"etcd compacted": lambda api: api.compact(1286)},
    ),
    Case("04-pagination", prepare=pages, before={"etcd was compacted": lambda api: api.compact(cache=False)}),
    Case("05-selectors", prepare=selectors, beyond=("slices of one Service",)),
    Case("06-errors", scale=0.05, prepare=errors, beyond=("v1beta1", "eviction", "aggregated API")),
    Case(
        "07-lease",
        prepare=lambda api, _: namespaces(api, "ing"),
        # The second is the object as the recorder changed it for its next request.
        beyond=(
            "the real kube-controller-manager",
            "GET /apis/coordination.k8s.io/v1/namespaces/ing/leases/lb-registrator ()",
        ),
    ),
    Case(
        "07-service-loadbalancer",
        prepare=lambda api, _: namespaces(api, "ing"),
        beyond=("(invalid: 422", "(422)", ": 422"),
    ),
    Case(
        "07-ingress",
        prepare=lambda api, _: namespaces(api, "ing"),
        beyond=("v1beta1", ": 422", "class by annotation and field"),
    ),
    Case(
        "08-endpointslices-of-kinds",
        scale=0.05,
        prepare=lambda api, _: namespaces(api, "kinds"),
        beyond=("v1beta1", "/services"),
    ),
    Case(
        "09-v1.2.0-basics",
        V1_2,
        scale=0.1,
        prepare=lambda api, _: namespaces(api, "old"),
        before={"1200 changes": forget_old},
        beyond=("GET /apis (", "/api/v1/watch/"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_fake_answers_what_was_recorded(case: Case) -> None:
    run = asyncio.run(replay(case))
    assert run.compared > len(case.exchanges())
    assert "\n".join(run.differences) == ""


async def ask(api: KubeApi, method: str, path: str, body: Json | None = None) -> tuple[int, Json]:
    headers = {"Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
    content = None if body is None else orjson.dumps(body)
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, api.url + path, data=content, headers=headers) as response,
    ):
        return response.status, [orjson.loads(line) for line in (await response.read()).splitlines()][-1]


async def lines(api: KubeApi, path: str) -> list[Json]:
    async with aiohttp.ClientSession() as session, session.get(api.url + path) as response:
        return [orjson.loads(line) for line in (await response.read()).splitlines()]


def test_a_server_with_too_much_to_do_answers_as_recorded() -> None:
    recorded = exchanges("06-too-many-requests")[0]["response"]

    async def run() -> None:
        async with KubeApi() as api, aiohttp.ClientSession() as session:
            api.too_many(1)
            async with session.get(f"{api.url}/api/v1/pods") as response:
                assert response.status == recorded["status"]
                assert {name: response.headers[name] for name in recorded["headers"]} == recorded["headers"]
                assert await response.text() == recorded["text"]
            async with session.get(f"{api.url}/api/v1/pods") as response:
                assert response.status == 200

    asyncio.run(run())


def test_initial_events_end_with_a_bookmark_that_says_so() -> None:
    """Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists."""
    path = "/api/v1/configmaps?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1"

    async def run() -> None:
        async with KubeApi(V1_32, scale=0.1) as api:
            api.put(config_map("one"))
            api.put(config_map("two"))
            first, second, end = await lines(api, f"{path}&allowWatchBookmarks=true")
            assert [first["type"], second["type"], end["type"]] == ["ADDED", "ADDED", "BOOKMARK"]
            assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
            assert end["object"]["metadata"]["resourceVersion"] == str(api.store.version)
        async with KubeApi(V1_21) as api:
            status, answer = await ask(api, "GET", path)
            assert (status, answer["reason"], answer["details"]["causes"][0]["field"]) == (
                422,
                "Invalid",
                "resourceVersionMatch",
            )

    asyncio.run(run())


def test_ten_thousand_objects_are_listed_whole_and_in_pages() -> None:
    async def run() -> None:
        async with KubeApi() as api:
            for number in range(10_000):
                api.put(config_map(f"cm-{number}"))
            _, whole = await ask(api, "GET", "/api/v1/configmaps")
            names, token = [], ""
            while True:
                _, page = await ask(api, "GET", f"/api/v1/namespaces/page/configmaps?limit=3000&continue={token}")
                names += [item["metadata"]["name"] for item in page["items"]]
                if not (token := page["metadata"].get("continue", "")):
                    break
            assert names == [item["metadata"]["name"] for item in whole["items"]]
            assert len(set(names)) == 10_000

    asyncio.run(run())


def test_the_program_serves_and_ends(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "tests.fakes.kube_api", "--port", "0", "--personality", "1.21"]
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'cli'}"}
    with subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            url = program.stdout.readline().strip()
            with urlopen(f"{url}/apis/gateway.networking.k8s.io/v1/httproutes") as answer:
                assert orjson.loads(answer.read())["kind"] == "HTTPRouteList"
        finally:
            program.terminate()
    assert program.returncode == 0
