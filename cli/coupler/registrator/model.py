"""The desired state: what a balancer should send where. Immutable, and valid by construction.

A value that no balancer could carry is refused where it is made, with a `ModelError`, so that a bad announcement or
annotation harms itself alone. Texts are restricted to what is safe in a configuration file of HAProxy.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from coupler.errors import CouplerError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PORT, MAX_WEIGHT = 65535, 256
MAX_TIMEOUT = 86400.0

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&()*+,;=:@%/-]*")
_CHECK_PATH = re.compile(r"/[A-Za-z0-9._~!$&()*+,;=:@%/?-]*")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER_VALUE = re.compile(r"[\x21-\x26\x28-\x7e]([\x20-\x26\x28-\x7e]*[\x21-\x26\x28-\x7e])?")


class ModelError(CouplerError):
    """A value of the desired state is one that no balancer can carry."""


class State(StrEnum):
    """What an endpoint may get: requests; only what it has begun, and its sticky clients; nothing."""

    READY = "ready"
    DRAIN = "drain"
    DOWN = "down"


class Mode(StrEnum):
    """What a backend speaks."""

    HTTP = "http"
    TCP = "tcp"


class Balance(StrEnum):
    """How a backend chooses: the algorithms with which HAProxy takes new servers while it runs."""

    ROUNDROBIN = "roundrobin"
    LEASTCONN = "leastconn"
    FIRST = "first"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One instance. `uid` is its identity for life (a pod's UID, an announcement's key); an address may be reused."""

    uid: str
    address: str
    port: int
    state: State = State.READY
    weight: int = 100

    def __post_init__(self) -> None:
        try:
            canonical = str(ipaddress.ip_address(self.address))
        except ValueError:
            raise ModelError(
                f"endpoint {self.uid}: {self.address!r} is no IP address",
                "a balancer resolves no names while it runs",
                "announce the address itself",
            ) from None
        _require(bool(self.uid), "an endpoint has no uid")
        _require("%" not in canonical, f"endpoint {self.uid}: {self.address!r} has a zone")
        object.__setattr__(self, "address", canonical)
        _require(0 < self.port <= MAX_PORT, f"endpoint {self.uid}: {self.port} is no port (1 to {MAX_PORT})")
        _require(
            0 <= self.weight <= MAX_WEIGHT,
            f"endpoint {self.uid}: weight {self.weight} is not between 0 and {MAX_WEIGHT}",
        )


@dataclass(frozen=True, slots=True)
class Backend:
    """Instances that are alike. Timeouts are in seconds; None leaves them to the balancer's own defaults.

    `check_path` is what the balancer asks of each endpoint by itself; without it, the sources' word counts alone.
    `sticky_cookie` names the cookie that keeps a client with one endpoint.
    """

    id: str
    endpoints: tuple[Endpoint, ...] = ()
    mode: Mode = Mode.HTTP
    balance: Balance = Balance.ROUNDROBIN
    check_path: str | None = None
    connect_timeout: float | None = None
    read_timeout: float | None = None
    sticky_cookie: str | None = None

    def __post_init__(self) -> None:
        _require(bool(self.id), "a backend has no id")
        where = f"backend {self.id}"
        uids = [endpoint.uid for endpoint in self.endpoints]
        _require(len(set(uids)) == len(uids), f"{where}: two endpoints share a uid")
        object.__setattr__(self, "endpoints", tuple(sorted(self.endpoints, key=lambda endpoint: endpoint.uid)))
        for name, seconds in (("connect", self.connect_timeout), ("read", self.read_timeout)):
            _require(
                seconds is None or 0 < seconds <= MAX_TIMEOUT,
                f"{where}: a {name} timeout of {seconds} s is not between 0 and a day",
            )
        if self.check_path is not None:
            _require(self.mode is Mode.HTTP, f"{where}: a path is checked over HTTP, and this backend is TCP")
            _require(bool(_CHECK_PATH.fullmatch(self.check_path)), f"{where}: {self.check_path!r} is no path to check")
        if self.sticky_cookie is not None:
            _require(self.mode is Mode.HTTP, f"{where}: cookies are of HTTP, and this backend is TCP")
            _require(
                bool(_TOKEN.fullmatch(self.sticky_cookie)), f"{where}: {self.sticky_cookie!r} is no name for a cookie"
            )


@dataclass(frozen=True, slots=True)
class Route:
    """Requests of HTTP that go to one backend.

    `host` is a name, `*.` with a name (one label more), or empty for any. `path` is a prefix in whole segments
    (`/a` takes `/a` and `/a/b`, not `/ab`) or, with `exact`, the path itself. `headers` must all have these values.
    """

    id: str
    backend: str
    host: str = ""
    path: str = "/"
    exact: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    priority: int = 0

    def __post_init__(self) -> None:
        where = f"route {self.id}"
        host = self.host.lower().removesuffix(".")
        _require(not host or bool(_HOST.fullmatch(host)), f"{where}: {self.host!r} is no host name")
        _require(bool(_PATH.fullmatch(self.path)), f"{where}: {self.path!r} is no path")
        for name, value in self.headers:
            _require(bool(_TOKEN.fullmatch(name)), f"{where}: {name!r} is no name of a header")
            _require(bool(_HEADER_VALUE.fullmatch(value)), f"{where}: {value!r} is no value for the header {name}")
        object.__setattr__(self, "host", host)
        object.__setattr__(self, "headers", tuple(sorted((name.lower(), value) for name, value in self.headers)))
        if not self.exact:
            object.__setattr__(self, "path", self.path.rstrip("/") or "/")

    @property
    def match(self) -> tuple[str, str, bool, tuple[tuple[str, str], ...]]:
        """What the route takes; two routes that take the same conflict."""
        return self.host, self.path, self.exact, self.headers


@dataclass(frozen=True, slots=True)
class TcpRoute:
    """Connections to one port of the balancer that go to one backend."""

    id: str
    backend: str
    port: int

    def __post_init__(self) -> None:
        _require(0 < self.port <= MAX_PORT, f"route {self.id}: {self.port} is no port (1 to {MAX_PORT})")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a source or the merge left out: `subject` names it, `message` says why."""

    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What one source wants."""

    backends: tuple[Backend, ...] = ()
    routes: tuple[Route, ...] = ()
    tcp_routes: tuple[TcpRoute, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """The one state to which balancers are moved, and what was left out on the way: see `merge`."""

    backends: Mapping[str, Backend] = field(default_factory=lambda: MappingProxyType({}))
    routes: tuple[Route, ...] = ()
    tcp_routes: tuple[TcpRoute, ...] = ()
    problems: tuple[Problem, ...] = ()


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ModelError(otherwise)
