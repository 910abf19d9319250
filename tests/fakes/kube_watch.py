"""Watches of the fake API server: streams of events, with the bad days that a real one may have."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.fakes.kube_api import KubeApi
    from tests.fakes.kube_selectors import Selector
    from tests.fakes.kube_store import Change, Kind, Refused

_BOOKMARK_LEAD = 2.0  # seconds before the end by timeoutSeconds
_LONGEST = 3600.0


class Watch:
    """One open watch."""

    def __init__(self, api: KubeApi, kind: Kind, namespace: str, selector: Selector, query: Mapping[str, str]) -> None:
        self.api, self.kind, self.namespace, self.selector = api, kind, namespace, selector
        self.pending: deque[bytes] = deque()
        self.stalled = self.ends_midline = False
        self._bookmarks = api.store.personality.bookmarks and query.get("allowWatchBookmarks") in {"true", "1"}
        self._seconds = float(query.get("timeoutSeconds") or _LONGEST) * api.scale
        self._wake = asyncio.Event()
        self._start = api.store.version
        self._told_already = 0  # a bookmark that says no more than this is not sent
        self._request: web.BaseRequest | None = None

    def begin(self, version: str | None, *, initial: bool) -> None:
        """Queue what the watch has to say first. Raises Refused where `version` is too old."""
        store = self.api.store
        self._told_already = store.version if store.personality.progress else store.shelf(self.kind).last
        if version and version != "0" and not initial:
            self._start = int(version)
            for change in store.changes_since(self.kind, self._start):
                self.told(change)
            return
        for key, item in sorted(store.shelf(self.kind).objects.items()):
            if self.namespace in {"", key[0]} and self.selector.matches(item):
                self._say("ADDED", item)
        if initial:
            annotations = {"k8s.io/initial-events-end": "true"}
            self._bookmark(store.version, annotations=annotations)

    def told(self, change: Change) -> None:
        """Queue the event that `change` is to this watch."""
        new = change.version > self._start - self._sends_again()
        if (
            new
            and self.namespace in {"", change.key[0]}
            and (event := change.seen(self.selector, as_it_was=self.api.store.personality.deleted_as_it_was))
        ):
            self._say(*event)

    def wake(self) -> None:
        self._wake.set()

    def abort(self) -> None:
        """End the connection without a final chunk."""
        if self._request is not None and self._request.transport is not None:
            self._request.transport.abort()

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send the stream until its time is up."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        self._request = request
        await response.prepare(request)
        now = time.monotonic()
        deadline = now + self._seconds
        bookmark = min(now + self.api.bookmark_seconds * self.api.scale, deadline - _BOOKMARK_LEAD * self.api.scale)
        while now < deadline or self.stalled:
            due = min(bookmark if bookmark > now else _LONGEST + now, deadline) if not self.stalled else now + _LONGEST
            if not self.pending or self.stalled:
                await self._wait(due - now)
            if self.stalled:
                continue
            now = time.monotonic()
            if bookmark <= now < deadline:
                last = deadline - _BOOKMARK_LEAD * self.api.scale
                period = self.api.bookmark_seconds * self.api.scale
                bookmark = min(now + period, last) if now < last else deadline + 1
                self._mark()
            await self._flush(response)
        await response.write_eof()
        return response

    async def fail(self, request: web.BaseRequest, refused: Refused) -> web.StreamResponse:
        """Send nothing but an ERROR event."""
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await self._write(response, orjson.dumps({"type": "ERROR", "object": refused.status}) + b"\n")
        await response.write_eof()
        return response

    def _sends_again(self) -> int:
        return 1 if self.api.store.personality.sends_again else 0

    def _mark(self) -> None:
        store = self.api.store
        version = store.version if store.personality.progress else store.shelf(self.kind).last
        if self._bookmarks and version > max(self._start, self._told_already):
            self._bookmark(version)

    def _bookmark(self, version: int, **more: Any) -> None:
        metadata = {"resourceVersion": str(version), "creationTimestamp": None, **more}
        self._say("BOOKMARK", {"metadata": metadata})

    def _say(self, event: str, item: dict[str, Any]) -> None:
        whole = {"kind": self.kind.name, "apiVersion": self.kind.version, **item}
        self.pending.append(orjson.dumps({"type": event, "object": whole}) + b"\n")
        self._wake.set()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _flush(self, response: web.StreamResponse) -> None:
        while self.pending and not self.stalled:
            line = self.pending.popleft()
            if self.ends_midline:
                # In the middle of a character, where there is a long one.
                at = next((index + 1 for index, byte in enumerate(line) if byte >= 0xC0), len(line) // 2)
                await response.write(line[:at])
                await asyncio.sleep(0)
                self.abort()
                raise ConnectionResetError
            await self._write(response, line)

    async def _write(self, response: web.StreamResponse, line: bytes) -> None:
        size = self.api.chunk_size
        if not size:
            await response.write(line)
            return
        for at in range(0, len(line), size):
            await response.write(line[at : at + size])
            await asyncio.sleep(0)  # so that the other end sees the piece alone
