"""Label and field selectors as the API server reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r"\s*(==|!=|=|!|\(|\)|,|[A-Za-z0-9][A-Za-z0-9._/-]*)")
_GENERAL = ("metadata.name", "metadata.namespace")
_FIELDS = {
    "pods": (
        *_GENERAL,
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    ),
    "secrets": (*_GENERAL, "type"),
    "namespaces": ("metadata.name", "status.phase"),
    "events": (*_GENERAL, "involvedObject.kind", "involvedObject.name", "involvedObject.uid", "reason", "type"),
}


class SelectorError(ValueError):
    """A selector that cannot be read, in the words of the API server."""


@dataclass(frozen=True)
class Requirement:
    """One condition: `key` is in `values`, or not; without values, that it is there, or not."""

    key: str
    values: frozenset[str] | None
    positive: bool

    def holds(self, value: str | None) -> bool:
        if self.values is None:
            return (value is not None) == self.positive
        return (value in self.values) == self.positive


@dataclass(frozen=True)
class Selector:
    """Both selectors of a request."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)

    def matches(self, item: dict[str, Any]) -> bool:
        labels = item["metadata"].get("labels") or {}
        return all(r.holds(labels.get(r.key)) for r in self.labels) and all(
            r.holds(_field(item, r.key)) for r in self.fields
        )


def parse(resource: str, labels: str, fields: str) -> Selector:
    """Return what the two parameters of a request select."""
    return Selector(tuple(_labels(labels)), tuple(_fields(resource, fields)))


def _field(item: Any, path: str) -> str:
    for key in path.split("."):
        item = item.get(key) if isinstance(item, dict) else None
    return "" if item is None else str(item)


def _fields(resource: str, text: str) -> list[Requirement]:
    known = _FIELDS.get(resource, _GENERAL)
    found = []
    for term in filter(None, text.split(",")):
        match = re.fullmatch(r"([^=!]+)(==|!=|=)(.*)", term)
        if not match:
            raise SelectorError(f"invalid selector: '{term}'; can't understand '{term}'")
        key, operator, value = match.groups()
        if key not in known:
            if resource == "pods":
                raise SelectorError(f"field label not supported: {key}")
            names = ", ".join(f'"{name}"' for name in _GENERAL)
            raise SelectorError(f'"{key}" is not a known field selector: only {names}')
        found.append(Requirement(key, frozenset({value}), operator != "!="))
    return found


def _labels(text: str) -> list[Requirement]:
    words = _words(text)
    found = []
    while words:
        found.append(_requirement(words))
        if words and words.pop(0) != ",":
            raise SelectorError("unable to parse requirement: expected ','")
    return found


def _requirement(words: list[str]) -> Requirement:
    if words[0] == "!":
        del words[0]
        return Requirement(_identifier(words), None, positive=False)
    key = _identifier(words)
    operator = words[0] if words else ","
    if operator in {"=", "==", "!="}:
        del words[0]
        value = "" if not words or words[0] == "," else _identifier(words)
        return Requirement(key, frozenset({value}), operator != "!=")
    if operator in {"in", "notin"}:
        del words[0]
        return Requirement(key, _values(words), operator == "in")
    return Requirement(key, None, positive=True)


def _values(words: list[str]) -> frozenset[str]:
    if not words or words.pop(0) != "(":
        raise SelectorError("unable to parse requirement: found '', expected: '('")
    values = set()
    while words and words[0] != ")":
        if words[0] == ",":
            del words[0]
        else:
            values.add(_identifier(words))
    if not words:
        raise SelectorError("unable to parse requirement: found '', expected: ',' or ')'")
    del words[0]
    return frozenset(values)


def _identifier(words: list[str]) -> str:
    word = words.pop(0) if words else ""
    if not re.match(r"[A-Za-z0-9]", word):
        raise SelectorError(f"unable to parse requirement: found '{word}', expected: identifier")
    return word


def _words(text: str) -> list[str]:
    words, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if not match:
            raise SelectorError(f"unable to parse requirement: found '{text[at]}', expected: identifier")
        words.append(match[1])
        at = match.end()
    return words
