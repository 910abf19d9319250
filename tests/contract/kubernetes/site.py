"""The source at work on the stand-in API server, and objects of the API in short."""

from __future__ import annotations

import asyncio
import copy
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.contract.kubernetes.world import QUICK, eventually
from tests.fakes.kube_api import KubeApi
from tests.fakes.kube_store import V1_32, Kind

from coupler.registrator.sources.kubernetes.access import plain
from coupler.registrator.sources.kubernetes.client import ApiClient
from coupler.registrator.sources.kubernetes.credentials import Credentials
from coupler.registrator.sources.kubernetes.settings import KubernetesSettings
from coupler.registrator.sources.kubernetes.source import Kubernetes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from coupler.registrator.model import Offer
    from coupler.registrator.sources import Change

Json = dict[str, Any]
GATEWAY = "gateway.networking.k8s.io"
GRANTS = Kind(f"/apis/{GATEWAY}/v1beta1", "referencegrants", "ReferenceGrant")


class Site:
    """A source that follows `api`, and what it has told."""

    def __init__(self, api: KubeApi, source: Kubernetes) -> None:
        self.api, self.source = api, source
        self.changes: list[Change] = []

    @property
    def offer(self) -> Offer:
        return self.source.offer()

    def routes(self) -> dict[str, str]:
        return {f"{route.host}{route.path}": route.backend for route in self.offer.routes}

    def endpoints(self, backend: str) -> dict[str, str]:
        found = next((entry for entry in self.offer.backends if entry.id == backend), None)
        return {endpoint.uid: str(endpoint.state) for endpoint in found.endpoints} if found else {}

    def status(self, resource: str, name: str) -> Json:
        found: Json = self.api.objects(resource)["shop", name].get("status") or {}
        return found

    def held(self, resource: str, name: str) -> Json:
        """Return a copy of an object, to be changed and put again."""
        kind = self.api.store.kind(resource)
        item = copy.deepcopy(self.api.objects(resource)["shop", name])
        return {"apiVersion": kind.version, "kind": kind.name, **item}

    def events(self) -> list[Json]:
        return list(self.api.objects("events", api="/api/v1").values())

    def writes(self) -> list[str]:
        return [request for request in self.api.requests if request.split()[0] in {"POST", "PUT", "PATCH", "DELETE"}]

    async def sees(self, holds: Callable[[], bool]) -> None:
        await eventually(holds, lambda: f"it is not seen: {self.offer} {self.source.problem} {self.api.requests[-9:]}")


@asynccontextmanager
async def at_work(
    api: KubeApi, settings: Json | None = None, *, synced: bool = True, **more: Any
) -> AsyncIterator[Site]:
    """Run a source against `api` for as long as the block lasts."""
    client = ApiClient(Credentials(lambda: plain(api.url)))
    site = Site(api, Kubernetes(KubernetesSettings(**(settings or {})), client, tunables=QUICK, **more))
    task = asyncio.create_task(site.source.run(site.changes.append))
    try:
        if synced:
            await eventually(
                lambda: site.source.synced or task.done(), lambda: f"it never syncs: {site.source.problem}"
            )
        yield site
    finally:
        if not task.done():
            task.cancel()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        await client.close()
    assert isinstance(result, asyncio.CancelledError), result


@asynccontextmanager
async def following(*objects: Json, settings: Json | None = None, **more: Any) -> AsyncIterator[Site]:
    """Run a source on a server of its own that has these objects."""
    async with KubeApi(V1_32, bookmark_seconds=0.1) as api:
        for item in objects:
            api.put(item)
        async with at_work(api, settings, **more) as site:
            yield site


def made(api: str, kind: str, name: str, *, annotations: dict[str, str] | None = None, **parts: Any) -> Json:
    """Return an object of the namespace shop."""
    metadata = {"namespace": "shop", "name": name, "annotations": annotations or {}}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **parts}


def service(name: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> Json:
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    return made("v1", "Service", name, annotations=annotations, spec={"ports": ports, "type": "ClusterIP", **spec})


def endpoint_slice(of: str, *uids: str, ready: bool = True) -> Json:
    entries = [
        {"addresses": [f"10.0.0.{n + 1}"], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "uid": uid}}
        for n, uid in enumerate(uids)
    ]
    item = made("discovery.k8s.io/v1", "EndpointSlice", f"{of}-1", addressType="IPv4", endpoints=entries)
    item["metadata"]["labels"] = {"kubernetes.io/service-name": of}
    return item | {"ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}


def ingress(name: str, host: str, backend: str, *, tls: str | None = None, **annotations: str) -> Json:
    to = {"service": {"name": backend, "port": {"number": 80}}}
    spec: Json = {"rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": to}]}}]}
    spec |= {"ingressClassName": "coupler"} | ({"tls": [{"hosts": [host], "secretName": tls}]} if tls else {})
    said = {f"coupler.io/{key.replace('_', '-')}": text for key, text in annotations.items()}
    return made("networking.k8s.io/v1", "Ingress", name, annotations=said, spec=spec)


def gateway_class() -> Json:
    metadata = {"name": "coupler"}
    return {
        "apiVersion": f"{GATEWAY}/v1",
        "kind": "GatewayClass",
        "metadata": metadata,
        "spec": {"controllerName": "coupler.io/registrator"},
    }


def gateway(*listeners: Json) -> Json:
    given = list(listeners) or [{"name": "http", "protocol": "HTTP", "port": 80}]
    return made(f"{GATEWAY}/v1", "Gateway", "front", spec={"gatewayClassName": "coupler", "listeners": given})


def http_route(name: str, host: str, *backends: str, version: str = "v1", **status: Any) -> Json:
    refs = [{"name": backend, "port": 80} for backend in backends]
    spec = {"parentRefs": [{"name": "front"}], "hostnames": [host], "rules": [{"backendRefs": refs}]}
    return made(f"{GATEWAY}/{version}", "HTTPRoute", name, spec=spec, **status)
