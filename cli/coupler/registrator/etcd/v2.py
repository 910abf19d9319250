"""etcd's API of version 2: a tree of directories and keys under `/v2/keys`, followed by long polls.

Reference: etcd's `v2/api.md`. etcd 3.4 and 3.5 have it with `--enable-v2`, etcd 3.6 no more. Keys begin with `/`.
Keys whose last part begins with `_` are hidden from listings.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import aiohttp
import orjson

from coupler.registrator.etcd import Batch, CompactedError, EtcdError, Event, Item, Snapshot
from coupler.registrator.etcd.endpoints import Endpoints

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from coupler.registrator.etcd.endpoints import Access, Answer

KEY_NOT_FOUND, TEST_FAILED, NODE_EXIST, EVENT_INDEX_CLEARED = 100, 101, 105, 401
_GONE = frozenset(("delete", "expire", "compareAndDelete"))
_NOT_FOUND = 404


class RefusedError(EtcdError):
    """etcd refuses; `code` is its error code (`v2/errorcode.md`)."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__("etcd refuses", why)
        self.code = code


@dataclass(frozen=True, slots=True)
class Node:
    """A key or a directory with what is in it; `ttl` in seconds, None without one."""

    key: str
    value: str
    directory: bool
    created: int
    modified: int
    ttl: int | None = None
    nodes: tuple[Node, ...] = ()

    def leaves(self) -> Iterator[Node]:
        """Yield the keys in it, or itself if it is one."""
        if not self.directory:
            yield self
        for node in self.nodes:
            yield from node.leaves()


@dataclass(frozen=True, slots=True)
class Listing:
    """What was read, None if it is not there, and etcd's index then; what follows has `index` + 1 or more."""

    index: int
    node: Node | None


class EtcdV2:
    """A client of one etcd. Reads are by quorum.

    `stall` is how long, in seconds, a long poll may be silent before etcd is asked whether it still has a quorum.
    """

    def __init__(self, access: Access, *, stall: float = 30.0) -> None:
        self._http = Endpoints(access)
        self._stall = stall
        self._headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if access.user is not None:
            self._headers["Authorization"] = aiohttp.encode_basic_auth(access.user, access.password or "")

    async def get(self, key: str, *, recursive: bool = True) -> Listing:
        """Return a key or a directory."""
        options = {"quorum": "true", "recursive": "true" if recursive else "false", "sorted": "true"}
        answer = await self._http.ask("GET", _path(key, options), headers=self._headers)
        index = int(answer.headers.get("X-Etcd-Index", 0))
        try:
            return Listing(index, _node(_document(answer)["node"]))
        except RefusedError as error:
            if error.code != KEY_NOT_FOUND:
                raise
            return Listing(index, None)

    async def range(self, prefix: str) -> Snapshot:
        """Return every key in the directory `prefix`."""
        listing = await self.get(prefix)
        leaves = listing.node.leaves() if listing.node is not None else ()
        items = (Item(node.key, node.value.encode(), node.created, node.modified) for node in leaves)
        return Snapshot(listing.index, tuple(sorted(items, key=lambda item: item.key)))

    async def set(
        self,
        key: str,
        value: str,
        *,
        ttl: int | None = None,
        exists: bool | None = None,
        previous_value: str | None = None,
        previous_index: int | None = None,
    ) -> Node:
        """Write a key; only if it `exists` or not, has that value or that index. Raises RefusedError otherwise.

        Plain, it makes the key anew, with the action `set`; under a condition the action is another one: see `Event`.
        """
        options = {
            "prevExist": None if exists is None else str(exists).lower(),
            "prevValue": previous_value,
            "prevIndex": previous_index,
        }
        return await self._put(key, {"value": value, "ttl": ttl}, options)

    async def make_directory(self, key: str) -> None:
        """Make a directory. Raises RefusedError if there is something already."""
        await self._put(key, {"dir": "true"}, {"prevExist": "false"})

    async def refresh(self, key: str, ttl: int, *, previous_value: str | None = None) -> None:
        """Give a key another `ttl` seconds without telling those who watch. Raises RefusedError if it is not there."""
        await self._put(key, {"ttl": ttl, "refresh": "true", "prevExist": "true"}, {"prevValue": previous_value})

    async def delete(
        self, key: str, *, recursive: bool = False, directory: bool = False, previous_value: str | None = None
    ) -> bool:
        """Delete a key, an empty `directory`, or a directory with all that is in it; return whether it was there."""
        options = {
            "recursive": "true" if recursive else None,
            "dir": "true" if directory or recursive else None,
            "prevValue": previous_value,
        }
        answer = await self._http.ask("DELETE", _path(key, options), headers=self._headers)
        try:
            _document(answer)
        except RefusedError as error:
            if error.code != KEY_NOT_FOUND:
                raise
            return False
        return True

    async def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[Batch, None]:
        """Follow the directory `prefix`; see `Store.watch`."""
        index, told = from_revision, False
        while True:
            options = {"wait": "true", "recursive": "true", "waitIndex": index}
            async with self._http.stream("GET", _path(prefix, options), headers=self._headers) as response:
                if not told:
                    told = True
                    yield Batch(index - 1)
                try:
                    async with asyncio.timeout(self._stall):
                        body = await response.read()
                except TimeoutError:
                    body = b""
                status = response.status
            if not body:
                await self.get(prefix, recursive=False)
                continue
            batch = _batch(body, status)
            index = batch.revision + 1
            yield batch

    async def cluster(self) -> str:
        """Return the number by which this etcd is told from any other; needs its quorum."""
        path = _path("/", {"quorum": "true"})
        return (await self._http.ask("GET", path, headers=self._headers)).headers.get("X-Etcd-Cluster-Id", "")

    async def close(self) -> None:
        """Let go of all connections."""
        await self._http.close()

    async def _put(self, key: str, form: dict[str, object], options: dict[str, Any]) -> Node:
        body = urlencode({name: value for name, value in form.items() if value is not None}).encode()
        answer = await self._http.ask("PUT", _path(key, options), body=body, headers=self._headers)
        return _node(_document(answer)["node"])


def _path(key: str, options: dict[str, Any]) -> str:
    given = urlencode({name: value for name, value in options.items() if value is not None})
    return f"/v2/keys/{quote(key.strip('/'))}?{given}"


def _document(answer: Answer) -> dict[str, Any]:
    return _parsed(answer.body, answer.status)


def _parsed(body: bytes, status: int) -> dict[str, Any]:
    try:
        document: dict[str, Any] = orjson.loads(body)
    except orjson.JSONDecodeError:
        why = "it has no API of version 2" if status == _NOT_FOUND else repr(body[:200])
        raise EtcdError("etcd answers in no JSON", why, "is this an etcd up to 3.5, and its --enable-v2 on?") from None
    if "errorCode" in document:
        raise RefusedError(int(document["errorCode"]), f"{document.get('message')} ({document.get('cause')})")
    if "node" not in document:
        raise EtcdError("etcd refuses", str(document.get("message", document)))
    return document


def _node(node: dict[str, Any]) -> Node:
    return Node(
        node.get("key", "/"),
        node.get("value", ""),
        bool(node.get("dir")),
        int(node.get("createdIndex", 0)),
        int(node.get("modifiedIndex", 0)),
        node.get("ttl"),
        tuple(map(_node, node.get("nodes", ()))),
    )


def _batch(body: bytes, status: int) -> Batch:
    try:
        document = _parsed(body, status)
    except RefusedError as error:
        if error.code == EVENT_INDEX_CLEARED:
            raise CompactedError(int(orjson.loads(body).get("index", 0))) from None
        raise
    node = _node(document["node"])
    if document["action"] in _GONE:
        return Batch(node.modified, (Event(node.key, None, node.directory),))
    if node.directory:
        return Batch(node.modified)
    return Batch(node.modified, (Event(node.key, Item(node.key, node.value.encode(), node.created, node.modified)),))
