"""Routes and hosts → the maps that our frontend looks into, and the frontend itself. Pure.

What a map says can change without a reload; the frontend's own lines change only where a route asks for headers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.registrator.model import ACME_PATH, Mode
from coupler.registrator.names import digest
from coupler.registrator.routing import ANY_HOST, EXACT_HOST, WILDCARD_HOST, host_kind, order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from coupler.registrator.model import Host, Route

_RULES = "rules-"
_BACKEND, _HOST, _WILD, _PATH, _FLAGS = (f"txn.coupler_{name}" for name in ("backend", "host", "wild", "path", "flags"))
_REDIRECT = "redirect"
_HTTPS_PORT = 443


@dataclass(frozen=True, slots=True)
class Rule:
    """One line for requests that the map sent to a group: these headers mean that backend. No headers: all the rest."""

    group: str
    stage: tuple[int, bool]
    headers: tuple[tuple[str, str], ...]
    backend: str

    def line(self) -> str:
        """Return the rule as HAProxy reads it."""
        conditions = [f"{{ var({_BACKEND}) -m str {self.group} }}"]
        conditions += [f"{{ req.fhdr({name}) -m str -- '{value}' }}" for name, value in self.headers]
        return f"http-request set-var({_BACKEND}) str({self.backend}) if {' '.join(conditions)}"


def compile_routes(routes: Iterable[Route], names: Mapping[str, str]) -> tuple[dict[str, dict[str, str]], list[Rule]]:
    """Return the entries of the maps `exact` and `prefix`, and rules for the keys under which headers matter."""
    chains: dict[tuple[str, bool, str], list[Route]] = {}
    for route in sorted(routes, key=order):
        chains.setdefault((route.host, route.exact, route.path), []).append(route)
    maps: dict[str, dict[str, str]] = {"exact": {}, "prefix": {}}
    rules: list[Rule] = []
    for (host, exact, path), chain in chains.items():
        own = chain if exact else [*chain, *_shorter(chains, host, path)]
        key = f"{host or '*'}{path}" if exact else f"{host or '*'}{path.rstrip('/')}/"
        if not own[0].headers:
            maps["exact" if exact else "prefix"][key] = names[own[0].backend]
            continue
        group = f"{_RULES}{digest(f'{exact}{key}')}"
        maps["exact" if exact else "prefix"][key] = group
        for route in own:
            rules.append(Rule(group, (host_kind(host), exact), route.headers, names[route.backend]))
            if not route.headers:
                break
    return maps, rules


def _shorter(chains: Mapping[tuple[str, bool, str], list[Route]], host: str, path: str) -> list[Route]:
    """Return the routes of shorter prefixes under the same host: all of them match where the longer one does."""
    found: list[Route] = []
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        found += chains.get((host, False, path), [])
    return found


def compile_hosts(hosts: Iterable[Host]) -> dict[str, str]:
    """Return the entries of the map `hosts`: `redirect` or `-`, and behind a colon the seconds of HSTS if there are."""
    return {
        host.name or "*": (_REDIRECT if host.redirect else "-") + (f":{host.hsts}" if host.hsts is not None else "")
        for host in hosts
    }


def frontend_lines(
    binds: Sequence[str], rules: Sequence[Rule], map_path: Mapping[str, Path], https_port: int | None
) -> list[str]:
    """Return the lines of the frontend for HTTP. `https_port` is where plain requests are sent to; None: nowhere."""
    lines = [f"mode {Mode.HTTP}", *(f"bind {bind}" for bind in binds)]
    lines += ["option idle-close-on-response"]  # a reload does not cut off a client that is about to ask again
    lines += [
        f"http-request set-var({_HOST}) req.hdr(host),host_only,lower",
        f"http-request set-var({_WILD}) var({_HOST}),field(2,.,0)",
        f"http-request set-var({_PATH}) path",
    ]
    if https_port is not None:
        lines += _host_lines(map_path["hosts"], https_port)
    starts = {
        EXACT_HOST: f"var({_HOST}),concat(,{_PATH},",
        WILDCARD_HOST: f"str(*.),concat(,{_WILD}),concat(,{_PATH},",
        ANY_HOST: f"str(*),concat(,{_PATH},",
    }
    for kind, start in starts.items():
        for exact in (True, False):
            lookup = f"map_str({map_path['exact']})" if exact else f"map_beg({map_path['prefix']})"
            key = f"{start}{'' if exact else '/'})"
            lines.append(f"http-request set-var({_BACKEND}) {key},{lookup} if !{{ var({_BACKEND}) -m found }}")
            staged = [rule.line() for rule in rules if rule.stage == (kind, exact)]
            if staged:
                lines += [*staged, f"http-request unset-var({_BACKEND}) if {{ var({_BACKEND}) -m beg {_RULES} }}"]
    lines += [
        f"http-request return status 404 if !{{ var({_BACKEND}) -m found }}"
    ]  # 503 is for a route without servers
    return [*lines, f"use_backend %[var({_BACKEND})]"]


def _host_lines(path: Path, https_port: int) -> list[str]:
    keys = (f"var({_HOST})", f"str(*.),concat(,{_WILD})", "str(*)")
    port = "" if https_port == _HTTPS_PORT else f":{https_port}"
    plain = f"{{ var({_FLAGS}) -m beg {_REDIRECT} }} !{{ ssl_fc }} {{ path_beg / }} !{{ path_beg {ACME_PATH} }}"
    return [
        *(f"http-request set-var({_FLAGS}) {k},map_str({path}) if !{{ var({_FLAGS}) -m found }}" for k in keys),
        f"http-request redirect code 308 location https://%[var({_HOST})]{port}%[pathq] if {plain}",
        f"http-after-response set-header Strict-Transport-Security max-age=%[var({_FLAGS}),field(2,:)]"
        f" if {{ ssl_fc }} {{ var({_FLAGS}),field(2,:) -m found }}",
    ]
