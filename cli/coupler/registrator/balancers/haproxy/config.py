"""Desired state → HAProxy's configuration: our file, whole, and the maps that its frontend looks into. Pure.

The names carry the owner mark `coupler-`, and behind a colon the digest of what only a reload can change. So a look at
the names that a process has says whether it has the right shape, and a backend whose settings change is a new one, to
which the routes move at once when its servers are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from coupler.registrator.balancers.haproxy.policy import backend_lines, server_options
from coupler.registrator.balancers.haproxy.routes import compile_hosts, compile_routes, frontend_lines
from coupler.registrator.model import Backend, Mode, State
from coupler.registrator.names import digest, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from coupler.registrator.model import Desired, Endpoint, Policy, TcpRoute

OWNER = "coupler-"
"""The owner mark: every backend, frontend and server of ours begins with it."""

_HEAD = "# Written by coupler's registrator: what is changed here by hand is lost.\n"
_BREAK = "\n"
_MAPS = ("exact", "prefix", "hosts")
_ALPN = "h2,http/1.1"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where our file lies, what the frontend for HTTP binds (`address:port`), where TCP routes listen.

    `tls_binds` are those of HTTP over TLS. `accept_proxy`: every connection begins with the PROXY protocol, of a
    balancer in front. `https_port` is the one that clients see, where it is not the first of `tls_binds`.
    """

    config: Path
    binds: tuple[str, ...] = ()
    tcp_address: str = "*"
    tls_binds: tuple[str, ...] = ()
    accept_proxy: bool = False
    https_port: int | None = None

    def map_path(self, kind: str) -> Path:
        """Return the path of a map: of exact paths, of prefixes, or of hosts."""
        return self.config.with_name(f"{self.config.stem}-{kind}.map")

    @property
    def certificate_list(self) -> Path:
        """Return the path of the list of certificates by host."""
        return self.config.with_name(f"{self.config.stem}-certificates.list")

    @property
    def certificate_folder(self) -> Path:
        """Return the path of the folder with certificates and their keys."""
        return self.config.with_name(f"{self.config.stem}-certificates")

    @property
    def redirect_port(self) -> int | None:
        """Return the port to which plain requests are sent, None without TLS."""
        if not self.tls_binds:
            return None
        return self.https_port or int(self.tls_binds[0].rpartition(":")[2])


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
    backend = Backend(id_, (), mode, policy)
    return f"{OWNER}{safe_name(id_)}:{digest(_BREAK.join([*backend_lines(backend), server_options(backend)]))}"


def servers_of(backend: Backend) -> tuple[Endpoint, ...]:
    """Return the endpoints that are servers in HAProxy: none where the backend answers by itself."""
    return () if backend.policy.redirect else backend.endpoints


def server_name(endpoint: Endpoint) -> str:
    """Return the name that an endpoint has in HAProxy."""
    return f"{OWNER}{safe_name(endpoint.uid)}"


def tcp_frontend(route: TcpRoute) -> str:
    """Return the name, before the digest, of the frontend for a port."""
    return f"{OWNER}tcp-{route.port}"


def host_port(endpoint: Endpoint) -> str:
    """Return `address:port`, with brackets around IPv6."""
    return f"[{endpoint.address}]:{endpoint.port}" if ":" in endpoint.address else f"{endpoint.address}:{endpoint.port}"


def shape(desired: Desired, settings: Settings, *, strict: bool = True, reread: str = "") -> Shape:
    """Return all of `desired` but the servers.

    `strict`: there is no certificate for names that have none of their own, and their handshakes are refused. `reread`
    stands for files that HAProxy can take up only by a reload: another text is another frontend.
    """
    names = {backend.id: backend_name(backend) for backend in desired.backends.values()}
    binds = _binds(settings, strict=strict)
    kinds, rules = compile_routes(desired.routes, names)
    kinds["hosts"] = compile_hosts(desired.hosts)
    paths = {kind: settings.map_path(kind) for kind in _MAPS}
    frontends = []
    if binds:
        lines = frontend_lines(binds, rules, paths, settings.redirect_port)
        frontends += [_frontend(f"{OWNER}http", [*lines, *([f"# {reread}"] if reread else [])])]
    frontends += [_frontend(tcp_frontend(route), _tcp_lines(route, names, settings)) for route in desired.tcp_routes]
    used = [kind for kind in _MAPS if binds and (kind != "hosts" or settings.tls_binds)]
    return Shape(
        frozenset(name for name, _ in frontends),
        frozenset(names.values()),
        {paths[kind]: kinds[kind] for kind in used},
        _HEAD + "".join(text for _, text in frontends),
    )


def config_pieces(desired: Desired, outline: Shape) -> Iterator[str]:
    """Return our file, servers included, in small pieces."""
    yield outline.head
    for backend in desired.backends.values():
        yield _written(f"backend {backend_name(backend)}", backend_lines(backend))
        options = server_options(backend)
        for endpoint in servers_of(backend):
            yield f"  {_server_line(endpoint, options)}\n"


def config_text(desired: Desired, outline: Shape) -> str:
    """Return our file, servers included."""
    return "".join(config_pieces(desired, outline))


def map_text(entries: Mapping[str, str]) -> str:
    """Return a map's file."""
    return "".join(f"{key} {value}\n" for key, value in entries.items())


def _binds(settings: Settings, *, strict: bool) -> list[str]:
    proxy = " accept-proxy" if settings.accept_proxy else ""
    tls = f" ssl crt-list {settings.certificate_list}{' strict-sni' if strict else ''} alpn {_ALPN}"
    return [f"{bind}{proxy}" for bind in settings.binds] + [f"{bind}{tls}{proxy}" for bind in settings.tls_binds]


def _frontend(name: str, lines: Sequence[str]) -> tuple[str, str]:
    full = f"{name}:{digest(_BREAK.join(lines))}"
    return full, _written(f"frontend {full}", lines)


def _written(title: str, lines: Iterable[str]) -> str:
    return f"\n{title}\n" + "".join(f"  {line}\n" for line in lines)


def _server_line(endpoint: Endpoint, options: str) -> str:
    weight = 0 if endpoint.state is State.DRAIN else endpoint.weight  # the file has no other word for drain
    disabled = " disabled" if endpoint.state is State.DOWN else ""
    return f"server {server_name(endpoint)} {host_port(endpoint)} weight {weight} {options}{disabled}"


def _tcp_lines(route: TcpRoute, names: Mapping[str, str], settings: Settings) -> list[str]:
    proxy = " accept-proxy" if settings.accept_proxy else ""
    return [
        f"mode {Mode.TCP}",
        f"bind {settings.tcp_address}:{route.port}{proxy}",
        f"default_backend {names[route.backend]}",
    ]
