"""Middlewares that users give as vulcand's own JSON: what vulcand would not take is refused here.

A value that vulcand cannot read leaves a hole in its list of middlewares, over which it stumbles at each request.
Source: vulcand's `plugin/*/`, `docs/middlewares.rst`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from coupler.registrator.model import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coupler.registrator.model import Middleware

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLE = re.compile(r"client\.ip|request\.host|request\.header\.[A-Za-z0-9-]+")
_NUMBER = r"[0-9]+(\.[0-9]+)?"
_TEST = (
    rf"(NetworkErrorRatio\(\)|LatencyAtQuantileMS\({_NUMBER}\)|ResponseCodeRatio\([0-9]+(, ?[0-9]+){{3}}\))"
    rf" ?(>|>=|<|<=|==|!=) ?{_NUMBER}"
)
_CONDITION = re.compile(rf"{_TEST}( ?(&&|\|\|) ?{_TEST})*")
_MOST = 2**53

_FIELDS: Mapping[str, Mapping[str, type]] = {
    "ratelimit": {"PeriodSeconds": int, "Requests": int, "Burst": int, "Variable": str},
    "connlimit": {"Connections": int, "Variable": str},
    "rewrite": {"Regexp": str, "Replacement": str, "RewriteBody": bool, "Redirect": bool},
    "cbreaker": {
        "Condition": str,
        "Fallback": dict,
        "CheckPeriod": int,
        "FallbackDuration": int,
        "RecoveryDuration": int,
    },
}
_POSITIVE = {"ratelimit": ("Requests", "PeriodSeconds"), "connlimit": ("Connections",), "rewrite": (), "cbreaker": ()}


def checked(middleware: Middleware) -> dict[str, Any]:
    """Return a middleware's value. Raises ModelError where vulcand would not take it."""
    where = f"middleware {middleware.id}"
    if not _ID.fullmatch(middleware.id):
        raise ModelError(f"{middleware.id!r} is no name for a middleware")
    try:
        document = orjson.loads(middleware.document)
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{where} is no JSON", str(error)) from None
    if not isinstance(document, dict) or not isinstance(document.get("Middleware"), dict):
        raise ModelError(f"{where} needs a Type, and a Middleware that is an object")
    if document.get("Type") not in _FIELDS:
        raise ModelError(f"{where}: there is no type {document.get('Type')!r}", None, f"types: {', '.join(_FIELDS)}")
    for fault in _faults(document["Type"], document.get("Priority", 0), document["Middleware"]):
        raise ModelError(f"{where}: {fault}", None, "see vulcand's documentation of middlewares")
    return document


def _faults(kind: str, priority: object, body: Mapping[str, Any]) -> Iterator[str]:
    if type(priority) is not int or abs(priority) >= _MOST:
        yield "its Priority is no whole number"
    for name, value in body.items():
        if type(value) is not _FIELDS[kind].get(name):
            yield f"{name} is not what a {kind} has"
        elif isinstance(value, int) and not 0 <= value < _MOST:
            yield f"{name} is below 0, or too much"
    for name in _POSITIVE[kind]:
        if not body.get(name):
            yield f"its {name} must be above 0"
    if "Variable" in _FIELDS[kind] and not _VARIABLE.fullmatch(body.get("Variable", "")):
        yield "its Variable is none of client.ip, request.host, request.header.<name>"
    if kind == "rewrite" and not body.get("Regexp"):
        yield "it needs a Regexp"
    if kind == "cbreaker":
        yield from _breaker_faults(body)


def _breaker_faults(body: Mapping[str, Any]) -> Iterator[str]:
    if not _CONDITION.fullmatch(body.get("Condition", "")):
        yield "its Condition is none that is known here"
    fallback = body.get("Fallback", {})
    action = fallback.get("Action")
    status = action.get("StatusCode") if isinstance(action, dict) else None
    url = action.get("URL") if isinstance(action, dict) else None
    answers = fallback.get("Type") == "response" and type(status) is int and 100 <= status < 600  # noqa: PLR2004
    leads = fallback.get("Type") == "redirect" and isinstance(url, str) and re.match(r"https?://[^\s/]+", url)
    if not (answers or leads):
        yield "its Fallback is neither a response with a StatusCode nor a redirect with a URL"
