"""Texts of annotations → values. A text that is none raises ValueError, or ModelError, with the reason."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from coupler.registrator.model import MAX_PORT, Balance, Host, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONG_TUNNEL = 3600.0
"""Seconds that a WebSocket may be silent where `websocket` says true."""

_SIZE = re.compile(r"(\d+)([kKmMgG])?(i?[bB]?)")
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_ACL = re.compile(r"(?:(?:path|path_beg|-i|-m|beg)\s+)*(/\S*)")
_UNITS = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0})
_POWERS = MappingProxyType({"k": 1, "m": 2, "g": 3})


def hosts(text: str) -> Mapping[str, Any]:
    """Return the hosts of a list with commas."""
    hosts = tuple(Route("host", "host", host.strip()).host for host in text.split(","))
    if not all(hosts):
        raise ValueError("a name is empty")
    return {"hosts": hosts}


def path(text: str) -> Mapping[str, Any]:
    """Return a path."""
    return {"path": Route("path", "path", path=text, exact=True).path}


def flag(name: str) -> Callable[[str], Mapping[str, Any]]:
    """Return what reads true or false into the field `name`."""
    return lambda text: {name: truth(text)}


def truth(text: str) -> bool:
    """Return whether a text says true."""
    word = text.strip().lower()
    if word not in {"true", "false"}:
        raise ValueError("it is neither")
    return word == "true"


def whole(name: str, least: int, most: int) -> Callable[[str], Mapping[str, Any]]:
    """Return what reads a whole number into the field `name`."""

    def read(text: str) -> Mapping[str, Any]:
        number = int(text) if re.fullmatch(r"-?\d{1,12}", text.strip()) else None
        if number is None:
            raise ValueError("it is no whole number")
        if not least <= number <= most:
            raise ValueError("it is out of range")
        return {name: number}

    return read


def port(text: str) -> Mapping[str, Any]:
    """Return the name or number of a port."""
    port = text.strip()
    if port.isdecimal() and not 0 < int(port) <= MAX_PORT:
        raise ValueError("it is out of range")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", port):
        raise ValueError("it is neither name nor number")
    return {"port": port}


def scheme(text: str) -> Mapping[str, Any]:
    """Return whether endpoints speak TLS."""
    if text.strip().lower() not in {"http", "https"}:
        raise ValueError("it is no scheme that endpoints can speak")
    return {"tls": text.strip().lower() == "https"}


def balance(text: str) -> Mapping[str, Any]:
    """Return the way to choose an endpoint."""
    try:
        return {"balance": Balance(text.strip().lower())}
    except ValueError:
        raise ValueError("no balancer takes new servers with it while it runs") from None


def cookie(default: str) -> Callable[[str], Mapping[str, Any]]:
    """Return what reads the name of a cookie; true is `default`."""

    def read(text: str) -> Mapping[str, Any]:
        word = text.strip()
        if word.lower() in {"true", "false"}:
            return {"sticky_cookie": default if word.lower() == "true" else None}
        return {"sticky_cookie": word}

    return read


def duration(text: str) -> float:
    """Return a time in seconds. Raises ValueError."""
    found = _TIME.fullmatch(text.strip())
    if not found:
        raise ValueError("it is no time")
    return float(found[1]) * _UNITS[found[2]]


def time(name: str) -> Callable[[str], Mapping[str, Any]]:
    """Return what reads a time into the field `name`."""
    return lambda text: {name: duration(text)}


def size(text: str) -> Mapping[str, Any]:
    """Return a size in bytes."""
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise ValueError("it is no size")
    # nginx and HAProxy mean powers of 1024 by k, m and g; Kubernetes does by Ki, Mi and Gi
    return {"max_body": int(found[1]) * 1024 ** (_POWERS[found[2].lower()] if found[2] else 0)}


def websocket(text: str) -> Mapping[str, Any]:
    """Return the silence that a WebSocket is allowed."""
    return {"tunnel_timeout": LONG_TUNNEL} if truth(text) else {}


def header(text: str) -> Mapping[str, Any]:
    """Return a header and its value."""
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError("it has no colon")
    return {"canary_header": Route("header", "header", headers=((name.strip(), value.strip()),)).headers[0]}


def secret(text: str) -> Mapping[str, Any]:
    """Return the name of a Secret."""
    name = text.strip()
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name):
        raise ValueError("it is no name of a Secret in the same namespace")
    return {"tls_secret": name}


def group(text: str) -> Mapping[str, Any]:
    """Return the name of a backend."""
    name = text.strip()
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", name):
        raise ValueError("it is no name")
    return {"backend": name}


def hsts(text: str) -> Mapping[str, Any]:
    """Return the time that clients are to use TLS only."""
    return {"hsts": Host("hsts", hsts=round(duration(text))).hsts}


def ssl_termination(text: str) -> Mapping[str, Any]:
    """Refuse what the ancestor did with a certificate of its own."""
    if truth(text):
        raise ValueError("the certificate has to be named by tls-secret")
    return {}


def acl(text: str) -> Mapping[str, Any]:
    """Return the path of the ancestor's condition."""
    found = _ACL.fullmatch(text.strip())
    if not found:
        raise ValueError("other conditions than a path are not read")
    return {"path": Route("path", "path", path=found[1]).path}
