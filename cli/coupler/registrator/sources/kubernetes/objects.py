"""What is read of an object of the API, and what is said about it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from coupler.registrator.model import Problem

Json = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Names an object for good: what an Event or a status is about."""

    api: str
    kind: str
    namespace: str
    name: str
    uid: str

    @property
    def api_path(self) -> str:
        """Return where its API begins on the server."""
        return f"/apis/{self.api}" if "/" in self.api else f"/api/{self.api}"

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with an object, in words for the one who wrote it."""

    about: Reference
    message: str

    @property
    def problem(self) -> Problem:
        """Return it as the merge lists it."""
        return Problem(str(self.about), self.message)


@dataclass(frozen=True, slots=True)
class Wish:
    """A status that is not yet what it should be: a merge patch (RFC 7386) for `path`."""

    about: Reference
    path: str
    patch: Json = field(hash=False)

    @property
    def text(self) -> str:
        """Return the patch as one stable text."""
        return json.dumps(self.patch, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of the few objects that say where requests go: endpoints are kept in a denser form."""

    about: Reference
    created: str
    generation: int
    version: str
    annotations: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, str], ...]
    spec: Json = field(hash=False)
    status: Json = field(hash=False)

    @property
    def key(self) -> Key:
        """Return namespace and name."""
        return self.about.namespace, self.about.name

    @property
    def age(self) -> tuple[str, str, str]:
        """Return what orders objects: the oldest first, then by name."""
        return self.created, *self.key


def key_of(item: Json) -> Key:
    """Return namespace and name of an object."""
    metadata = item["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def uid_of(item: Json) -> str:
    """Return an object's identity for life."""
    return item["metadata"].get("uid") or ""


def reference(item: Json, api: str, kind: str) -> Reference:
    """Return an object's name; items of a list do not carry `api` and `kind` themselves."""
    return Reference(api, kind, *key_of(item), uid_of(item))


def pairs(mapping: Json | None) -> tuple[tuple[str, str], ...]:
    """Return labels or annotations in a form that can be compared and kept."""
    return tuple(sorted((str(key), str(value)) for key, value in (mapping or {}).items()))


def keep(item: Json, api: str, kind: str, prefixes: tuple[str, ...]) -> Kept:
    """Return what is kept of an object: of its annotations those that begin with one of `prefixes`.

    A kind without spec (IngressClass has one, ReferenceGrant too) has an empty one.
    """
    metadata = item["metadata"]
    annotations = {
        name: text for name, text in (metadata.get("annotations") or {}).items() if name.startswith(prefixes)
    }
    return Kept(
        reference(item, api, kind),
        metadata.get("creationTimestamp") or "",
        metadata.get("generation") or 0,
        metadata.get("resourceVersion") or "",
        pairs(annotations),
        pairs(metadata.get("labels")),
        item.get("spec") or {},
        item.get("status") or {},
    )


def seconds(stamp: str | None) -> float | None:
    """Return a time of the API (RFC 3339) in seconds of the Unix clock; None where there is none."""
    if not stamp:
        return None
    try:
        moment = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def stamp(moment: float) -> str:
    """Return a time of the Unix clock as the API writes it."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def fine_stamp(moment: float) -> str:
    """Return a time of the Unix clock as the API writes those that have microseconds (MicroTime)."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
