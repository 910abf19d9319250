"""The desired state: what a balancer should send where. Immutable, and valid by construction.

A value that no balancer could carry is refused where it is made, with a `ModelError`, so that a bad announcement or
annotation harms itself alone. Texts are restricted to what is safe in a configuration file of HAProxy.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from coupler.errors import CouplerError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PORT, MAX_WEIGHT = 65535, 256
MAX_TIMEOUT = 86400.0
ACME_PATH = "/.well-known/acme-challenge/"
"""Where an authority looks whether a name is ours (RFC 8555, section 8.3)."""

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&()*+,;=:@%/-]*")
_CHECK_PATH = re.compile(r"/[A-Za-z0-9._~!$&()*+,;=:@%/?-]*")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_HEADER_VALUE = re.compile(r"(?!\}\Z)[\x21-\x26\x28-\x7e]([\x20-\x26\x28-\x7e]*[\x21-\x26\x28-\x7e])?")


class ModelError(CouplerError):
    """A value of the desired state is one that no balancer can carry."""


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ModelError(otherwise)


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
        if canonical != self.address:  # the same text twice would be a third of an endpoint's memory
            object.__setattr__(self, "address", canonical)
        _require(0 < self.port <= MAX_PORT, f"endpoint {self.uid}: {self.port} is no port (1 to {MAX_PORT})")
        _require(
            0 <= self.weight <= MAX_WEIGHT,
            f"endpoint {self.uid}: weight {self.weight} is not between 0 and {MAX_WEIGHT}",
        )


@dataclass(frozen=True, slots=True)
class Redirect:
    """An answer instead of an instance: the same URL, but for what is given here. `status` is a 3xx of RFC 9110."""

    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    path: str | None = None
    status: int = 302

    def __post_init__(self) -> None:
        _require(self.scheme in {None, "http", "https"}, f"redirect: {self.scheme!r} is no scheme")
        _require(self.host is None or bool(_HOST.fullmatch(self.host)), f"redirect: {self.host!r} is no host name")
        _require(self.port is None or 0 < self.port <= MAX_PORT, f"redirect: {self.port} is no port")
        _require(self.path is None or bool(_PATH.fullmatch(self.path)), f"redirect: {self.path!r} is no path")
        _require(self.status in _REDIRECTS, f"redirect: {self.status} is no status of a redirect")


@dataclass(frozen=True, slots=True)
class Policy:
    """How a backend is treated. What is None or empty is left to the balancer's own defaults.

    `check_path` is what the balancer asks of each endpoint by itself; without it, the sources' word counts alone.
    `sticky_cookie` names the cookie that keeps a client with one endpoint. Timeouts are in seconds: to connect, to wait
    for an answer, and how long an upgraded connection (WebSocket) may be silent. `tls`: the endpoints speak TLS (their
    certificates are not checked); `send_proxy`: they are told who asks by the PROXY protocol, version 2. `max_body` is
    in bytes, `rate_limit` in requests a second of one client address. `replace_prefix` (from, to) changes the path on
    its way. `redirect` answers in place of endpoints.
    """

    balance: Balance = Balance.ROUNDROBIN
    check_path: str | None = None
    connect_timeout: float | None = None
    read_timeout: float | None = None
    tunnel_timeout: float | None = None
    sticky_cookie: str | None = None
    tls: bool = False
    send_proxy: bool = False
    max_body: int | None = None
    rate_limit: int | None = None
    replace_prefix: tuple[str, str] | None = None
    set_headers: tuple[tuple[str, str], ...] = ()
    remove_headers: tuple[str, ...] = ()
    redirect: Redirect | None = None

    def __post_init__(self) -> None:
        timeouts = {"connect": self.connect_timeout, "read": self.read_timeout, "tunnel": self.tunnel_timeout}
        for name, seconds in timeouts.items():
            _require(
                seconds is None or 0 < seconds <= MAX_TIMEOUT,
                f"a {name} timeout of {seconds} s is not between 0 and a day",
            )
        for name, value, fits in (
            ("path to check", self.check_path, _CHECK_PATH),
            ("name for a cookie", self.sticky_cookie, _TOKEN),
            *(("path", path, _PATH) for path in self.replace_prefix or ()),
            *(("name of a header", name, _TOKEN) for name, _ in self.set_headers),
            *(("value of a header", value, _HEADER_VALUE) for _, value in self.set_headers),
            *(("name of a header", name, _TOKEN) for name in self.remove_headers),
        ):
            _require(value is None or bool(fits.fullmatch(value)), f"{value!r} is no {name}")
        _require(self.max_body is None or self.max_body > 0, f"a body of at most {self.max_body} bytes is none")
        _require(self.rate_limit is None or self.rate_limit > 0, f"a rate of {self.rate_limit} requests is none")

    @property
    def of_http(self) -> tuple[str, ...]:
        """Return the names of what is set and has a meaning for HTTP alone."""
        return tuple(name for name in _OF_HTTP if getattr(self, name))


_OF_HTTP = (
    "check_path",
    "sticky_cookie",
    "max_body",
    "rate_limit",
    "replace_prefix",
    "set_headers",
    "remove_headers",
    "redirect",
)
_DEFAULT_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Backend:
    """Instances that are alike, in the order of their uids."""

    id: str
    endpoints: tuple[Endpoint, ...] = ()
    mode: Mode = Mode.HTTP
    policy: Policy = _DEFAULT_POLICY

    def __post_init__(self) -> None:
        _require(bool(self.id), "a backend has no id")
        where = f"backend {self.id}"
        if len({endpoint.uid for endpoint in self.endpoints}) != len(self.endpoints):
            raise ModelError(f"{where}: two endpoints share a uid")
        object.__setattr__(self, "endpoints", tuple(sorted(self.endpoints, key=lambda endpoint: endpoint.uid)))
        if self.mode is Mode.TCP and self.policy is not _DEFAULT_POLICY:
            words = ", ".join(self.policy.of_http).replace("_", "-")
            _require(not words, f"{where}: {words} is for HTTP, and this backend is TCP")


@dataclass(frozen=True, slots=True)
class Middleware:
    """A middleware of vulcand: `document` is the JSON text of its key `frontends/…/middlewares/<id>`."""

    id: str
    document: str


@dataclass(frozen=True, slots=True)
class Route:
    """Requests of HTTP that go to one backend.

    `host` is a name, `*.` with a name (one label more), or empty for any. `path` is a prefix in whole segments
    (`/a` takes `/a` and `/a/b`, not `/ab`) or, with `exact`, the path itself. `headers` must all have these values.
    `middlewares` are vulcand's own, passed on as they are; other balancers do not know them.
    """

    id: str
    backend: str
    host: str = ""
    path: str = "/"
    exact: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    priority: int = 0
    middlewares: tuple[Middleware, ...] = ()

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
class Certificate:
    """A chain, the server's own certificate first, and its private key, both in PEM and known to belong together."""

    chain: str
    key: str = field(repr=False)

    def __post_init__(self) -> None:
        descriptor = os.memfd_create("certificate")
        try:
            os.write(descriptor, self.pem.encode())
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(f"/proc/self/fd/{descriptor}", password=b"")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            raise ModelError(
                "a certificate cannot be used", str(reason).replace("_", " ").lower(), "are chain and key of one pair?"
            ) from None
        finally:
            os.close(descriptor)

    @property
    def pem(self) -> str:
        """Return chain and key as one text, as HAProxy reads it."""
        return f"{self.chain.strip()}\n{self.key.strip()}\n"


@dataclass(frozen=True, slots=True)
class Host:
    """What holds for a whole host: `name` as in a route, empty for names that no other host has.

    With `certificate` it is served over TLS too. `redirect` sends plain requests to TLS, all but those for
    `ACME_PATH`, by which certificates are renewed. `hsts` is the time in seconds of Strict-Transport-Security
    (RFC 6797), sent with answers over TLS.
    """

    name: str
    certificate: Certificate | None = None
    redirect: bool = False
    hsts: int | None = None

    def __post_init__(self) -> None:
        name = self.name.lower().removesuffix(".")
        _require(not name or bool(_HOST.fullmatch(name)), f"{self.name!r} is no host name")
        _require(self.hsts is None or self.hsts >= 0, f"host {name}: {self.hsts} s of HSTS are none")
        object.__setattr__(self, "name", name)


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
    hosts: tuple[Host, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """The one state to which balancers are moved, and what was left out on the way: see `merge`."""

    backends: Mapping[str, Backend] = field(default_factory=lambda: MappingProxyType({}))
    routes: tuple[Route, ...] = ()
    tcp_routes: tuple[TcpRoute, ...] = ()
    hosts: tuple[Host, ...] = ()
    problems: tuple[Problem, ...] = ()
