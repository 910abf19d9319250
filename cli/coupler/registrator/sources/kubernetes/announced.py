"""What annotations of an object say of routes and hosts → claims; and the Services that announce themselves so."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from coupler.registrator.model import Mode, Policy, Route, TcpRoute
from coupler.registrator.sources.kubernetes.annotations import SERVICE, Asked, read
from coupler.registrator.sources.kubernetes.plan import HostClaim, Part, Plan, Translation
from coupler.registrator.sources.kubernetes.services import find

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coupler.registrator.sources.kubernetes.objects import Key, Reference
    from coupler.registrator.sources.kubernetes.services import Service


def translate(services: Mapping[Key, Service], prefix: str, into: Translation) -> None:
    """Add the routes of all Services that are annotated."""
    for service in services.values():
        about, created = service.kept.about, service.kept.created
        asked = read(service.kept.annotations, prefix, SERVICE)
        for text in asked.complaints:
            into.complain(about, text)
        if asked.broken or not (asked.of_http or asked.tcp_port is not None):
            continue
        found = find(services, service.kept.key, asked.port)
        if found.group is None:
            into.complain(about, found.why)
            continue
        parts = (Part(1, found.group),)
        if asked.of_http:
            backend = into.plan(Plan(found.name, parts, policy=asked.policy, weight=asked.weight))
            add_routes(asked, found.name, backend, about, created, into)
        if asked.tcp_port is not None:
            add_tcp_route(asked, found.name, parts, about, created, into)


def for_tcp(policy: Policy) -> Policy:
    """Return what of a policy has a meaning for connections."""
    nothing = Policy()
    return replace(policy, **{name: getattr(nothing, name) for name in policy.of_http})


def add_routes(asked: Asked, name: str, backend: str, about: Reference, created: str, into: Translation) -> None:
    """Add routes to `backend` for the hosts and the path of annotations, and what they ask for the hosts."""
    path = asked.path or "/"
    headers = (asked.canary_header,) if asked.canary_header else ()
    for host in asked.hosts or ("",):
        id_ = f"{name}:{host or '*'}{path}{'$' if asked.exact else ''}"
        make = partial(Route, id_, backend, host, path, asked.exact, headers, asked.priority, asked.middlewares)
        into.claim(about, created, make, asked.canary_percent)
        add_host(asked, host, asked.tls_secret, about, created, into)


def add_host(asked: Asked, host: str, secret: str | None, about: Reference, created: str, into: Translation) -> None:
    """Add what an object asks for a host, if it does."""
    if secret or asked.redirect or asked.hsts is not None:
        key = (about.namespace, secret) if secret else None
        into.hosts.append(HostClaim(about, created, host, key, asked.redirect, asked.hsts))


def add_tcp_route(
    asked: Asked, name: str, parts: tuple[Part, ...], about: Reference, created: str, into: Translation
) -> None:
    """Add a TCP route and its backend. What is for HTTP alone is left out, with a complaint if nothing is HTTP here."""
    port = asked.tcp_port or 0
    if asked.policy.of_http and not asked.of_http:
        words = ", ".join(asked.policy.of_http).replace("_", "-")
        into.complain(about, f"{words}: no meaning for the connections of port {port}")
    backend = into.plan(Plan(f"{name}/tcp", parts, Mode.TCP, for_tcp(asked.policy), asked.weight))
    into.claim(about, created, partial(TcpRoute, f"{name}:{port}/tcp", backend, port), None)
