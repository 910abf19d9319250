"""Cases of translation as data: objects in, offer, statuses and problems out, in words that can be read beside them."""

from __future__ import annotations

import base64
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tests.contract.certificates import certificate

from coupler.registrator.model import Policy
from coupler.registrator.sources.kubernetes.objects import seconds
from coupler.registrator.sources.kubernetes.settings import KubernetesSettings
from coupler.registrator.sources.kubernetes.world import World

if TYPE_CHECKING:
    from coupler.registrator.model import Host, Offer, Route

CASES = Path(__file__).parents[3] / "fixtures" / "kubernetes" / "cases"
NOW = "2026-11-25T12:00:00Z"
"""What a case takes for the present, unless it says otherwise."""

Json = dict[str, Any]


@cache
def pair(name: str) -> tuple[str, str]:
    """Return a certificate of its own for `name`, and its key, in PEM."""
    made = certificate(name)
    return made.chain, made.key


def secret(namespace: str, name: str, of: str, key_of: str | None = None) -> Json:
    """Return a Secret with the certificate `of` a name and the key of the same one, or of another."""
    texts = {"tls.crt": pair(of)[0], "tls.key": pair(key_of or of)[1]}
    data = {field: base64.b64encode(text.encode()).decode() for field, text in texts.items()}
    metadata = {"namespace": namespace, "name": name, "uid": f"secret-{name}"}
    return {"kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data}


def load(path: Path) -> Json:
    """Return a case, with the objects completed that it writes in short: see `_whole`."""
    case: Json = yaml.safe_load(path.read_text())
    case["objects"] = [_whole(item, number) for number, item in enumerate(case["objects"])]
    return case


def _whole(item: Json, number: int) -> Json:
    """Return an object: `at: namespace/name` stands for its names, its uid and a time that grows with its place."""
    if "at" not in item:
        return item
    namespace, _, name = item.pop("at").rpartition("/")
    if item["kind"] == "Secret":
        return secret(namespace, name, item["certificate"], item.get("key"))
    metadata = {
        "name": name,
        "uid": f"{name}-uid",
        "creationTimestamp": f"2026-11-20T10:{number:02}:00Z",
        "generation": 1,
        "resourceVersion": str(number),
    }
    if namespace:
        metadata["namespace"] = namespace
    return {**item, "metadata": {**metadata, **item.get("metadata", {})}}


def world_of(case: Json) -> World:
    """Return the world that a case begins with."""
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in case["settings"].items()}
    return World(KubernetesSettings(**settings))


def outcome(world: World, case: Json) -> Json:
    """Return what a world comes to, in the words of a case."""
    offer = world.offer(seconds(case.get("now", NOW)) or 0.0)
    words: Json = {
        "backends": {backend.id: _endpoints(backend) for backend in offer.backends},
        "policies": {b.id: _set(b.policy) for b in offer.backends if b.policy != Policy()},
        "routes": [_route(route) for route in offer.routes],
        "tcp": [f"{route.port} -> {route.backend}" for route in offer.tcp_routes],
        "hosts": [_host(host) for host in offer.hosts],
        "problems": [f"{problem.subject}: {problem.message}" for problem in offer.problems],
        "statuses": {wish.path: wish.patch["status"] for wish in world.wishes},
    }
    return {name: value for name, value in words.items() if value}


def outline(offer: Offer) -> tuple[object, ...]:
    """Return an offer in a form that does not hang on the order in which things came."""
    backends = frozenset(offer.backends)
    return backends, frozenset(offer.routes), frozenset(offer.tcp_routes), offer.hosts, frozenset(offer.problems)


def _endpoints(backend: Any) -> list[str]:
    return [f"{e.uid} {e.address} {e.port} {e.state} {e.weight}" for e in backend.endpoints]


def _set(policy: Policy) -> Json:
    changed = {field.name: getattr(policy, field.name) for field in fields(policy)}
    return {name: _plain(value) for name, value in changed.items() if value != getattr(Policy(), name)}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: getattr(value, field.name) for field in fields(value) if getattr(value, field.name)}
    return str(value)


def _route(route: Route) -> str:
    text = f"{route.host or '*'}{route.path}{' exact' if route.exact else ''}"
    text += "".join(f" {name}={value}" for name, value in route.headers)
    text += f" priority {route.priority}" if route.priority else ""
    text += "".join(f" {middleware.id}" for middleware in route.middlewares)
    return f"{text} -> {route.backend}"


def _host(host: Host) -> str:
    words = [host.name or "*", *(["tls"] if host.certificate else []), *(["redirect"] if host.redirect else [])]
    return " ".join([*words, *([f"hsts {host.hsts}"] if host.hsts is not None else [])])
