"""Desired state → our two files for nginx, one inside its `http {}` and one inside its `stream {}`. Pure, byte-stable.

Both are ours as a whole: that is the owner mark, and nothing else is ever written. One server takes plain requests of
all hosts, looks up the backend (see `routes`) and rewrites the request to the location that serves it. Each host with a
certificate has a server of its own for TLS, with the locations that its requests can come to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from coupler.registrator.balancers.nginx import routes as routing
from coupler.registrator.balancers.nginx import upstreams
from coupler.registrator.balancers.nginx.text import COMMON, Line, Subject, block, lines, quoted
from coupler.registrator.model import ACME_PATH, Mode
from coupler.registrator.routing import WILDCARD_HOST, host_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence, Set
    from pathlib import Path

    from coupler.registrator.model import Backend, Certificate, Desired, Host, Route

_HEAD = "# Written by coupler's registrator: what is changed here by hand is lost.\n"
_HTTPS_PORT = "443"
_BUCKET = 512  # bytes; a name and the start of a path must fit


@dataclass(frozen=True, slots=True)
class NginxSettings:
    """Where our files lie, what they listen on, and how to find nginx.

    `folder` holds our files, and certificates in a folder of their own. `http_binds` and `https_binds` are
    `address:port` as `listen` has them; `tcp_address` is where TCP routes listen (`*`: every IPv4 address). `program`
    is nginx, `main` the user's configuration file, which includes ours by name, `pid_file` its master's. `status` is
    an address of loopback on which nginx says which generation of our files it runs (no socket in the file system:
    one that a killed nginx leaves behind would keep the next from starting). `accept_proxy`: whoever connects to any
    of the others speaks the PROXY protocol first. `hash_sizes`: our file sets `map_hash_*` and `server_names_hash_*`;
    False where the user's own does, for nginx takes them once.
    """

    folder: Path
    main: Path
    pid_file: Path
    http_binds: tuple[str, ...] = ()
    https_binds: tuple[str, ...] = ()
    tcp_address: str = "*"
    program: str = "nginx"
    status: str = "127.0.0.1:10299"
    accept_proxy: bool = False
    hash_sizes: bool = True

    @property
    def http(self) -> Path:
        """Return our file inside `http {}`."""
        return self.folder / "coupler-http.conf"

    @property
    def stream(self) -> Path:
        """Return our file inside `stream {}`."""
        return self.folder / "coupler-stream.conf"

    @property
    def certificates(self) -> Path:
        """Return the folder of chains and keys."""
        return self.folder / "coupler-certificates"


@dataclass(frozen=True, slots=True)
class Texts:
    """Our files, and by name the certificates that they use. `generation` stands for all of it."""

    http: str
    stream: str
    generation: str
    certificates: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rendered:
    """Our files, line by line."""

    http: tuple[Line, ...]
    stream: tuple[Line, ...]
    certificates: Mapping[str, str]

    def without(self, left_out: Set[Subject]) -> Rendered:
        """Return the files without the lines of those subjects."""
        if not left_out:
            return self
        http, stream = (tuple(li for li in part if li.subject not in left_out) for part in (self.http, self.stream))
        return Rendered(http, stream, self.certificates)

    def texts(self) -> Texts:
        """Return the files as texts."""
        http, stream = _joined(self.http), _joined(self.stream)
        generation = blake2b(f"{http}\0{stream}".encode(), digest_size=16).hexdigest()
        return Texts(http.replace(_GENERATION, generation), stream, generation, self.certificates)

    def blamed(self, http_line: int | None, stream_line: int | None) -> Subject | None:
        """Return on whose behalf a line (from 1) of a text stands; None if it is nobody's in particular."""
        for part, number in ((self.http, http_line), (self.stream, stream_line)):
            index = (number or 0) - 1 - _HEAD.count("\n")
            if 0 <= index < len(part) and part[index].subject != COMMON:
                return part[index].subject
        return None

    def of(self, subject: Subject) -> str:
        """Return all lines of a subject."""
        return _joined(line for line in (*self.http, *self.stream) if line.subject == subject)


_GENERATION = "(generation)"


def certificate_file(certificate: Certificate) -> str:
    """Return the name of the file of a certificate: another one for every content."""
    return f"{blake2b(certificate.pem.encode(), digest_size=16).hexdigest()}.pem"


def impossible(desired: Desired) -> dict[str, str]:
    """Return what nginx cannot do for the backends of `desired`: id of the backend → why."""
    failed = {route.backend: why for route in desired.routes if (why := routing.impossible(route))}
    return failed | {b.id: why for b in desired.backends.values() if (why := upstreams.impossible(b))}


def render(desired: Desired, settings: NginxSettings) -> Rendered:
    """Return our files for `desired`."""
    backends = [backend for backend in desired.backends.values() if backend.mode is Mode.HTTP]
    targets = {backend.id: upstreams.target(backend) for backend in backends}
    routes = [r for r in desired.routes if r.backend in targets and routing.impossible(r) is None]
    http = lines(f"server {{ listen {settings.status}; access_log off; return 200 {_GENERATION}; }}")
    if settings.http_binds or settings.https_binds:
        http += _common(settings)
        for backend in backends:
            http += upstreams.upstreams(backend)
        http += routing.routing(routes, targets)
        http += _host_maps(desired.hosts, settings)
        http += _servers(desired.hosts, routes, backends, settings)
    certificates = [host.certificate for host in desired.hosts if host.certificate] if settings.https_binds else []
    return Rendered(tuple(http), tuple(_stream(desired, settings)), {certificate_file(c): c.pem for c in certificates})


def _joined(part: Iterable[Line]) -> str:
    return _HEAD + "".join(f"{line.text}\n" for line in part)


def _common(settings: NginxSettings) -> list[Line]:
    """Return what all servers rest on."""
    sizes = (
        f"map_hash_bucket_size {_BUCKET};",
        "map_hash_max_size 10000;",
        f"server_names_hash_bucket_size {_BUCKET};",
        "server_names_hash_max_size 10000;",
    )
    return lines(
        *(sizes if settings.hash_sizes else ()),
        'geo $coupler_dollar { default "$"; }',
        'map $http_upgrade $coupler_upgrade { websocket websocket; default ""; }',  # and no upgrade to plain HTTP/2
        'map $coupler_upgrade $coupler_connection { websocket upgrade; default ""; }',
        f"map $http_host $coupler_port {{ {quoted('~(:[0-9]+)$')} $1; }}",
        f"map $upstream_addr $coupler_server {{ {quoted('~([^ ,]+)$')} $1; }}",  # the last one that was tried
    )


def _host_maps(hosts: Sequence[Host], settings: NginxSettings) -> list[Line]:
    """Return the maps for what holds for whole hosts: redirects to TLS, and Strict-Transport-Security."""
    served = {host.name for host in hosts if host.certificate} if settings.https_binds else set()
    redirects = {host.name: "1" if host.redirect and _covered(host.name, served) else '""' for host in hosts}
    ages = {host.name: '""' if host.hsts is None else f"max-age={host.hsts}" for host in hosts}
    plain = quoted(rf"~^ 1 (?!{re.escape(ACME_PATH)})")
    return [
        *_host_map("redirect", redirects),
        *lines(f'map "$https $coupler_redirect $coupler_path" $coupler_to_tls {{ {plain} 1; }}'),
        *_host_map("age", ages),
        *lines("map $https $coupler_hsts { on $coupler_age; }"),
    ]


def _covered(host: str, served: Set[str]) -> bool:
    """Whether clients of a host are shown a certificate: its own, the wildcard's, or the default."""
    return bool(served & {host, _wildcard(host), ""})


def _wildcard(host: str) -> str:
    return f"*.{host.partition('.')[2]}"


def _host_map(name: str, values: Mapping[str, str]) -> list[Line]:
    """Return maps from the host of a request to a value, in the order exact, wildcard, any."""
    wild = [f"{quoted(h)} {value};" for h, value in values.items() if host_kind(h) == WILDCARD_HOST]
    exact = [f"{quoted(h)} {value};" for h, value in values.items() if h and host_kind(h) != WILDCARD_HOST]
    return [
        *block(f"map $coupler_wild $coupler_{name}_wild", lines(f"default {values.get('', _EMPTY)};", *wild)),
        *block(f"map $host $coupler_{name}", lines(f"default $coupler_{name}_wild;", *exact)),
    ]


_EMPTY = '""'


def _servers(
    hosts: Sequence[Host], routes: Sequence[Route], backends: Sequence[Backend], settings: NginxSettings
) -> list[Line]:
    locations = {backend.id: upstreams.location(backend) for backend in backends}
    text: list[Line] = []
    if settings.http_binds:
        listens = [f"listen {bind} default_server{_proxy(settings)};" for bind in settings.http_binds]
        text += _server([*listens, *_to_tls(settings)], locations.values(), settings)
    if not settings.https_binds:
        return text
    reach = _Reach(routes)
    default = False
    for host in hosts:
        if host.certificate is None:
            continue
        default = default or not host.name
        path = quoted(str(settings.certificates / certificate_file(host.certificate)))
        head = [*_listens_tls(settings, default=not host.name), *_name(host.name)]
        head += [f"ssl_certificate {path};", f"ssl_certificate_key {path};", "ssl_protocols TLSv1.2 TLSv1.3;"]
        own = (
            locations
            if not host.name
            else {id_: locations[id_] for id_ in sorted(reach.of(host.name) & set(locations))}
        )
        text += _server(head, own.values(), settings)
    if not default:  # a client that asks over the connection of another host is told to make its own
        head = [*_listens_tls(settings, default=True), "ssl_reject_handshake on;", "return 421;"]
        text += block("server", lines(*head))
    return text


class _Reach:
    """The backends to which requests of a host can come."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._own = routing.by_host(routes)
        self._under: dict[str, set[str]] = {}
        for host, backends in self._own.items():
            self._under.setdefault(_wildcard(host), set()).update(backends)

    def of(self, host: str) -> set[str]:
        own, everywhere = self._own.get(host, set()), self._own.get("", set())
        if host_kind(host) == WILDCARD_HOST:
            return own | everywhere | self._under.get(host, set())
        return own | everywhere | self._own.get(_wildcard(host), set())


def _proxy(settings: NginxSettings) -> str:
    return " proxy_protocol" if settings.accept_proxy else ""


def _listens_tls(settings: NginxSettings, *, default: bool) -> list[str]:
    first = " default_server" if default else ""
    return [f"listen {bind} ssl http2{first}{_proxy(settings)};" for bind in settings.https_binds]


def _name(host: str) -> list[str]:
    if host_kind(host) == WILDCARD_HOST:  # nginx's own wildcards take several labels
        return [f"server_name {quoted(f'~^[^.]+{re.escape(host[1:])}$')};"]
    return [f"server_name {quoted(host)};"] if host else []


def _to_tls(settings: NginxSettings) -> list[str]:
    if not settings.https_binds:
        return []
    port = settings.https_binds[0].rpartition(":")[2]
    shown = "" if port == _HTTPS_PORT else f":{port}"
    return [f"if ($coupler_to_tls) {{ return 308 https://$host{shown}$request_uri; }}"]


def _server(head: Sequence[str], locations: Iterable[Sequence[Line]], settings: NginxSettings) -> list[Line]:
    real = ("real_ip_header proxy_protocol;", *_TRUST) if settings.accept_proxy else ()
    body = lines(
        *head,
        *real,
        *_PROXYING,
        *(f"proxy_set_header {name} {value};" for name, value in upstreams.HEADERS),
        upstreams.HSTS,
        f"rewrite ^ /{routing.TARGET} last;",
        "location = / { return 404; }",  # no route
        "location / { return 503; }",  # a route to a backend that could not be served
    )
    body += upstreams.shared_location(routing.TARGET)
    for location in locations:
        body += location
    return block("server", body)


_TRUST = ("set_real_ip_from 0.0.0.0/0;", "set_real_ip_from ::/0;")
_PROXYING = (
    "proxy_http_version 1.1;",
    "proxy_buffering off;",  # what an instance sends goes on at once, as do bodies of requests
    "proxy_request_buffering off;",
    "proxy_buffer_size 16k;",
    "proxy_buffers 8 16k;",
    "proxy_busy_buffers_size 32k;",
    "proxy_headers_hash_bucket_size 256;",
    "proxy_next_upstream error timeout;",  # of what may be asked twice: neither POST nor PATCH
    "proxy_next_upstream_tries 3;",
    "proxy_redirect off;",
    "proxy_ssl_server_name on;",
    "proxy_ssl_name $host;",
    "proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Charset;",
)


def _stream(desired: Desired, settings: NginxSettings) -> list[Line]:
    text: list[Line] = []
    led = {route.backend for route in desired.tcp_routes}
    for backend in desired.backends.values():
        if backend.mode is Mode.TCP and backend.id in led:
            text += upstreams.upstreams(backend)
    for route in desired.tcp_routes:
        found = desired.backends.get(route.backend)
        if found is None:
            continue
        address = f"[{settings.tcp_address}]" if ":" in settings.tcp_address else settings.tcp_address
        trust = _TRUST if settings.accept_proxy else ()
        head = lines(f"listen {address}:{route.port}{_proxy(settings)};", *trust)
        subject = Subject(f"route {route.id}", (route.backend,))
        server = block("server", [*head, *upstreams.stream_server(found)])
        text += [Line(line.text, subject) for line in server]
    return text


def listening(stream: str) -> frozenset[int]:
    """Return the ports that our file for TCP has nginx listen on."""
    return frozenset(int(port) for port in re.findall(r"^ *listen \S*:(\d+)[ ;]", stream, re.MULTILINE))
