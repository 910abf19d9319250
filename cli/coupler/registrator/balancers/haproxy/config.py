"""Desired state → HAProxy's configuration: our file, whole, and the maps that its frontend looks into. Pure.

The names carry the owner mark `coupler-`, and behind a colon the digest of what only a reload can change. So a look at
the names that a process has says whether it has the right shape, and a backend whose settings change is a new one, to
which the routes move at once when its servers are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from coupler.registrator.model import Backend, Mode, State
from coupler.registrator.names import digest, safe_name
from coupler.registrator.routing import ANY_HOST, EXACT_HOST, WILDCARD_HOST, host_kind, order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from coupler.registrator.model import Desired, Endpoint, Policy, Route, TcpRoute

OWNER = "coupler-"
"""The owner mark: every backend, frontend and server of ours begins with it."""

_HEAD = "# Written by coupler's registrator: what is changed here by hand is lost.\n"
_BREAK = "\n"
_RULES = "rules-"
_BACKEND, _HOST, _WILD, _PATH = (f"txn.coupler_{name}" for name in ("backend", "host", "wild", "path"))


@dataclass(frozen=True, slots=True)
class Settings:
    """Where our file lies, what the frontend for HTTP binds (`address:port`), where TCP routes listen."""

    config: Path
    binds: tuple[str, ...] = ()
    tcp_address: str = "*"

    def map_path(self, kind: str) -> Path:
        """Return the path of the map of exact paths or of prefixes."""
        return self.config.with_name(f"{self.config.stem}-{kind}.map")


@dataclass(frozen=True, slots=True)
class Shape:
    """What HAProxy is to have beside servers: names of frontends and backends, entries of the maps by path.

    `head` is the part of the file with the frontends.
    """

    frontends: frozenset[str]
    backends: frozenset[str]
    maps: Mapping[Path, Mapping[str, str]]
    head: str


def backend_name(backend: Backend) -> str:
    """Return the name that a backend has in HAProxy."""
    return _backend_name(backend.id, backend.mode, backend.policy)


@lru_cache(maxsize=2**15)
def _backend_name(id_: str, mode: Mode, policy: Policy) -> str:
    return f"{OWNER}{safe_name(id_)}:{digest(_BREAK.join(_backend_lines(Backend(id_, (), mode, policy))))}"


def server_name(endpoint: Endpoint) -> str:
    """Return the name that an endpoint has in HAProxy."""
    return f"{OWNER}{safe_name(endpoint.uid)}"


def server_options(backend: Backend) -> str:
    """Return what follows address and weight, in the file and in `add server` alike.

    Idle connections go within a second or two, so that a server can be deleted soon after its last request.
    """
    return "pool-purge-delay 500ms" + (" check inter 2s fall 2 rise 1" if backend.policy.check_path else "")


def tcp_frontend(route: TcpRoute) -> str:
    """Return the name, before the digest, of the frontend for a port."""
    return f"{OWNER}tcp-{route.port}"


def host_port(endpoint: Endpoint) -> str:
    """Return `address:port`, with brackets around IPv6."""
    return f"[{endpoint.address}]:{endpoint.port}" if ":" in endpoint.address else f"{endpoint.address}:{endpoint.port}"


def shape(desired: Desired, settings: Settings) -> Shape:
    """Return all of `desired` but the servers."""
    names = {backend.id: backend_name(backend) for backend in desired.backends.values()}
    maps, rules = _compile(desired.routes, names)
    frontends = [_frontend(f"{OWNER}http", _http_lines(rules, settings))] if settings.binds else []
    frontends += [_frontend(tcp_frontend(r), _tcp_lines(r, names, settings)) for r in desired.tcp_routes]
    return Shape(
        frozenset(name for name, _ in frontends),
        frozenset(names.values()),
        {settings.map_path(kind): entries for kind, entries in maps.items()} if settings.binds else {},
        _HEAD + "".join(text for _, text in frontends),
    )


def config_text(desired: Desired, outline: Shape) -> str:
    """Return our file, servers included."""
    backends = desired.backends.values()
    return outline.head + "".join(_written(f"backend {backend_name(b)}", _all_lines(b)) for b in backends)


def map_text(entries: Mapping[str, str]) -> str:
    """Return a map's file."""
    return "".join(f"{key} {value}\n" for key, value in entries.items())


def _frontend(name: str, lines: Sequence[str]) -> tuple[str, str]:
    full = f"{name}:{digest(_BREAK.join(lines))}"
    return full, _written(f"frontend {full}", lines)


def _written(title: str, lines: Iterable[str]) -> str:
    return f"\n{title}\n" + "".join(f"  {line}\n" for line in lines)


def _backend_lines(backend: Backend) -> list[str]:
    policy = backend.policy
    lines = [f"mode {backend.mode}", f"balance {policy.balance}", "retries 3", "option redispatch 1"]
    if policy.check_path:
        lines += [f"option httpchk GET '{policy.check_path}'"]
    if policy.connect_timeout:
        lines += [f"timeout connect {round(policy.connect_timeout * 1000) or 1}ms"]
    if policy.read_timeout:
        lines += [f"timeout server {round(policy.read_timeout * 1000) or 1}ms"]
    if policy.sticky_cookie:
        lines += [f"cookie {policy.sticky_cookie} insert indirect nocache httponly dynamic"]
        lines += [f"dynamic-cookie-key {digest(backend.id)}"]
    return lines


def _all_lines(backend: Backend) -> list[str]:
    return _backend_lines(backend) + [_server_line(endpoint, backend) for endpoint in backend.endpoints]


def _server_line(endpoint: Endpoint, backend: Backend) -> str:
    weight = 0 if endpoint.state is State.DRAIN else endpoint.weight  # the file has no other word for drain
    disabled = " disabled" if endpoint.state is State.DOWN else ""
    options = server_options(backend)
    return f"server {server_name(endpoint)} {host_port(endpoint)} weight {weight} {options}{disabled}"


def _tcp_lines(route: TcpRoute, names: Mapping[str, str], settings: Settings) -> list[str]:
    return [f"mode {Mode.TCP}", f"bind {settings.tcp_address}:{route.port}", f"default_backend {names[route.backend]}"]


@dataclass(frozen=True, slots=True)
class _Rule:
    """One line for requests that the map sent to a group: these headers mean that backend. No headers: all the rest."""

    group: str
    stage: tuple[int, bool]
    headers: tuple[tuple[str, str], ...]
    backend: str

    def line(self) -> str:
        """Return the rule as HAProxy reads it."""
        conditions = [f"{{ var({_BACKEND}) -m str {self.group} }}"]
        conditions += [f"{{ req.fhdr({name}) -m str '{value}' }}" for name, value in self.headers]
        return f"http-request set-var({_BACKEND}) str({self.backend}) if {' '.join(conditions)}"


def _compile(routes: Iterable[Route], names: Mapping[str, str]) -> tuple[dict[str, dict[str, str]], list[_Rule]]:
    """Return the maps' entries, and rules for the keys under which headers matter."""
    chains: dict[tuple[str, bool, str], list[Route]] = {}
    for route in sorted(routes, key=order):
        chains.setdefault((route.host, route.exact, route.path), []).append(route)
    maps: dict[str, dict[str, str]] = {"exact": {}, "prefix": {}}
    rules: list[_Rule] = []
    for (host, exact, path), chain in chains.items():
        own = chain if exact else [*chain, *_shorter(chains, host, path)]
        key = f"{host or '*'}{path}" if exact else f"{host or '*'}{path.rstrip('/')}/"
        if not own[0].headers:
            maps["exact" if exact else "prefix"][key] = names[own[0].backend]
            continue
        group = f"{_RULES}{digest(f'{exact}{key}')}"
        maps["exact" if exact else "prefix"][key] = group
        for route in own:
            rules.append(_Rule(group, (host_kind(host), exact), route.headers, names[route.backend]))
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


def _http_lines(rules: Sequence[_Rule], settings: Settings) -> list[str]:
    lines = [f"mode {Mode.HTTP}", *(f"bind {bind}" for bind in settings.binds)]
    lines += ["option idle-close-on-response"]  # a reload does not cut off a client that is about to ask again
    lines += [
        f"http-request set-var({_HOST}) req.hdr(host),host_only,lower",
        f"http-request set-var({_WILD}) var({_HOST}),field(2,.,0)",
        f"http-request set-var({_PATH}) path",
    ]
    starts = {
        EXACT_HOST: f"var({_HOST}),concat(,{_PATH},",
        WILDCARD_HOST: f"str(*.),concat(,{_WILD}),concat(,{_PATH},",
        ANY_HOST: f"str(*),concat(,{_PATH},",
    }
    for kind, start in starts.items():
        for exact in (True, False):
            lookup = f"map_str({settings.map_path('exact')})" if exact else f"map_beg({settings.map_path('prefix')})"
            key = f"{start}{'' if exact else '/'})"
            lines.append(f"http-request set-var({_BACKEND}) {key},{lookup} if !{{ var({_BACKEND}) -m found }}")
            staged = [rule.line() for rule in rules if rule.stage == (kind, exact)]
            if staged:
                lines += [*staged, f"http-request unset-var({_BACKEND}) if {{ var({_BACKEND}) -m beg {_RULES} }}"]
    return [*lines, f"use_backend %[var({_BACKEND})] if {{ var({_BACKEND}) -m found }}"]
