"""Backends → upstreams of nginx, and the location in which a backend's policy holds. Pure.

A backend is an upstream of its ready endpoints. One location serves all backends that have no policy: every location
that leads to a variable upstream costs nginx a tenth of a millisecond at each reload, and memory for TLS. With a sticky
cookie each endpoint has an upstream of its own too, even while it drains: the cookie, which holds a digest of the
endpoint's uid, chooses it, and a few others stand behind it in case it fails.

What nginx cannot do: `first` sends all to the first endpoint and has the others as reserve, for there is no limit at
which the next one would begin; `check_path` is not asked, and instead an endpoint that fails a request is left alone
for `_FAIL_TIMEOUT`; weights and counts are kept by each worker process for itself; endpoints of TCP are told who asks
by version 1 of the PROXY protocol, those of HTTP not at all.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from coupler.registrator.balancers.nginx.text import (
    OWNER,
    Line,
    Subject,
    block,
    lines,
    literal,
    milliseconds,
    name_of,
    quoted,
    variable,
)
from coupler.registrator.model import Balance, Mode, Policy, State
from coupler.registrator.names import digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coupler.registrator.model import Backend, Endpoint, Redirect

_BALANCE = {Balance.LEASTCONN: ("least_conn;",), Balance.RANDOM: ("random;",)}
_FAIL_TIMEOUT = "2s"
_KEPT = ("keepalive 32;", "keepalive_timeout 1s;")
"""Idle connections go soon, before most servers close them: a request that meets a closed one may be lost."""
_RESERVES = 3
_ZONE_SIZE = "2m"  # some 16,000 addresses; older ones make room

HEADERS = (
    ("Host", "$http_host"),
    ("Connection", "$coupler_connection"),
    ("Upgrade", "$coupler_upgrade"),
    ("X-Forwarded-For", "$proxy_add_x_forwarded_for"),
    ("X-Forwarded-Proto", "$scheme"),
    ("X-Forwarded-Host", "$http_host"),
)
"""What every backend is told, as (header, value)."""


def impossible(backend: Backend) -> str | None:
    """Return why nginx cannot serve this backend; None if it can."""
    if backend.mode is Mode.HTTP and backend.policy.send_proxy:
        return "nginx does not speak the PROXY protocol to servers of HTTP"
    return None


def subject_of(backend: Backend) -> Subject:
    """Return on whose behalf the lines of a backend stand."""
    return Subject(f"backend {backend.id}", (backend.id,))


def target(backend: Backend) -> str:
    """Return where requests for a backend are led: to its upstream, or to a location of its own."""
    return name_of(backend.id) if is_plain(backend) else f"{_OWN}{name_of(backend.id)}"


def is_plain(backend: Backend) -> bool:
    """Whether a backend has endpoints, and needs no location of its own."""
    return bool(_ready(backend)) and replace(backend.policy, balance=_PLAIN.balance, check_path=None) == _PLAIN


_OWN = "own:"
_PLAIN = Policy()


def shared_location(chosen: str) -> list[Line]:
    """Return the location for all backends that are plain; the variable `chosen` has the name of the upstream."""
    return block(f"location /{OWNER}", lines(f"proxy_pass http://{chosen}$request_uri;"))


def upstreams(backend: Backend) -> list[Line]:
    """Return what stands outside of servers: upstreams, and the maps and the zone of the policy."""
    subject = subject_of(backend)
    name, policy = name_of(backend.id), backend.policy
    ready = _ready(backend)
    text: list[Line] = []
    kept = _KEPT if backend.mode is Mode.HTTP else ()
    if ready:
        servers = _servers(ready, policy.balance)
        text += block(f"upstream {name}", lines(*_BALANCE.get(policy.balance, ()), *servers, *kept), subject)
    if policy.rate_limit:
        zone = f"zone={name}:{_ZONE_SIZE} rate={policy.rate_limit}r/s"
        text += lines(f"limit_req_zone $binary_remote_addr {zone};")
    if policy.replace_prefix:
        entries = lines("default $request_uri;", *_rewrites(*policy.replace_prefix))
        text += block(f"map $request_uri {variable('uri', name)}", entries)
    if policy.sticky_cookie:
        text += _sticky(backend, policy.sticky_cookie, ready)
    return [Line(line.text, subject) for line in text]


def location(backend: Backend) -> list[Line]:
    """Return the location in which the policy of a backend holds; nothing for one that is plain."""
    if is_plain(backend):
        return []
    name, policy = name_of(backend.id), backend.policy
    common: list[Line] = []
    if policy.rate_limit:
        burst = f" burst={policy.rate_limit - 1} nodelay" if policy.rate_limit > 1 else ""
        common += lines(f"limit_req zone={name}{burst};", "limit_req_status 429;")
    if policy.max_body:
        common += lines(f"client_max_body_size {policy.max_body};")
    answer = _answer(backend)
    waits = lines(f"proxy_read_timeout {milliseconds(policy.read_timeout)};") if policy.read_timeout else []
    text: list[Line] = []
    if policy.tunnel_timeout and not policy.redirect:
        silent = milliseconds(policy.tunnel_timeout)
        waits = [*lines(f"if ($coupler_upgrade) {{ rewrite ^ /{_OWN}{name}:tunnel last; }}"), *waits]
        tunnel = lines(f"proxy_read_timeout {silent};", f"proxy_send_timeout {silent};")
        text += block(f"location = /{_OWN}{name}:tunnel", [*common, *tunnel, *answer])
    text = [*block(f"location = /{_OWN}{name}", [*common, *waits, *answer]), *text]
    return [Line(line.text, subject_of(backend)) for line in text]


def stream_server(backend: Backend) -> list[Line]:
    """Return what a server for TCP does with its connections. Without endpoints it closes them."""
    policy = backend.policy
    if not _ready(backend):
        return lines('return "";')
    text = lines(f"proxy_pass {name_of(backend.id)};")
    if policy.connect_timeout:
        text += lines(f"proxy_connect_timeout {milliseconds(policy.connect_timeout)};")
    silent = policy.tunnel_timeout or policy.read_timeout
    if silent:
        text += lines(f"proxy_timeout {milliseconds(silent)};")
    if policy.send_proxy:
        text += lines("proxy_protocol on;")
    if policy.tls:
        text += lines("proxy_ssl on;")
    return text


def _ready(backend: Backend) -> list[Endpoint]:
    return [endpoint for endpoint in backend.endpoints if endpoint.state is State.READY and endpoint.weight]


def _address(endpoint: Endpoint) -> str:
    return f"[{endpoint.address}]:{endpoint.port}" if ":" in endpoint.address else f"{endpoint.address}:{endpoint.port}"


def _server(endpoint: Endpoint, *, reserve: bool = False) -> str:
    backup = " backup" if reserve else ""
    return f"server {_address(endpoint)} weight={endpoint.weight or 1} fail_timeout={_FAIL_TIMEOUT}{backup};"


def _servers(ready: Iterable[Endpoint], balance: Balance) -> list[str]:
    return [_server(e, reserve=balance is Balance.FIRST and place > 0) for place, e in enumerate(ready)]


def _rewrites(old: str, new: str) -> list[str]:
    """Return the entries of a map of URLs that put `new` in place of `old`, in whole segments."""
    old, new = re.escape(old.rstrip("/")), literal(new.rstrip("/"))
    rest = quoted(rf"~^{old}(/[^?]*)(\?.*)?$")
    alone = quoted(rf"~^{old}(\?.*)?$")
    root = new or "/"
    return [f"{rest} {quoted(f'{new}$1$2')};", f"{alone} {quoted(f'{root}$1')};"]


def _sticky(backend: Backend, cookie: str, ready: Sequence[Endpoint]) -> list[Line]:
    name = name_of(backend.id)
    able = {digest(e.uid): e for e in reversed(backend.endpoints) if e.state is not State.DOWN}
    asked, chosen, served, given = (variable(kind, name) for kind in ("asked", "upstream", "served", "cookie"))
    text: list[Line] = []
    for mark, endpoint in sorted(able.items()):
        others = [other for other in ready if other is not endpoint]
        start = sum(other.uid < endpoint.uid for other in others)
        reserves = (others[start:] + others[:start])[:_RESERVES]
        servers = [_server(endpoint), *(_server(other, reserve=True) for other in reserves)]
        text += block(f"upstream {name}.e-{mark}", lines(*servers, *_KEPT))
    holds = quoted(rf"~(?:^|;\s*){re.escape(cookie)}=([0-9a-f]{{8}})(?:;|$)")
    text += lines(f"map $http_cookie {asked} {{ {holds} $1; }}")
    upstreams_of = [f"default {name if ready else _EMPTY};", *(f"{quoted(m)} {name}.e-{m};" for m in sorted(able))]
    text += block(f"map {asked} {chosen}", lines(*upstreams_of))
    marks = {_address(endpoint): mark for mark, endpoint in sorted(able.items(), reverse=True)}
    text += block(f"map $coupler_server {served}", lines(*(f"{quoted(a)} {quoted(m)};" for a, m in marks.items())))
    cookies = (f"{_SAME} {_EMPTY};", f"{_ANOTHER} {quoted(f'{cookie}=$1; Path=/; HttpOnly')};")
    return text + block(f"map {quoted(f'{asked} {served}')} {given}", lines(*cookies))


_EMPTY = '""'
_SAME, _ANOTHER = quoted(r"~^(\S+) \1$"), quoted(r"~ (\S+)$")


def _answer(backend: Backend) -> list[Line]:
    """Return the directives by which a request gets its answer."""
    policy, name = backend.policy, name_of(backend.id)
    uri = variable("uri", name) if policy.replace_prefix else "$request_uri"
    if policy.redirect:
        return lines(f"return {policy.redirect.status} {quoted(_target(policy.redirect, uri))};")
    able = [e for e in backend.endpoints if e.state is not State.DOWN] if policy.sticky_cookie else _ready(backend)
    if not able or impossible(backend):
        return lines("return 503;")
    text: list[str] = []
    upstream = name
    if policy.sticky_cookie:
        upstream = variable("upstream", name)
        text += [f'if ({upstream} = "") {{ return 503; }}', *cookie_headers(variable("cookie", name))]
    if policy.connect_timeout:
        text.append(f"proxy_connect_timeout {milliseconds(policy.connect_timeout)};")
    text += _headers(policy)
    return lines(*text, f"proxy_pass {'https' if policy.tls else 'http'}://{upstream}{uri};")


def cookie_headers(cookie: str) -> list[str]:
    """Return the headers of an answer that sets a cookie: those of its server are not inherited then."""
    return [f"add_header Set-Cookie {cookie} always;", HSTS]


HSTS = "add_header Strict-Transport-Security $coupler_hsts always;"


def _headers(policy: Policy) -> list[str]:
    """Return the headers of a request, where they are not those that all backends get."""
    if not (policy.set_headers or policy.remove_headers):
        return []
    headers = {name.lower(): (name, value) for name, value in HEADERS}
    headers |= {name.lower(): (name, "") for name in policy.remove_headers}
    headers |= {name.lower(): (name, literal(value)) for name, value in policy.set_headers}
    return [f"proxy_set_header {name} {quoted(value)};" for name, value in headers.values()]


def _target(redirect: Redirect, uri: str) -> str:
    """Return the URL of a redirect, variables in it. Another scheme has another port, if none is given."""
    scheme = redirect.scheme or "$scheme"
    port = "" if redirect.scheme else "$coupler_port"
    if redirect.port:
        usual = {"http": 80, "https": 443}.get(redirect.scheme or "")
        port = "" if redirect.port == usual else f":{redirect.port}"
    path = f"{literal(redirect.path)}$is_args$args" if redirect.path else uri
    return f"{scheme}://{redirect.host or '$host'}{port}{path}"
