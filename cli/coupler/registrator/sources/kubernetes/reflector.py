"""A collection of the API server, listed and then watched, for as long as the program runs.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes. A version of the
store is opaque here: it is handed back to the server, and never read or compared.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from coupler.registrator.sources.kubernetes.client import ApiError
from coupler.registrator.sources.kubernetes.events import Events, SilentError, garbled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from coupler.registrator.sources.kubernetes.client import ApiClient, Stream

_OK, _GONE, _NOT_FOUND, _GATEWAY_TIMEOUT = 200, 410, 404, 504
_NOT_TAKEN = frozenset({400, 405, 406, 415, 422})  # what a server says to a query that it does not know
_WATCH_LIST_SINCE = (1, 27)
_INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_SHORTEST_WATCH = 1.0  # seconds; one that ends sooner, and with nothing said, is a failure
_MOST_LISTS_BEGUN = 3


@dataclass(frozen=True, slots=True)
class Collection:
    """The objects of one resource, of one namespace or of all; the selectors are the server's to apply."""

    api: str
    resource: str
    namespace: str | None = None
    label_selector: str = ""
    field_selector: str = ""

    @property
    def path(self) -> str:
        """Return where it is on the server."""
        within = f"/namespaces/{self.namespace}" if self.namespace else ""
        return f"{self.api}{within}/{self.resource}"

    def query(self, **more: str) -> dict[str, str]:
        """Return the parameters that select its objects, with `more` beside them; empty ones are left out."""
        query = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector} | more
        return {key: value for key, value in query.items() if value}


class Listener(Protocol):
    """Who keeps the objects. Those of a list have no `kind` and `apiVersion`, those of events have.

    What it raises ends the reflector's `run`: it is a mistake in the program.
    """

    def replaced(self, objects: Iterable[dict[str, Any]]) -> None:
        """Take a whole list: what is not in it is gone."""

    def changed(self, item: dict[str, Any]) -> None:
        """Take an object that was added or modified."""

    def deleted(self, item: dict[str, Any]) -> None:
        """Let go of an object; this is its last state, with a version of its own."""


def without_managed_fields(item: dict[str, Any]) -> dict[str, Any]:
    """Return `item` without the record of who set which field, a third of its size."""
    item.get("metadata", {}).pop("managedFields", None)
    return item


class Reflector:
    """Tells a listener what a collection has, and then what changes in it.

    `trim` is applied to every object as soon as it is decoded: what it leaves out is never kept, also while a long
    list is under way. After `stall_seconds` of silence a watch is taken for dead and made again; servers send a
    bookmark about every 60 s where there is something to say. `backoff` is the shortest and the longest pause after
    failures, and a server that asks for more gets it. A kind that the server does not know is looked for again
    every `absent_seconds`.
    """

    def __init__(
        self,
        client: ApiClient,
        collection: Collection,
        listener: Listener,
        *,
        trim: Callable[[dict[str, Any]], dict[str, Any]] = without_managed_fields,
        stall_seconds: float = 70.0,
        initial_seconds: float = 15.0,
        watch_seconds: tuple[float, float] = (240.0, 300.0),
        page_size: int = 100,
        backoff: tuple[float, float] = (0.2, 30.0),
        absent_seconds: float = 60.0,
        random: Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.collection = collection
        self.synced = False
        self.problem: str | None = "the first list has not come yet"
        self.absent = False
        self.relists = self.watches = self.events = self.errors = self.stalls = 0
        self._client, self._listener, self._trim = client, listener, trim
        self._stall_seconds, self._initial_seconds, self._watch_seconds = stall_seconds, initial_seconds, watch_seconds
        self._page_size, self._backoff, self._absent_seconds = page_size, backoff, absent_seconds
        self._random, self._clock = random or Random(), clock  # noqa: S311 (jitter)
        self._version: str | None = None
        self._takes_watch_list = True
        self._plain_next = False
        self._failures = 0
        self._absent_since: float | None = None
        # Whoever speaks to the listener holds the lock. A list holds it from before its first request, so that
        # nothing newer than the list is said before it; the generation tells a watch that a list has overtaken it.
        self._lock = asyncio.Lock()
        self._generation = 0
        self._stream: Stream | None = None
        self._relisted = asyncio.Event()

    async def run(self) -> None:
        """List and watch for ever; failures are retried after a pause. Ends by cancellation."""
        while True:
            generation = self._generation
            try:
                await self._step()
            except ApiError as error:
                await self._recover(error, generation)

    async def relist(self) -> None:
        """Read the whole collection anew, from the quorum of the store and not from a cache, and tell the listener.

        Raises ApiError where the server does not give it. Events wait meanwhile; the watch goes on from the list.
        """
        async with self._lock:
            try:
                await self._list()
            except ApiError as error:
                if error.status != _NOT_FOUND or not self.absent:
                    raise
                self._deliver([], None)
        self._relisted.set()
        if self._stream is not None:
            self._stream.close()

    async def _step(self) -> None:
        """Bring the listener up to date where it is not, and follow one watch to its end."""
        if self._version is None:
            if not self._plain_next and await self._may_watch_list():
                return await self._watch_list()
            async with self._lock:
                if self._version is None:
                    await self._list()
        return await self._watch(self._version or "")

    async def _may_watch_list(self) -> bool:
        """Return whether a list by way of a watch is worth trying.

        A server since 1.19 refuses the query (422) unless its WatchList gate is open; one before ignores it, and
        would send objects without ever saying that these are all. So the server's version is asked first.
        """
        if self._takes_watch_list:
            try:
                self._takes_watch_list = await self._client.version() >= _WATCH_LIST_SINCE
            except ApiError as error:
                if error.status in {0, 429} or error.status >= 500:  # noqa: PLR2004 (HTTP: the server's own failure)
                    raise
                self._takes_watch_list = False
        return self._takes_watch_list

    async def _watch_list(self) -> None:
        self._plain_next = True  # until this one has succeeded
        query = self._watch_query(sendInitialEvents="true", resourceVersionMatch="NotOlderThan")
        try:
            async with self._client.watch(self.collection.path, query) as stream:
                events = Events(stream)
                if (batch := await self._initial(events)) is not None:
                    await self._follow(stream, events, batch, self._generation)
        except SilentError:
            # The bookmark is due within a second or two: this server does not know of it, whatever its version is.
            self._takes_watch_list = False
        except ApiError as error:
            if error.status not in _NOT_TAKEN:
                raise
            self._takes_watch_list = False

    async def _initial(self, events: Events) -> list[dict[str, Any]] | None:
        """Tell the listener what exists; return the events that came behind, None if a list has overtaken this one."""
        generation, objects = self._generation, list[dict[str, Any]]()
        while True:
            batch = await events.batch(self._initial_seconds)
            if not batch:
                raise SilentError
            if (end := self._collect(batch, objects)) is not None:
                break
            await asyncio.sleep(0)
        async with self._lock:
            if generation != self._generation:
                return None
            self._deliver(objects, _version_of(batch[end]))
        return batch[end + 1 :]

    def _collect(self, batch: list[dict[str, Any]], objects: list[dict[str, Any]]) -> int | None:
        """Add the objects of `batch`; return where in it the bookmark is that ends them, None for not yet."""
        for index, event in enumerate(batch):
            item = event["object"]
            match event.get("type"):
                case "ADDED":
                    objects.append(self._trim(item))
                case "BOOKMARK":
                    annotations = item.get("metadata", {}).get("annotations") or {}
                    if annotations.get(_INITIAL_EVENTS_END) == "true":
                        return index
                case "ERROR":
                    raise _said(item)
                case other:
                    raise garbled(f"{other!r} among the objects that exist")
        return None

    async def _watch(self, version: str) -> None:
        generation = self._generation
        async with self._client.watch(self.collection.path, self._watch_query(resourceVersion=version)) as stream:
            await self._follow(stream, Events(stream), [], generation)

    async def _follow(self, stream: Stream, events: Events, batch: list[dict[str, Any]], generation: int) -> None:
        """Tell the listener what the stream says, beginning with `batch`, until it ends or a list overtakes it."""
        self.watches += 1
        self.problem, self._stream = None, stream
        began, quiet = self._clock(), not batch
        try:
            while True:
                async with self._lock:
                    if generation != self._generation:
                        return
                    for event in batch:
                        self._apply(event)
                if not (batch := await events.batch(self._stall_seconds)):
                    break
                quiet = False
        except SilentError:
            self.stalls += 1
        except ApiError:
            if generation != self._generation:
                return  # relist() cut the stream
            raise
        finally:
            self._stream = None
        if quiet:
            if self._clock() - began < min(_SHORTEST_WATCH, self._stall_seconds):
                raise ApiError(_OK, "Ended", "the watch ended as soon as it had begun")
            self._failures = 0
            await self._doubt_version(generation)

    def _apply(self, event: dict[str, Any]) -> None:
        item = event["object"]
        match event.get("type"):
            case "ADDED" | "MODIFIED":
                version = _version_of(event)
                self._listener.changed(self._trim(item))
            case "DELETED":
                version = _version_of(event)
                self._listener.deleted(self._trim(item))
            case "BOOKMARK":
                version = _version_of(event)
            case "ERROR":
                raise _said(item)
            case other:
                raise garbled(f"an event of type {other!r}")
        self._version, self._failures = version, 0
        self.events += 1

    async def _doubt_version(self, generation: int) -> None:
        """Find out whether the store knows our version, after a watch that said nothing.

        A store that was restored from a backup is behind it, and a watch from a version to come is silent for ever.
        """
        never = ",".join(filter(None, (self.collection.field_selector, "metadata.name=-")))
        query = self.collection.query(
            fieldSelector=never, resourceVersion=self._version or "", resourceVersionMatch="NotOlderThan"
        )
        try:
            await self._client.list(self.collection.path, query)
        except ApiError as error:
            causes = error.details.get("causes") or ()
            if error.status == _GATEWAY_TIMEOUT and any("TooLarge" in str(cause) for cause in causes):
                self._forget(generation)

    async def _list(self) -> None:
        """Read all pages and tell the listener; begin again where the store has forgotten what the list began with."""
        for left in reversed(range(_MOST_LISTS_BEGUN)):
            try:
                objects, version = await self._pages()
            except ApiError as error:
                if error.status != _GONE or not left:
                    raise
            else:
                self._deliver(objects, version)
                return

    async def _pages(self) -> tuple[list[dict[str, Any]], str]:
        objects: list[dict[str, Any]] = []
        token = ""
        while True:
            query = self.collection.query(limit=str(self._page_size), **{"continue": token})
            page = await self._client.list(self.collection.path, query)
            objects += map(self._trim, page["items"])
            version, token = page["metadata"].get("resourceVersion"), page["metadata"].get("continue") or ""
            if not token:
                break
            await asyncio.sleep(0)  # decoding a page takes the loop's time: others come first now
        if not isinstance(version, str) or not version:
            raise garbled("the list has no version")
        return objects, version

    def _deliver(self, objects: list[dict[str, Any]], version: str | None) -> None:
        """Tell the listener a whole list. `synced` is true before, so that it may act on it at once."""
        self._version, self._generation = version, self._generation + 1
        self.synced, self.absent = True, version is None
        self._absent_since = None
        self.problem, self._plain_next = None, False
        self.relists += 1
        self._listener.replaced(objects)

    async def _recover(self, error: ApiError, generation: int) -> None:
        """Note what went wrong, and wait as long as it takes to be polite."""
        self._failures += 1
        if error.status == _GONE:
            self._forget(generation)  # this is how the server says that a list is due, and no fault of anyone
            if self._failures > 1:
                await self._pause(self._delay())
            return
        if error.status == _NOT_FOUND and await self._is_absent(generation):
            await self._pause(self._absent_seconds)
            return
        if error.reason == "Unusable":
            self._forget(generation)
        self.errors += 1
        self.problem = f"{error}: {error.why}"
        await self._pause(max(self._delay(), (error.retry_after or 0.0) * self._random.uniform(1.0, 1.25)))

    async def _is_absent(self, generation: int) -> bool:
        """Return whether the server does not have the kind; then the listener is told an empty list.

        A server that is starting answers before it knows its custom resources, so it has to be ready; and where there
        was a list before, the kind has to be away for as long as until the next look.
        """
        now = self._clock()
        if self._absent_since is None:
            self._absent_since = now
        try:
            settled = await self._client.ready()
        except ApiError:
            settled = False
        if self.synced and not self.absent:
            settled = settled and now - self._absent_since >= self._absent_seconds
        if settled:
            async with self._lock:
                self._forget(generation)
                if not self.absent and self._version is None:
                    self._deliver([], None)
            self._failures = 0
        return settled

    def _forget(self, generation: int) -> None:
        """Let go of the version, so that a list comes next, unless a list has just set it."""
        if generation == self._generation:
            self._version = None

    def _delay(self) -> float:
        shortest, longest = self._backoff
        return float(min(longest, shortest * 2.0 ** min(self._failures - 1, 30)) * self._random.uniform(0.5, 1.0))

    async def _pause(self, seconds: float) -> None:
        """Wait, but not past a relist that has succeeded."""
        self._relisted.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._relisted.wait()

    def _watch_query(self, **more: str) -> dict[str, str]:
        seconds = max(1, round(self._random.uniform(*self._watch_seconds)))
        return self.collection.query(watch="true", allowWatchBookmarks="true", timeoutSeconds=str(seconds), **more)


def _version_of(event: dict[str, Any]) -> str:
    metadata = event["object"].get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version:
        raise garbled("an object without a version")
    return version


def _said(status: dict[str, Any]) -> ApiError:
    """Return the error that an ERROR event is."""
    code = status.get("code")
    message = str(status.get("message") or "")
    return ApiError(code if isinstance(code, int) else 500, str(status.get("reason") or ""), message)
