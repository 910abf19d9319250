"""What a backend's policy is in HAProxy's words: the lines of its section, and what each of its servers has. Pure.

Source: https://docs.haproxy.org/2.6/configuration.html#4.2. Every text of a user stands in single quotes, inside which
HAProxy takes all as it is (section 2.2); the model lets none contain one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coupler.registrator.model import Mode
from coupler.registrator.names import digest

if TYPE_CHECKING:
    from coupler.registrator.model import Backend, Policy, Redirect

_USUAL_PORTS = {"http": 80, "https": 443}
_REST = "\\1"
_FIRST_BYTE = "5s"
_LARGEST = 2**63 - 2  # of which HAProxy knows one that is larger
_CLIENTS = "size 100k expire 10s"
"""Of the table that counts requests: clients remembered, and for how long."""


def backend_lines(backend: Backend) -> list[str]:
    """Return what stands in the backend's section before its servers."""
    policy = backend.policy
    lines = [f"mode {backend.mode}", f"balance {policy.balance}", "retries 3", "option redispatch 1"]
    timeouts = {"connect": policy.connect_timeout, "server": policy.read_timeout, "tunnel": policy.tunnel_timeout}
    lines += [f"timeout {name} {_milliseconds(value)}" for name, value in timeouts.items() if value is not None]
    if backend.mode is Mode.TCP:
        return lines
    if policy.check_path:
        lines += [f"option httpchk GET {_quoted(policy.check_path)}"]
    if policy.sticky_cookie:
        lines += [f"cookie {policy.sticky_cookie} insert indirect nocache httponly dynamic"]
        lines += [f"dynamic-cookie-key {digest(backend.id)}"]
    lines += _limits(policy)
    if policy.replace_prefix:
        lines += [_replacement(*policy.replace_prefix)]
    return lines + (_redirect(policy.redirect) if policy.redirect else _headers(policy))


def server_options(backend: Backend) -> str:
    """Return what follows address and weight, in the file and in `add server` alike.

    Idle connections go within a second or two, so that a server can be deleted soon after its last request.
    """
    policy = backend.policy
    options = ["pool-purge-delay 500ms"]
    if policy.tls:
        options += ["ssl verify none"]
        options += ["sni req.hdr(host),host_only"] if backend.mode is Mode.HTTP else []
    if policy.send_proxy:
        options += ["send-proxy-v2"]
    if policy.check_path:
        options += ["check inter 2s fall 2 rise 1"]
        options += ["check-ssl"] if policy.tls else []
        options += ["check-send-proxy"] if policy.send_proxy else []
    return " ".join(options)


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000) or 1}ms"


def _quoted(text: str) -> str:
    return f"'{text}'"


def _literal(text: str) -> str:
    """Return `text` for a place where HAProxy fills in `%[…]`."""
    return text.replace("%", "%%")


def _limits(policy: Policy) -> list[str]:
    """Refuse clients that ask too often, and bodies that are too large.

    What is refused does not count, so that a client who asks too often gets as much as it may. HAProxy cannot stop a
    body under way: where a limit is set, a body must announce its length, 411 otherwise. HTTP/2 announces none where
    there is no body either; then the first byte is waited for.
    """
    lines: list[str] = []
    if policy.rate_limit:
        lines += [
            f"stick-table type ipv6 {_CLIENTS} store gpc0,gpc0_rate(1s)",
            "http-request track-sc0 src",
            f"http-request deny deny_status 429 if {{ sc_gpc0_rate(0) ge {min(policy.rate_limit, _LARGEST)} }}",
            "http-request sc-inc-gpc0(0)",
        ]
    if policy.max_body:
        most = min(policy.max_body, _LARGEST)
        untold = "!{ req.hdr(content-length) -m found } !{ req.hdr(upgrade) -m found }"
        lines += [
            f"http-request deny deny_status 413 if {{ req.hdr(content-length) -m int gt {most} }}",
            "http-request return status 411 if { req.hdr(transfer-encoding) -m found }",
            f"http-request wait-for-body time {_FIRST_BYTE} at-least 1 if {untold}",
            f"http-request return status 411 if {untold} {{ req.body_size gt 0 }}",
        ]
    return lines


def _replacement(old: str, new: str) -> str:
    """Replace whole segments at the beginning of the path; another path stays as it is."""
    old, new = old.rstrip("/"), new.rstrip("/")
    pattern = f"^{re.escape(old)}(/.*)?$" if new else f"^{re.escape(old)}(?:/(.*))?$"
    return f"http-request replace-path {_quoted(pattern)} {_quoted(_literal(new) + (_REST if new else '/' + _REST))}"


def _headers(policy: Policy) -> list[str]:
    """Say who asked and how, whatever the client says of it; then what the policy has."""
    lines = [
        "http-request set-header X-Forwarded-For %[src]",
        "http-request set-header X-Forwarded-Host %[req.hdr(host)]",
        "http-request set-header X-Forwarded-Proto http if !{ ssl_fc }",
        "http-request set-header X-Forwarded-Proto https if { ssl_fc }",
    ]
    lines += [f"http-request del-header {name}" for name in policy.remove_headers]
    return lines + [f"http-request set-header {name} {_quoted(_literal(value))}" for name, value in policy.set_headers]


def _redirect(redirect: Redirect) -> list[str]:
    """Answer every request. Without a port of its own, the redirect keeps the client's, unless the scheme changes."""
    lines = [f"http-request set-path {_quoted(_literal(redirect.path))}"] if redirect.path else []
    host = redirect.host or "%[req.hdr(host),host_only]"
    for scheme in ("http", "https"):
        if redirect.scheme not in {None, scheme}:
            continue
        asked = "" if redirect.scheme else "{ ssl_fc }" if scheme == "https" else "!{ ssl_fc }"
        if redirect.scheme is None and redirect.port is None:
            given = f"{asked} {{ req.hdr(host),port_only gt 0 }}"
            lines += [_location(redirect.status, f"{scheme}://{host}:%[req.hdr(host),port_only]", given)]
        port = "" if redirect.port in {None, _USUAL_PORTS[scheme]} else f":{redirect.port}"
        lines += [_location(redirect.status, f"{scheme}://{host}{port}", asked)]
    return lines


def _location(status: int, start: str, conditions: str) -> str:
    line = f"http-request redirect code {status} location {start}%[pathq]"
    return f"{line} if {conditions}" if conditions else line
