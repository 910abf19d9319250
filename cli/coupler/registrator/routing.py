"""Which route takes a request: the order that every balancer follows, and `explain`.

An exact host comes before `*.` before any host; under one host, an exact path before prefixes, a longer prefix before
a shorter one; under one path, higher priority first, then more headers, then the smaller id. The first route of that
order whose headers match takes the request: a route that demands headers never hides what stands behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from coupler.registrator.model import Route

EXACT_HOST, WILDCARD_HOST, ANY_HOST = range(3)


@dataclass(frozen=True, slots=True)
class Considered:
    """A route that was looked at, and why it does or does not take the request."""

    route: Route
    takes: bool
    why: str


def host_kind(host: str) -> int:
    """Return whether a route's host is a name, `*.` with a name, or any."""
    return ANY_HOST if not host else WILDCARD_HOST if host.startswith("*.") else EXACT_HOST


def order(route: Route) -> tuple[object, ...]:
    """Return the key by which routes are sorted: the first that matches takes the request."""
    return (
        host_kind(route.host),
        route.host,
        not route.exact,
        -len(route.path),
        route.path,
        -route.priority,
        -len(route.headers),
        route.id,
    )


def explain(routes: Iterable[Route], host: str, path: str, headers: Mapping[str, str]) -> list[Considered]:
    """Return the routes that host and path of a request lead to, in order, up to the one that takes it.

    `path` may carry a query, which no route looks at; names of `headers` count in any case.
    """
    name = host.lower().partition(":")[0]
    plain = path.partition("?")[0]
    given = {header.lower(): value for header, value in headers.items()}
    considered = []
    for route in sorted(routes, key=order):
        if not (_takes_host(route, name) and _takes_path(route, plain)):
            continue
        missing = next((pair for pair in route.headers if given.get(pair[0]) != pair[1]), None)
        if missing is not None:
            considered.append(Considered(route, takes=False, why=f"its header {missing[0]} is not {missing[1]!r}"))
            continue
        considered.append(Considered(route, takes=True, why="the first whose host, path and headers match"))
        break
    return considered


def _takes_host(route: Route, host: str) -> bool:
    kind = host_kind(route.host)
    if kind == WILDCARD_HOST:
        return "." in host and "*" + host[host.find(".") :] == route.host
    return kind == ANY_HOST or route.host == host


def _takes_path(route: Route, path: str) -> bool:
    if route.exact:
        return path == route.path
    return f"{path}/".startswith(route.path.rstrip("/") + "/")
