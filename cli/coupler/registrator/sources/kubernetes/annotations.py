"""Annotations → what they ask for. Never raises: what is wrong becomes a complaint in words.

A wrong annotation that says where requests go (`decisive`) takes its object out of the routing, since a guess could
send them anywhere; any other wrong one is left out alone.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from coupler.registrator.model import MAX_PORT, MAX_WEIGHT, Balance, Middleware, ModelError, Policy
from coupler.registrator.sources.kubernetes import values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ANCESTOR = "serviceloadbalancer/"
"""The prefix of the service-loadbalancer of kubernetes/contrib, whose annotations are read too."""

POD, SERVICE, INGRESS, ROUTE = "Pod", "Service", "Ingress", "HTTPRoute"
_ANY = frozenset((POD, SERVICE, INGRESS, ROUTE))
_WORKLOADS = frozenset((POD, SERVICE))
_RULES = frozenset((SERVICE, INGRESS))


@dataclass(frozen=True, slots=True)
class Asked:
    """What an object's annotations ask for. `complaints` say what is wrong; `broken`: one of that is decisive."""

    hosts: tuple[str, ...] = ()
    path: str | None = None
    exact: bool = False
    port: str | None = None
    tcp_port: int | None = None
    backend: str | None = None
    weight: int = 100
    drain_seconds: float | None = None
    tls_secret: str | None = None
    redirect: bool = False
    hsts: int | None = None
    canary_percent: int | None = None
    canary_header: tuple[str, str] | None = None
    priority: int = 0
    middlewares: tuple[Middleware, ...] = ()
    policy: Policy = field(default_factory=Policy)
    complaints: tuple[str, ...] = ()
    broken: bool = False

    @property
    def of_http(self) -> bool:
        """Whether a route of HTTP is asked for."""
        return bool(self.hosts) or self.path is not None


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation: what it does, what it may be, where it has a meaning, and how its text is read.

    `read` returns fields of `Asked`, or of `Policy` where `of_policy`. It raises ValueError with the reason.
    """

    name: str
    meaning: str
    allowed: str
    read: Callable[[str], Mapping[str, Any]]
    on: frozenset[str] = _ANY
    of_policy: bool = False
    decisive: bool = False


_SECONDS = "a time, such as 5s, 500ms, 2m or 2 (seconds)"
_BOOLEAN = "true or false"

ANNOTATIONS = MappingProxyType(
    {
        annotation.name: annotation
        for annotation in (
            Annotation(
                "host",
                "the host whose requests are taken; several are separated by commas",
                "a host name, or `*.` with a name",
                values.hosts,
                _WORKLOADS,
                decisive=True,
            ),
            Annotation(
                "path",
                "the path that is taken, with everything below it",
                "a path that begins with `/`",
                values.path,
                _WORKLOADS,
                decisive=True,
            ),
            Annotation(
                "exact", "only the path itself is taken", _BOOLEAN, values.flag("exact"), _WORKLOADS, decisive=True
            ),
            Annotation(
                "port",
                "the port of the pod or Service that requests go to",
                "a port's name or number",
                values.port,
                _WORKLOADS,
                decisive=True,
            ),
            Annotation(
                "tcp-port",
                "the balancer's port whose connections are taken",
                f"a number from 1 to {MAX_PORT}",
                values.whole("tcp_port", 1, MAX_PORT),
                _WORKLOADS,
                decisive=True,
            ),
            Annotation(
                "backend",
                "the pods that say the same form one backend",
                "letters, digits, `-`, `_` and `.`",
                values.group,
                frozenset((POD,)),
                decisive=True,
            ),
            Annotation(
                "weight",
                "how much an endpoint gets in relation to others",
                f"a number from 0 to {MAX_WEIGHT}",
                values.whole("weight", 0, MAX_WEIGHT),
                _WORKLOADS,
            ),
            Annotation(
                "drain-seconds",
                "how long a terminating pod may finish what it has begun; without it, until it is gone",
                _SECONDS,
                values.time("drain_seconds"),
                frozenset((POD,)),
            ),
            Annotation(
                "priority",
                "of two routes that take the same requests the higher one counts",
                "a number from -1000 to 1000",
                values.whole("priority", -1000, 1000),
                _ANY - {ROUTE},
                decisive=True,
            ),
            Annotation(
                "canary-percent",
                "the part of the requests that this object takes from another one's route for the same host and path",
                "a number from 0 to 100",
                values.whole("canary_percent", 0, 100),
                _RULES,
                decisive=True,
            ),
            Annotation(
                "canary-header",
                "only requests with this header are taken",
                "`Name: value`",
                values.header,
                _RULES,
                decisive=True,
            ),
            Annotation(
                "tls-secret",
                "the Secret, of type kubernetes.io/tls, with the certificate of the host",
                "the name of a Secret in the same namespace",
                values.secret,
                _WORKLOADS,
            ),
            Annotation(
                "redirect-to-ssl",
                "plain requests for the hosts, where they have a certificate, are sent to TLS",
                _BOOLEAN,
                values.flag("redirect"),
                _ANY - {ROUTE},
            ),
            Annotation("hsts", "how long clients are to use TLS only", _SECONDS, values.hsts, _ANY - {ROUTE}),
            Annotation("scheme", "what the endpoints speak", "http or https", values.scheme, of_policy=True),
            Annotation(
                "balance",
                "how an endpoint is chosen",
                ", ".join(Balance),
                values.balance,
                of_policy=True,
            ),
            Annotation(
                "sticky-cookie",
                "the cookie that keeps a client with one endpoint",
                "a name (letters, digits, `-`, `_`), true or false",
                values.cookie("coupler"),
                of_policy=True,
            ),
            Annotation(
                "check-path",
                "what the balancer itself asks of each endpoint",
                "a path that begins with `/`",
                lambda text: {"check_path": text},
                of_policy=True,
            ),
            Annotation(
                "connect-timeout",
                "how long a connection may take",
                _SECONDS,
                values.time("connect_timeout"),
                of_policy=True,
            ),
            Annotation(
                "dial-timeout", "the same as connect-timeout", _SECONDS, values.time("connect_timeout"), of_policy=True
            ),
            Annotation(
                "read-timeout", "how long an answer may take", _SECONDS, values.time("read_timeout"), of_policy=True
            ),
            Annotation(
                "websocket",
                f"upgraded connections may be silent for {values.LONG_TUNNEL / 3600:.0f} hour",
                _BOOLEAN,
                values.websocket,
                of_policy=True,
            ),
            Annotation(
                "tunnel-timeout",
                "how long an upgraded connection (WebSocket) may be silent",
                _SECONDS,
                values.time("tunnel_timeout"),
                of_policy=True,
            ),
            Annotation(
                "max-body",
                "how large a request's body may be",
                "bytes, or a size such as 10m or 1Gi (powers of 1024)",
                values.size,
                of_policy=True,
            ),
            Annotation(
                "rate-limit",
                "how many requests a second one client address may make",
                "a number above 0",
                values.whole("rate_limit", 1, 10**6),
                of_policy=True,
            ),
            Annotation(
                "proxy-protocol",
                "endpoints are told the client's address by the PROXY protocol, version 2",
                _BOOLEAN,
                values.flag("send_proxy"),
                of_policy=True,
            ),
        )
    }
)
"""Ours, in the order of the manual. Later ones win over earlier ones that set the same."""

MIDDLEWARE = "middleware."
"""What begins so is a middleware of vulcand: its id follows, its value is its JSON text."""

OF_ANCESTOR = MappingProxyType(
    {
        annotation.name: annotation
        for annotation in (
            Annotation("lb.host", "as host", "a host name", values.hosts, frozenset((SERVICE,)), decisive=True),
            Annotation(
                "lb.algorithm", "as balance", ", ".join(Balance), values.balance, frozenset((SERVICE,)), of_policy=True
            ),
            Annotation(
                "lb.sslTerm",
                "name the certificate by tls-secret",
                "false",
                values.ssl_termination,
                frozenset((SERVICE,)),
            ),
            Annotation("lb.aclMatch", "as path", "a path", values.acl, frozenset((SERVICE,)), decisive=True),
            Annotation(
                "lb.cookie-sticky-session",
                "as sticky-cookie, named SERVERID",
                _BOOLEAN,
                values.cookie("SERVERID"),
                frozenset((SERVICE,)),
                of_policy=True,
            ),
        )
    }
)
"""The ancestor's: what ours say wins."""

_READ_TOGETHER = frozenset(("lb.http", "lb.tcp", "lb.node"))
"""Forks of the ancestor wrote these; they are nobody's mistake, and mean nothing here."""


@lru_cache(maxsize=2**15)
def read(
    annotations: tuple[tuple[str, str], ...], prefix: str, on: str, base: tuple[tuple[str, str], ...] = ()
) -> Asked:
    """Return what `annotations`, of an object of the kind `on`, ask for.

    `base` are annotations of the Service behind it: what they say of its policy holds unless said otherwise here.
    """
    given = dict(annotations)
    inherited = {name: text for name, text in base if name not in given and _of_policy(name, prefix)}
    reading = _Reading(prefix, on)
    for annotation in OF_ANCESTOR.values():
        reading.take(annotation, ANCESTOR, given, inherited)
    for annotation in ANNOTATIONS.values():
        reading.take(annotation, prefix, given, inherited)
    for name, text in given.items():
        if name.startswith(prefix + MIDDLEWARE):
            reading.middleware(name, text)
        else:
            reading.unknown(name, text)
    if on == SERVICE and given.get(f"{ANCESTOR}lb.sslTerm", "").lower() == "true" and reading.asked.tls_secret:
        reading.forget(f"{ANCESTOR}lb.sslTerm")
    return replace(reading.asked, complaints=tuple(reading.complaints))


def _of_policy(name: str, prefix: str) -> bool:
    own = ANNOTATIONS.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
    ancestors = OF_ANCESTOR.get(name.removeprefix(ANCESTOR)) if name.startswith(ANCESTOR) else None
    found = own or ancestors
    return found is not None and found.of_policy


class _Reading:
    """One object's annotations while they are read."""

    def __init__(self, prefix: str, on: str) -> None:
        self.prefix, self.on = prefix, on
        self.asked = Asked()
        self.complaints: list[str] = []

    def take(self, annotation: Annotation, prefix: str, given: Mapping[str, str], base: Mapping[str, str]) -> None:
        name = prefix + annotation.name
        if name in given and self.on not in annotation.on:
            self.complaints.append(f"{name}: {given[name]!r} has no meaning on objects of kind {self.on}")
            return
        if name not in given and name not in base:
            return
        text = given.get(name, base.get(name, ""))
        try:
            values = annotation.read(text)
            if annotation.of_policy:
                values = {"policy": replace(self.asked.policy, **values)}
            self.asked = replace(self.asked, **values)
        except (ValueError, ModelError) as error:
            if name in base:
                return  # it is the Service's own mistake, and said there
            self._complain(name, text, error, annotation.allowed)
            if annotation.decisive:
                self.asked = replace(self.asked, broken=True)

    def middleware(self, name: str, text: str) -> None:
        id_ = name.removeprefix(self.prefix + MIDDLEWARE)
        try:
            self.asked = replace(self.asked, middlewares=(*self.asked.middlewares, Middleware(id_, _document(text))))
        except ValueError as error:
            self._complain(name, text, error, "the JSON text of a middleware of vulcand")

    def unknown(self, name: str, text: str) -> None:
        prefix = self.prefix if name.startswith(self.prefix) else ANCESTOR if name.startswith(ANCESTOR) else None
        if prefix is None:
            return
        table, own = (ANNOTATIONS if prefix == self.prefix else OF_ANCESTOR), name.removeprefix(prefix)
        if own in table or own in _READ_TOGETHER:
            return
        near = difflib.get_close_matches(own, table, n=2)
        hint = (
            f"; did you mean {' or '.join(prefix + other for other in near)}?"
            if near
            else f"; known are {', '.join(table)}"
        )
        self.complaints.append(f"{name}: {text!r} is of no use: there is no such annotation{hint}")

    def forget(self, name: str) -> None:
        self.complaints = [text for text in self.complaints if not text.startswith(f"{name}:")]

    def _complain(self, name: str, text: str, error: Exception, allowed: str) -> None:
        why = error.what if isinstance(error, ModelError) else str(error)
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        self.complaints.append(f"{name}: {shown!r} cannot be used: {why}; allowed is {allowed}")


_SHOWN = 80


def _document(text: str) -> str:
    if not isinstance(json.loads(text), dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 (the text is wrong, not the program)
    return text
