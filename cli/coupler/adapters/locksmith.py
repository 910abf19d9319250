"""locksmith's lock for reboots, as it lies in etcd.

Source: https://github.com/coreos/locksmith, lock/semaphore.go and lock/etcd.go: a JSON object under a key of etcd's v2
API, changed by compare-and-swap. Nodes of a group share a lock of their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote_plus, urlencode

from coupler.result import json_object

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCKS = "/v2/keys/coreos.com/updateengine/rebootlock"
"""The path below which every lock is, in etcd's v2 API."""
NO_GROUP = ""
"""The group of nodes that are in none."""


@dataclass(frozen=True)
class Semaphore:
    """A lock that `most` nodes may hold at a time; `free` may be negative after `most` was lowered.

    `holders` are machine ids, in order; `index` is etcd's `modifiedIndex`, 0 for a lock that nobody has made yet.
    """

    most: int = 1
    free: int = 1
    holders: tuple[str, ...] = ()
    index: int = 0

    def with_most(self, most: int) -> Semaphore:
        """Return the lock as it is when `most` nodes may hold it; who holds it keeps it."""
        return replace(self, most=most, free=self.free + most - self.most)

    def without(self, holder: str) -> Semaphore:
        """Return the lock as it is when a holder has given it back. Raises ValueError if it does not hold it."""
        if holder not in self.holders:
            raise ValueError(holder)
        return replace(self, free=self.free + 1, holders=tuple(other for other in self.holders if other != holder))

    @property
    def text(self) -> str:
        """The lock as locksmith writes it."""
        value = {"semaphore": self.free, "max": self.most, "holders": list(self.holders) or None}
        return json.dumps(value, separators=(",", ":"))

    def replacement_of(self, before: Semaphore, group: str) -> tuple[str, str]:
        """Return path and body of the PUT that puts this lock in place of `before`, and fails if that has changed."""
        condition = f"prevIndex={before.index}" if before.index else "prevExist=false"
        return f"{path_of(group)}?{condition}", urlencode({"value": self.text})


def path_of(group: str) -> str:
    """Return the path of a group's lock in etcd's v2 API."""
    return f"{LOCKS}/groups/{quote(quote_plus(group))}/semaphore" if group else f"{LOCKS}/semaphore"


def semaphores_in(answer: str) -> dict[str, Semaphore]:
    """Return group → lock from what etcd answers to GET `LOCKS` with `recursive=true`; empty before the first lock.

    Raises:
        ValueError: something else than a lock lies under the key of one; the message names the key.
    """
    prefix = LOCKS.removeprefix("/v2/keys")
    found = {}
    for node in _leaves(json_object(answer).get("node", {})):
        key = str(node.get("key", ""))
        words = key.removeprefix(f"{prefix}/").split("/")
        if words == ["semaphore"]:
            found[NO_GROUP] = _semaphore(node)
        elif len(words) == 3 and (words[0], words[2]) == ("groups", "semaphore"):  # noqa: PLR2004 - groups/NAME/semaphore
            found[unquote_plus(words[1])] = _semaphore(node)
    return found


def _leaves(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node.get("dir"):
        for child in node.get("nodes") or []:
            yield from _leaves(child)
    elif node:
        yield node


def _semaphore(node: dict[str, Any]) -> Semaphore:
    value = json_object(str(node.get("value", "")))
    match value:
        case {"max": int(most), "semaphore": int(free), "holders": list() | None as holders}:
            return Semaphore(most, free, tuple(map(str, holders or ())), int(node.get("modifiedIndex", 0)))
    raise ValueError(f"{node.get('key')} is no lock of locksmith: {node.get('value')}")
