"""etcd's API of version 3, over its JSON gateway: the same calls as by gRPC, keys and values in base64.

Reference: etcd's `api_grpc_gateway` and `rpc.proto`. etcd 3.3 has the gateway under `/v3beta`, later ones under `/v3`:
which one it is, is found by asking.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from coupler.registrator.etcd import Batch, CompactedError, EtcdError, Event, Item, LeaseLostError, Snapshot
from coupler.registrator.etcd.endpoints import Endpoints
from coupler.registrator.leader import boot_clock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence

    import aiohttp

    from coupler.registrator.etcd.endpoints import Access

OPERATIONS, OPERATION_BYTES = 100, 1_000_000
"""How much one transaction takes: etcd refuses more than 128 operations (--max-txn-ops) or 1.5 MB."""

_APIS = ("/v3", "/v3beta")
_NOT_FOUND, _OK, _OUT_OF_RANGE, _UNAUTHENTICATED, _GRPC_NOT_FOUND = 404, 200, 11, 16, 5
_OLD_TOKEN = ("invalid auth token", "revision in header is old")
_EVERYTHING = b"\0"


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key; `lease`: it goes when the lease does."""

    key: str
    value: bytes
    lease: int = 0

    def document(self) -> dict[str, Any]:
        """Return the operation as it stands in a transaction."""
        put: dict[str, Any] = {"key": _coded(self.key), "value": b64encode(self.value).decode()}
        if self.lease:
            put["lease"] = str(self.lease)
        return {"request_put": put}


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a key, or with `prefix` everything that begins with it."""

    key: str
    prefix: bool = False

    def document(self) -> dict[str, Any]:
        """Return the operation as it stands in a transaction."""
        return {"request_delete_range": _span(self.key) if self.prefix else {"key": _coded(self.key)}}


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key."""

    key: str

    def document(self) -> dict[str, Any]:
        """Return the operation as it stands in a transaction."""
        return {"request_range": {"key": _coded(self.key)}}


Operation = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class Created:
    """A condition: the key was created at this revision; 0: there is no such key."""

    key: str
    revision: int

    def document(self) -> dict[str, Any]:
        """Return the condition as it stands in a transaction."""
        return {"key": _coded(self.key), "target": "CREATE", "result": "EQUAL", "create_revision": str(self.revision)}


@dataclass(frozen=True, slots=True)
class Modified:
    """A condition: the key was written last at this revision; 0: there is no such key."""

    key: str
    revision: int

    def document(self) -> dict[str, Any]:
        """Return the condition as it stands in a transaction."""
        return {"key": _coded(self.key), "target": "MOD", "result": "EQUAL", "mod_revision": str(self.revision)}


Condition = Created | Modified


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a transaction: whether the conditions held, its revision, and the items that each `Get` read."""

    succeeded: bool
    revision: int
    items: tuple[Item, ...] = ()


class EtcdV3:
    """A client of one etcd. Reads are linearizable: without a quorum they fail.

    `stall` is how long, in seconds, a watch may be silent before etcd is asked whether it is still itself.
    """

    def __init__(self, access: Access, *, stall: float = 30.0, page: int = 1000) -> None:
        self._http = Endpoints(access)
        self._stall = stall
        self._page = page
        self._api: str | None = None
        self._token: str | None = None

    async def get(self, key: str) -> Item | None:
        """Return one key, None if there is none."""
        answer = await self._call("kv/range", {"key": _coded(key)})
        return next(map(_item, answer.get("kvs", ())), None)

    async def range(self, prefix: str, *, revision: int = 0) -> Snapshot:
        """Return every key under `prefix` as of `revision` (0: now), read page by page of one revision."""
        span, items = _span(prefix), list[Item]()
        while True:
            answer = await self._call("kv/range", {**span, "revision": str(revision), "limit": str(self._page)})
            revision = revision or _revision(answer)
            page = answer.get("kvs", ())
            items += map(_item, page)
            if not answer.get("more") or not page:
                return Snapshot(revision, tuple(items))
            span["key"] = b64encode(b64decode(page[-1]["key"]) + b"\0").decode()

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        """Write a key; return the revision that this made."""
        return _revision(await self._call("kv/put", Put(key, value, lease).document()["request_put"]))

    async def delete(self, key: str, *, prefix: bool = False) -> int:
        """Delete a key, or everything that begins with it; return how many keys went."""
        answer = await self._call("kv/deleterange", Delete(key, prefix).document()["request_delete_range"])
        return int(answer.get("deleted", 0))

    async def txn(
        self, conditions: Iterable[Condition], then: Iterable[Operation], otherwise: Iterable[Operation] = ()
    ) -> Outcome:
        """Do one thing or the other, as one: at most `OPERATIONS` each. See `write` for more."""
        answer = await self._call(
            "kv/txn",
            {
                "compare": [condition.document() for condition in conditions],
                "success": [operation.document() for operation in then],
                "failure": [operation.document() for operation in otherwise],
            },
        )
        items = (kv for part in answer.get("responses", ()) for kv in part.get("response_range", {}).get("kvs", ()))
        return Outcome(bool(answer.get("succeeded")), _revision(answer), tuple(map(_item, items)))

    async def write(self, operations: Iterable[Operation], conditions: Sequence[Condition] = ()) -> bool:
        """Carry out any number of operations in order, in transactions as large as etcd takes.

        Each transaction has the conditions; False as soon as they do not hold, and then nothing of the rest is done.
        """
        for batch in _batches(operations):
            if not (await self.txn(conditions, batch)).succeeded:
                return False
        return True

    async def watch(self, prefix: str, from_revision: int) -> AsyncGenerator[Batch, None]:
        """Follow `prefix`; see `Store.watch`. A silent stream is opened anew after etcd has proved its quorum."""
        revision, told = from_revision - 1, False
        while True:
            request = {**_span(prefix), "start_revision": str(revision + 1), "progress_notify": True}
            body = orjson.dumps({"create_request": request})
            api, headers = await self._settled(), await self._headers()
            headers["Grpc-Metadata-hasleader"] = "true"  # etcd ends the watch when its member loses the others
            async with self._http.stream("POST", f"{api}/watch", body=body, headers=headers) as response:
                async for message in self._messages(response):
                    batch = self._batch(message, revision)
                    if batch.events or batch.revision > revision or not told:
                        revision, told = batch.revision, True
                        yield batch
            await self._call("kv/range", {**_span(prefix), "count_only": True})

    async def grant(self, ttl: int) -> Lease:
        """Return a lease of `ttl` seconds."""
        asked = boot_clock()
        answer = await self._call("lease/grant", {"TTL": str(ttl)})
        return Lease(self, int(answer["ID"]), float(answer["TTL"]), asked)

    async def keep_alive(self, lease: int) -> float:
        """Renew a lease; return its seconds to live. Raises LeaseLostError if it is gone."""
        answer = await self._call("lease/keepalive", {"ID": str(lease)})
        left = float(answer.get("result", {}).get("TTL", 0))
        if left <= 0:
            raise LeaseLostError("a lease in etcd is lost", f"etcd knows no lease {lease:x}")
        return left

    async def revoke(self, lease: int) -> None:
        """End a lease, and every key that is bound to it; nothing happens if it is gone already."""
        path = "kv/lease/revoke" if await self._settled() == "/v3beta" else "lease/revoke"
        await self._call(path, {"ID": str(lease)}, missing_is_fine=True)

    async def cluster(self) -> str:
        """Return the number by which this etcd is told from any other; needs its quorum."""
        answer = await self._call("kv/range", {"key": _coded("\0"), "count_only": True})
        return str(answer["header"]["cluster_id"])

    async def close(self) -> None:
        """Let go of all connections."""
        await self._http.close()

    async def _messages(self, response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
        """Yield what the stream says, until it is silent for too long. Raises EtcdError if it ends."""
        if response.status != _OK:
            raise _refusal(orjson.loads(await response.read()))
        rest = b""
        while True:
            try:
                async with asyncio.timeout(self._stall):
                    chunk = await response.content.readany()
            except TimeoutError:
                return
            if not chunk:
                raise EtcdError("etcd has ended a watch", str(response.url), "is it being stopped?")
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line:
                    yield orjson.loads(line)

    def _batch(self, message: dict[str, Any], revision: int) -> Batch:
        if "error" in message:
            error = message["error"]
            self._token = None
            raise _refusal(error if isinstance(error, dict) else {"error": error})
        result = message["result"]
        if int(result.get("compact_revision", 0)):
            raise CompactedError(int(result["compact_revision"]))
        if result.get("canceled"):
            raise EtcdError("etcd has ended a watch", result.get("cancel_reason"), "is the user allowed to read there?")
        events = tuple(map(_event, result.get("events", ())))
        return Batch(revision if result.get("created") else _revision(result), events)

    async def _settled(self) -> str:
        if self._api is None:
            await self._call("kv/range", {"key": _coded("\0"), "count_only": True})
        return self._api or _APIS[0]

    async def _headers(self) -> dict[str, str]:
        if self._http.access.user is None:
            return {}
        if self._token is None:
            who = {"name": self._http.access.user, "password": self._http.access.password or ""}
            self._token = (await self._post("auth/authenticate", orjson.dumps(who), {}))["token"]
        return {"Authorization": self._token}

    async def _call(self, path: str, request: dict[str, Any], *, missing_is_fine: bool = False) -> dict[str, Any]:
        body = orjson.dumps(request)
        headers = await self._headers()
        answer = await self._post(path, body, headers)
        if headers and (answer.get("code") == _UNAUTHENTICATED or _says(answer, _OLD_TOKEN)):
            self._token = None
            answer = await self._post(path, body, await self._headers())
        if "error" in answer and not (missing_is_fine and answer.get("code") == _GRPC_NOT_FOUND):
            raise _refusal(answer)
        return answer

    async def _post(self, path: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        for api in _APIS if self._api is None else (self._api,):
            answer = await self._http.ask("POST", f"{api}/{path}", body=body, headers=headers)
            try:
                document: dict[str, Any] = orjson.loads(answer.body)
            except orjson.JSONDecodeError:
                if answer.status == _NOT_FOUND:
                    continue
                raise EtcdError("etcd answers in no JSON", f"{answer.url}: {answer.body[:200]!r}") from None
            if path == "auth/authenticate" and "error" in document:
                raise _refusal(document)
            self._api = api
            return document
        raise EtcdError(
            f"{self._http.url} has no API of version 3",
            "it has neither /v3 nor /v3beta",
            "is this an etcd of 3.3 or newer, and its --enable-grpc-gateway on?",
        )


class Lease:
    """A lease that is ours. `valid` counts from before it was asked for: it never says yes longer than etcd does."""

    def __init__(
        self, client: EtcdV3, id_: int, ttl: float, asked: float, clock: Callable[[], float] = boot_clock
    ) -> None:
        self._client, self.id, self.ttl, self._clock = client, id_, ttl, clock
        self._until = asked + ttl

    @property
    def valid(self) -> bool:
        """Return whether nobody can have seen the lease expire yet."""
        return self._clock() < self._until

    @property
    def left(self) -> float:
        """Return for how many seconds the lease is valid without being renewed."""
        return max(0.0, self._until - self._clock())

    async def renew(self) -> None:
        """Renew it once. Raises LeaseLostError if it is gone, EtcdError if etcd cannot be asked."""
        asked = self._clock()
        self._until = asked + await self._client.keep_alive(self.id)

    async def keep(self) -> None:
        """Renew it for ever, three times in its life; raises LeaseLostError when it is lost."""
        while True:
            await asyncio.sleep(min(self.ttl, self.left) / 3)
            try:
                await self.renew()
            except LeaseLostError:
                self._until = 0.0
                raise
            except EtcdError as error:
                if not self.valid:
                    raise LeaseLostError("a lease in etcd is lost", f"it could not be renewed: {error.why}") from error

    async def revoke(self) -> None:
        """End it, and every key that is bound to it."""
        self._until = 0.0
        await self._client.revoke(self.id)


def _coded(key: str) -> str:
    return b64encode(key.encode("utf-8", "surrogateescape")).decode()


def _span(prefix: str) -> dict[str, Any]:
    """Return the keys that begin with `prefix`: up to the next text that does not (`rpc.proto`, RangeRequest)."""
    raw = prefix.encode("utf-8", "surrogateescape")
    stem = raw.rstrip(b"\xff")
    end = stem[:-1] + bytes((stem[-1] + 1,)) if stem else _EVERYTHING
    return {"key": b64encode(raw or _EVERYTHING).decode(), "range_end": b64encode(end).decode()}


def _decoded(key: str) -> str:
    return b64decode(key).decode("utf-8", "surrogateescape")


def _item(kv: dict[str, Any]) -> Item:
    return Item(
        _decoded(kv["key"]),
        b64decode(kv.get("value", "")),
        int(kv.get("create_revision", 0)),
        int(kv.get("mod_revision", 0)),
        int(kv.get("lease", 0)),
    )


def _event(event: dict[str, Any]) -> Event:
    kv = event["kv"]
    return Event(_decoded(kv["key"]), None if event.get("type") == "DELETE" else _item(kv))


def _revision(answer: dict[str, Any]) -> int:
    return int(answer["header"]["revision"])


def _says(answer: dict[str, Any], texts: Iterable[str]) -> bool:
    return any(text in str(answer.get("error")) for text in texts)


def _refusal(answer: dict[str, Any]) -> EtcdError:
    why = str(answer.get("message") or answer.get("error"))
    if answer.get("code") == _OUT_OF_RANGE and "compacted" in why:
        return CompactedError(0)
    return EtcdError("etcd refuses", why)


def _batches(operations: Iterable[Operation]) -> Iterable[list[Operation]]:
    """Yield transactions of what etcd takes at once; no key is written twice in one, which it refuses."""
    batch: list[Operation] = []
    keys: set[str] = set()
    size = 0
    for operation in operations:
        length = len(operation.key) + (len(operation.value) if isinstance(operation, Put) else 0)
        whole = isinstance(operation, Delete) and operation.prefix
        clash = operation.key in keys or (whole and any(key.startswith(operation.key) for key in keys))
        if batch and (len(batch) >= OPERATIONS or size + length > OPERATION_BYTES or clash):
            yield batch
            batch, keys, size = [], set(), 0
        batch.append(operation)
        keys.add(operation.key)
        size += length
        if whole:  # what is written below it next must come after, not beside it
            yield batch
            batch, keys, size = [], set(), 0
    if batch:
        yield batch
