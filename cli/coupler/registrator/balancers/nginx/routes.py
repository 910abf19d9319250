"""Routes → maps of nginx that lead a request to what serves its backend, in the order of `routing`. Pure.

One chain of maps serves all hosts and paths: a lookup by hash for every kind of host and every number of segments that
routes have, however many routes there are, and whatever no route of one lookup takes falls to the next. Servers and
locations would cost some kilobytes each and, because a request that no path of its host takes goes on to wildcards and
to any host, would have to stand in every server again. They also match the decoded path, and not the one that is sent.

Maps find words without regard to case, so each entry has its path in its value, and a second map compares the two.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from coupler.registrator.balancers.nginx.text import Line, Subject, block, lines, literal, quoted, regex
from coupler.registrator.routing import ANY_HOST, EXACT_HOST, WILDCARD_HOST, host_kind, order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from coupler.registrator.model import Route

TARGET = "$coupler_route0"
"""The variable that says where a request goes; empty where no route takes it."""

MAX_SEGMENTS = 24
"""nginx follows a hundred variables into each other, and no more."""

_HOSTS = {EXACT_HOST: "$host", WILDCARD_HOST: "$coupler_wild", ANY_HOST: "*"}
_LONGEST_HASHED = 400  # bytes; a longer word would not fit into a bucket, and nginx would take none of the map
_AGREES = r"~^(\S*) \1 +(\S+)"


def impossible(route: Route) -> str | None:
    """Return why nginx cannot follow this route; None if it can."""
    blurred = next((name for name, _ in route.headers if "_" in name), None)
    if blurred is not None:
        return f"route {route.id}: nginx does not see the header {blurred}, for its name has an underscore"
    if _segments(route) > MAX_SEGMENTS:
        return f"route {route.id}: nginx can look at {MAX_SEGMENTS} segments of a path at most"
    return None


def routing(routes: Iterable[Route], targets: Mapping[str, str]) -> list[Line]:
    """Return the maps; `TARGET` is what they come to: by the id of its backend, one of `targets`."""
    stages: dict[tuple[int, bool, int], dict[tuple[str, str], list[Route]]] = {}
    for route in sorted(routes, key=order):
        stage = stages.setdefault((host_kind(route.host), not route.exact, -_segments(route)), {})
        stage.setdefault((route.host, route.path), []).append(route)
    depths = sorted({-key[2] for key in stages if key[1] and key[2]})
    text = lines(
        f"map $request_uri $coupler_path {{ {quoted('~^([^?]*)')} $1; }}",
        f"map $host $coupler_wild {{ {quoted(_WILD)} *$1; }}",
    )
    for depth in depths:
        start = quoted(f"~^((?:/[^/]*){{{depth}}})(?:/|$)")
        text += lines(f"map $coupler_path $coupler_path{depth} {{ {start} $1; }}")
    for number, key in enumerate(sorted(stages)):
        text += _stage(number, key, stages[key], targets)
    return text + lines(f'map "" $coupler_route{len(stages)} {{ default ""; }}')


_WILD = r"~^[^.]*(\..*)$"


def _segments(route: Route) -> int:
    return 0 if route.exact or route.path == "/" else route.path.count("/")


def _stage(
    number: int,
    key: tuple[int, bool, int],
    chains: Mapping[tuple[str, str], Sequence[Route]],
    targets: Mapping[str, str],
) -> list[Line]:
    """Return one lookup: entries of `host + path`, each with its path and what may take the request, in order."""
    kind, of_prefixes, depth = key
    path = "$coupler_path" if not of_prefixes else f"$coupler_path{-depth}" if depth else "/"
    found = f"$coupler_found{number}"
    words = {(host, route_path): f"{host or '*'}{route_path}" for host, route_path in chains}
    twice = Counter(word.lower() for word in words.values())
    text: list[Line] = []
    entries: list[Line] = []
    for place, (match, chain) in enumerate(chains.items()):
        takers = []
        for count, route in enumerate(chain):
            maps, taker = _taker(f"$coupler_headers{number}_{place}_{count}", route, targets[route.backend])
            text += maps
            takers.append(taker)
            if not route.headers:
                break
        word = words[match]
        written = quoted(word) if twice[word.lower()] == 1 and len(word) <= _LONGEST_HASHED else regex(word)
        value = quoted(f"{literal(match[1])} {' '.join(takers)}")
        subject = Subject(f"route {chain[0].id}", tuple(route.backend for route in chain))
        entries += lines(f"{written} {value};", subject=subject)
    text += block(f"map {quoted(_HOSTS[kind] + path)} {found}", entries)
    agrees = lines(f"default $coupler_route{number + 1};", f"{quoted(_AGREES)} $2;")
    return text + block(f"map {quoted(f'{path} {found}')} $coupler_route{number}", agrees)


def _taker(variable: str, route: Route, target: str) -> tuple[list[Line], str]:
    """Return the maps for a route's headers, and the word that is its target if they all match, else empty."""
    word = target
    maps: list[Line] = []
    subject = Subject(f"route {route.id}", (route.backend,))
    for number, (name, value) in reversed(tuple(enumerate(route.headers))):
        header = f"$http_{re.sub('-', '_', name)}"
        maps += lines(f"map {header} {variable}_{number} {{ {regex(value)} {quoted(word)}; }}", subject=subject)
        word = f"{variable}_{number}"
    return maps, word


def by_host(routes: Sequence[Route]) -> dict[str, set[str]]:
    """Return the backends to which each host of a route leads by itself."""
    found: dict[str, set[str]] = {}
    for route in routes:
        found.setdefault(route.host, set()).add(route.backend)
    return found
