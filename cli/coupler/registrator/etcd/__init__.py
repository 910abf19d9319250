"""etcd as the registrator sees it, of either API: keys with values, read as a snapshot and followed from there.

`Store` is what both clients (`v3.EtcdV3`, `v2.EtcdV2`) do alike; what only one can do is found in its own module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from coupler.errors import CouplerError, ExitCode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class EtcdError(CouplerError):
    """etcd does not answer, has no quorum, or refuses what it was asked."""

    exit_code = ExitCode.UNREACHABLE


class CompactedError(EtcdError):
    """What happened since the revision that was asked for is forgotten: everything has to be read anew.

    `revision` is the first one that is still known (v3), or the index that etcd was at (v2); 0 if etcd does not say.
    """

    def __init__(self, revision: int) -> None:
        super().__init__("etcd has forgotten what happened meanwhile", f"its history begins at {revision}")
        self.revision = revision


class LeaseLostError(EtcdError):
    """A lease has expired or was revoked: what was bound to it is gone."""


@dataclass(frozen=True, slots=True)
class Item:
    """One key. `created` and `modified` are revisions (v3) or indices (v2); `lease` is 0 without one.

    `created` stays while the key is only overwritten in v3; in v2, a plain set creates a key anew.
    """

    key: str
    value: bytes
    created: int
    modified: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys under a prefix, in order, as they were at one revision; what follows has `revision` + 1 or more."""

    revision: int
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """A key was written (`item`) or went (None). `directory`: everything below `key` went with it (v2 alone)."""

    key: str
    item: Item | None
    directory: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What happened up to `revision`, in order; no events where etcd only says that nothing was missed."""

    revision: int
    events: tuple[Event, ...] = ()


class Store(Protocol):
    """What sources ask of etcd, whichever API it speaks. Every method may raise `EtcdError`."""

    async def range(self, prefix: str) -> Snapshot:
        """Return every key under `prefix`, read by quorum. A prefix that is not there is an empty one."""

    def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[Batch, None]:
        """Follow `prefix` from a revision on; the first batch is empty and says that the watch stands.

        Ends by an exception alone: `CompactedError` if the past is forgotten, `EtcdError` if etcd is away.
        """

    async def close(self) -> None:
        """Let go of all connections."""
