"""Events of Kubernetes (core/v1) about objects with problems: at most one for a subject and a message in five minutes.

An Event's name is made of what it is about, so that it is found again after a restart, and counted on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.registrator.names import digest
from coupler.registrator.sources.kubernetes.objects import seconds, stamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coupler.registrator.sources.kubernetes.objects import Complaint, Json

EVERY = 300.0
"""Seconds before the same is said again."""

COMPONENT = "coupler-registrator"
REASON = "NotBalanced"
_LONGEST = 1024
_LONGEST_NAME = 200
_MOST = 4096


def path(complaint: Complaint) -> str:
    """Return where Events about an object are: in its namespace, or in `default` where it has none."""
    return f"/api/v1/namespaces/{complaint.about.namespace or 'default'}/events"


def name(complaint: Complaint) -> str:
    """Return the name of the Event."""
    return f"{complaint.about.name[:_LONGEST_NAME]}.{digest(complaint.about.uid + complaint.message)}"


def event(complaint: Complaint, now: float) -> Json:
    """Return the Event as it is created."""
    about = complaint.about
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name(complaint), "namespace": about.namespace or "default"},
        "involvedObject": {
            "apiVersion": about.api,
            "kind": about.kind,
            "namespace": about.namespace,
            "name": about.name,
            "uid": about.uid,
        },
        "type": "Warning",
        "reason": REASON,
        "message": complaint.message[:_LONGEST],
        "source": {"component": COMPONENT},
        "firstTimestamp": stamp(now),
        "lastTimestamp": stamp(now),
        "count": 1,
    }


def repeated(known: Json, now: float) -> Json | None:
    """Return the patch by which an Event that exists is said again; None where it was just said."""
    last = seconds(known.get("lastTimestamp"))
    if last is not None and now - last < EVERY:
        return None
    return {"count": (known.get("count") or 1) + 1, "lastTimestamp": stamp(now)}


class Notices:
    """Which complaints are due to be said."""

    def __init__(self) -> None:
        self._said: dict[Complaint, float] = {}
        self._due: dict[Complaint, None] = {}

    def take(self, complaints: Iterable[Complaint], now: float) -> None:
        """Take the complaints that there are now: those that are new, or were not said for long, become due."""
        current = dict.fromkeys(complaints)
        self._due = {complaint: None for complaint in current if now - self._said.get(complaint, -EVERY) >= EVERY}
        if len(self._said) > _MOST:
            self._said = {complaint: said for complaint, said in self._said.items() if now - said < EVERY}

    def next(self) -> Complaint | None:
        """Return one that is due."""
        return next(iter(self._due), None)

    def done(self, complaint: Complaint, now: float) -> None:
        """Note that one was said, or cannot be."""
        self._due.pop(complaint, None)
        self._said[complaint] = now
