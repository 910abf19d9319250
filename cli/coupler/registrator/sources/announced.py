"""What the values of announcements mean. Pure."""

from __future__ import annotations

import difflib
import typing
from dataclasses import dataclass
from enum import StrEnum
from types import UnionType
from typing import Any

import orjson

from coupler.registrator.model import Balance, Endpoint, Host, Mode, ModelError, Policy, Route, State, TcpRoute

_PLAIN = {str, int, float, bool, Balance}
_SIMPLE: dict[str, type] = {
    name.replace("_", "-"): kind
    for name, annotation in typing.get_type_hints(Policy).items()
    for kind in (typing.get_args(annotation) if isinstance(annotation, UnionType) else (annotation,))
    if kind in _PLAIN
}
_OWN: dict[str, type] = {
    "host": str,
    "path": str,
    "exact": bool,
    "priority": int,
    "tcp-port": int,
    "redirect-to-tls": bool,
    "hsts": int,
}
_INSTANCE: dict[str, type] = {"address": str, "port": int, "weight": int, "state": State}
KEYS = {**_OWN, **_SIMPLE}
"""What a service's document may say, with the type of each value."""

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Service:
    """What is said of a service as a whole."""

    mode: Mode
    policy: Policy
    routes: tuple[Route, ...]
    tcp_routes: tuple[TcpRoute, ...]
    host: Host | None


def endpoint_of(key: str, value: bytes) -> Endpoint:
    """Return the instance that a value announces: `address:port`, or JSON. Raises ModelError."""
    text = value.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        said = _document(text, _INSTANCE)
        missing = [word for word in ("address", "port") if word not in said]
        if missing:
            raise ModelError(f"{text!r} lacks {' and '.join(missing)}")
        return Endpoint(key, **said)
    address, _, port = text.rpartition(":")
    if not port.isdigit() or not address:
        raise ModelError(f"{text!r} is no address:port, and no JSON")
    return Endpoint(key, address.removeprefix("[").removesuffix("]"), int(port))


def service_of(name: str, document: bytes, domain: str) -> Service:
    """Return what a document says of the service; without one, it is served under its name. Raises ModelError."""
    said = _document(document.decode("utf-8", "replace"), KEYS) if document else {}
    port: int | None = said.get("tcp-port")
    policy = Policy(**{word.replace("-", "_"): value for word, value in said.items() if word in _SIMPLE})
    if port is not None:
        http = [word for word in _OWN if word in said and word != "tcp-port"]
        if http:
            raise ModelError(f"{', '.join(http)} is for HTTP, and a service with tcp-port is TCP")
        return Service(Mode.TCP, policy, (), (TcpRoute(name, name, port),), None)
    default = f"{name}.{domain}" if domain else name
    route = Route(
        name,
        name,
        said.get("host", default),
        said.get("path", "/"),
        exact=said.get("exact", False),
        priority=said.get("priority", 0),
    )
    redirect, hsts = said.get("redirect-to-tls", False), said.get("hsts")
    host = Host(route.host, redirect=redirect, hsts=hsts) if redirect or hsts is not None else None
    return Service(Mode.HTTP, policy, (route,), (), host)


def _document(text: str, keys: dict[str, type]) -> dict[str, Any]:
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ModelError("it is no JSON", str(error)) from None
    if not isinstance(said, dict):
        raise ModelError("it is no JSON object")
    return {word: _value(word, value, keys) for word, value in said.items()}


def _value(word: str, value: object, keys: dict[str, type]) -> object:
    if word not in keys:
        close = difflib.get_close_matches(word, keys, 1)
        raise ModelError(
            f"there is no key {word!r}", f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(keys)}"
        )
    kind = keys[word]
    if issubclass(kind, StrEnum):
        if value not in list(kind):
            raise ModelError(f"{word} must be one of {', '.join(kind)}")
        return kind(str(value))
    fits = isinstance(value, (int, float) if kind is float else kind) and not (
        kind is not bool and isinstance(value, bool)
    )
    if not fits:
        raise ModelError(f"{word} must be {_WORDS[kind]}")
    return value
