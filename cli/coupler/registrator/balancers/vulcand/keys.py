"""vulcand's keys in etcd, by either API: read as a whole or in part, and written in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.vulcand.diff import Delete, Drop, Entry, Observed, Put
from coupler.registrator.etcd import v3

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coupler.registrator.balancers.vulcand.diff import Step
    from coupler.registrator.etcd.v2 import EtcdV2, Node
    from coupler.registrator.etcd.v3 import EtcdV3
    from coupler.registrator.leader import Fence


class DeposedError(BalancerError):
    """Another registrator leads, and nothing more of ours is written."""

    def __init__(self) -> None:
        super().__init__("another registrator leads", "the key of the leader is not ours any more")


class Keys(Protocol):
    """What the adapter asks of etcd. Every method may raise EtcdError."""

    anew: bool
    """Whether writing a key creates it anew, in the sense of `Entry.created`."""

    async def read(self, observed: Observed, below: str = "") -> None:
        """Add what is below a path, relative to the prefix, to `observed`."""

    async def write(self, steps: Sequence[Step], fence: Fence | None) -> None:
        """Carry out steps in order. Raises DeposedError if the fence is down."""

    async def cluster(self) -> str:
        """Return what names this etcd."""


class KeysV3:
    """Keys in a v3 etcd: they have no leading slash, unless vulcand's own `-etcdKey` has one."""

    anew = False

    def __init__(self, etcd: EtcdV3, prefix: str) -> None:
        self._etcd, self._prefix = etcd, prefix.rstrip("/")

    async def read(self, observed: Observed, below: str = "") -> None:
        """Read a range of keys."""
        start = len(self._prefix) + 1
        path = f"{self._prefix}/{below}/" if below else f"{self._prefix}/"
        for item in (await self._etcd.range(path)).items:
            observed.add(item.key[start:], Entry(item.value, item.created, item.modified))

    async def write(self, steps: Sequence[Step], fence: Fence | None) -> None:
        """Write in transactions that are compared with the leader's key: etcd refuses a former leader."""
        conditions = [v3.Created(fence.key, fence.created)] if fence is not None else []
        if not await self._etcd.write(self._operations(steps), conditions):
            raise DeposedError

    async def cluster(self) -> str:
        """Return the number of the cluster."""
        return await self._etcd.cluster()

    def _operations(self, steps: Sequence[Step]) -> Iterator[v3.Operation]:
        for step in steps:
            match step:
                case Put(path, value):
                    yield v3.Put(f"{self._prefix}/{path}", value.encode())
                case Delete(path):
                    yield v3.Delete(f"{self._prefix}/{path}")
                case Drop(_, keys):
                    yield from (v3.Delete(f"{self._prefix}/{key}") for key in keys)


class KeysV2:
    """Keys in a v2 etcd. Only plain writes and deletions: vulcand does not see any other."""

    anew = True

    def __init__(self, etcd: EtcdV2, prefix: str) -> None:
        self._etcd, self._prefix = etcd, "/" + prefix.strip("/")

    async def read(self, observed: Observed, below: str = "") -> None:
        """Read a directory, and the empty ones in it."""
        path = f"{self._prefix}/{below}" if below else self._prefix
        listing = await self._etcd.get(path)
        if listing.node is not None:
            self._add(listing.node, observed)

    def _add(self, node: Node, observed: Observed) -> None:
        entry = None if node.directory else Entry(node.value.encode(), node.created, node.modified)
        observed.add(node.key[len(self._prefix) + 1 :], entry)
        for inner in node.nodes:
            self._add(inner, observed)

    async def write(self, steps: Sequence[Step], fence: Fence | None) -> None:
        """Write one by one, after a look at the leader's key: weaker than v3, for a moment lies in between."""
        if fence is not None:
            leader = (await self._etcd.get(fence.key)).node
            if leader is None or leader.created != fence.created:
                raise DeposedError
        for step in steps:
            match step:
                case Put(path, value):
                    await self._etcd.set(f"{self._prefix}/{path}", value)
                case Delete(path):
                    await self._etcd.delete(f"{self._prefix}/{path}")
                case Drop(path, _):
                    await self._etcd.delete(f"{self._prefix}/{path}", recursive=True)

    async def cluster(self) -> str:
        """Return the number of the cluster."""
        return await self._etcd.cluster()
