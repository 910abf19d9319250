"""The recorded exchanges: reading them, doing them again with the fake, and saying what is different.

The format is described in tests/fixtures/kubernetes/README.md. What others wrote while a recording was made is known
from the watches alone; it is written to the fake's store at the same time, with the same version.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from tests.fakes.kube_api import KubeApi
from tests.fakes.kube_store import V1_21, Personality
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = Path(__file__).parents[2] / "fixtures" / "kubernetes" / "recorded"
_WATCH = re.compile(r"[?&]watch=(1|true|yes)\b")
_LARGE = b'{"metadata": {"name": "large"}, "data": {"x": "' + b"x" * 3_200_000 + b'"}}'

Json = dict[str, Any]


@dataclass
class Case:
    """How a recording is done again.

    `before` are done to the server before the first exchange whose note or marker begins with their key; what is
    `beyond` the fake, by a part of the note or the path, is left out.
    """

    name: str
    personality: Personality = V1_21
    scale: float = 1.0
    prepare: Callable[[KubeApi, list[Json]], None] = lambda _api, _exchanges: None
    before: dict[str, Callable[[KubeApi], None]] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()  # as in "GET /api/v1/pods (note)"

    def exchanges(self) -> list[Json]:
        return exchanges(self.name)


def exchanges(name: str) -> list[Json]:
    """Return the exchanges of a recording, in the order in which they began."""
    found = json.loads((FOLDER / f"{name}.json").read_text())["exchanges"]
    return sorted(found, key=lambda exchange: exchange.get("t") or 0.0)


def raw_watch() -> bytes:
    """Return the body of the watch that was recorded byte by byte, without its chunk framing."""
    received = json.loads((FOLDER / "01-raw-watch-bytes.json").read_text())["recv"]
    rest = "".join(entry["bytes"] for entry in received).encode().split(b"\r\n\r\n", 1)[1]
    body = b""
    while rest:
        size, rest = rest.split(b"\r\n", 1)
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


def put_at(api: KubeApi, item: Json, version: int) -> None:
    """Put an object there as if it had been written at `version`."""
    api.store.version = version - 1
    api.put(item)


class Replay:
    """One recording done again; `differences` are what the fake does otherwise."""

    def __init__(self, case: Case, api: KubeApi, session: aiohttp.ClientSession) -> None:
        self._case, self._api, self._session = case, api, session
        self._exchanges = [exchange for exchange in case.exchanges() if not self._beyond(exchange)]
        self._before = dict(case.before)
        self._watches: list[asyncio.Task[None]] = []
        self._done = asyncio.Event()
        self.differences: list[str] = []
        self.compared = 0

    async def run(self) -> None:
        start = time.monotonic()
        self._case.prepare(self._api, self._exchanges)
        for at, act in self._timeline():
            await asyncio.sleep(max(0.0, start + at * self._case.scale - time.monotonic()))
            await act()
        await asyncio.sleep(0.1)  # so that what the fake says too much is heard
        self._done.set()
        await asyncio.gather(*self._watches)

    def _beyond(self, exchange: Json) -> bool:
        if "request" not in exchange:
            return False
        request = exchange["request"]
        where = f"{request['method']} {request['path']} ({exchange.get('note', '')})"
        return any(part in where for part in self._case.beyond)

    def _timeline(self) -> list[tuple[float, Callable[[], Any]]]:
        steps: list[tuple[float, Callable[[], Any]]] = []
        for exchange in self._exchanges:
            steps.append((exchange.get("t") or 0.0, partial(self._do, exchange)))
        steps += [(at, partial(self._write, event)) for at, event in self._hidden()]
        return sorted(steps, key=lambda step: step[0])

    def _hidden(self) -> Iterator[tuple[float, Json]]:
        """Yield what the watches saw of writes that are not among the exchanges."""
        known = {self._version_after(exchange) for exchange in self._exchanges if not _is_watch(exchange)}
        known |= {version + 1 for exchange in self._exchanges if (version := self._version_after(exchange)) and
                  exchange["request"]["method"] == "DELETE"}  # fmt: skip
        for exchange in self._exchanges:
            if not _is_watch(exchange):
                continue
            for entry in _events(exchange):
                version = int(entry["event"]["object"].get("metadata", {}).get("resourceVersion") or 0)
                if entry["event"]["type"] in {"ADDED", "MODIFIED", "DELETED"} and version not in known:
                    known.add(version)
                    yield entry["t"], entry["event"]

    async def _write(self, event: Json) -> None:
        item = event["object"]
        version = int(item["metadata"]["resourceVersion"])
        if version <= self._api.store.version:
            return  # it was there before
        if event["type"] == "DELETED":
            kind = self._api.store.kind_of(item)
            self._api.store.version = version - 1
            self._api.store.remove(kind, (item["metadata"].get("namespace", ""), item["metadata"]["name"]))
        else:
            put_at(self._api, item, version)

    def _version_after(self, exchange: Json) -> int | None:
        """Return the version that an exchange made, None where it made none."""
        request, response = exchange.get("request"), exchange.get("response", {})
        if not request or request["method"] == "GET" or response.get("status") not in {200, 201}:
            return None
        answer = response.get("json") or {}
        version = (answer.get("metadata") or {}).get("resourceVersion")
        if version:
            return int(version)
        name = request["path"].rsplit("/", 1)[1].split("?")[0]
        seen = [
            int(entry["event"]["object"]["metadata"]["resourceVersion"])
            for watch in self._exchanges
            if _is_watch(watch)
            for entry in _events(watch)
            if entry["event"]["type"] == "DELETED" and entry["event"]["object"]["metadata"]["name"] == name
        ]
        return max(seen, default=None)

    async def _do(self, exchange: Json) -> None:
        for beginning in list(self._before):
            if exchange.get("note", "").startswith(beginning):
                self._before.pop(beginning)(self._api)
        if "request" not in exchange or "response" not in exchange:
            return
        version = self._version_after(exchange)
        if version and version > self._api.store.version:
            self._api.store.version = version - 1
        answer = exchange["response"].get("json")
        if isinstance(answer, dict) and "items" in answer:  # others have written meanwhile
            at = int(answer["metadata"]["resourceVersion"])
            self._api.store.version = max(self._api.store.version, at) if "continue=" not in str(exchange) else (
                self._api.store.version
            )  # fmt: skip
        if _is_watch(exchange) and exchange["response"]["status"] == 200:
            begun = asyncio.Event()
            self._watches.append(asyncio.create_task(self._watch(exchange, begun)))
            await begun.wait()
        else:
            await self._ask(exchange)

    async def _ask(self, exchange: Json) -> None:
        async with self._request(exchange) as response:
            text = await response.text()
            self._compare(exchange, "status", exchange["response"]["status"], response.status)
            for name in ("Content-Type", "Retry-After"):
                recorded = exchange["response"].get("headers", {}).get(name)
                self._compare(exchange, name, recorded, response.headers.get(name))
            if "json" in exchange["response"]:
                recorded, ours = outline(exchange["response"]["json"]), outline(json.loads(text))
                if "resourceVersion=0" in exchange["request"]["path"]:  # the watch cache has no order
                    recorded, ours = (found | {"items": sorted(found["items"])} for found in (recorded, ours))
                self._compare_outlines(exchange, recorded, ours)
            elif response.content_type == "text/plain" and response.status < 500:
                self._compare(exchange, "text", exchange["response"]["text"], text)

    async def _watch(self, exchange: Json, begun: asyncio.Event) -> None:
        events: list[Json] = []
        ended = "by the client"

        async def listen() -> None:
            nonlocal ended
            async with self._request(exchange) as response:
                self._compare(exchange, "status", 200, response.status)
                begun.set()
                content = b""
                async for chunk in response.content.iter_any():
                    content += chunk
                    *lines, content = content.split(b"\n")
                    events.extend(json.loads(line) for line in lines)
            ended = "clean"

        listening = asyncio.create_task(listen())
        how = str((exchange["response"].get("end") or exchange.get("end") or {}).get("how", "clean"))
        if how.startswith("client"):
            await self._done.wait()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        else:
            await listening
        self._compare(exchange, "end", "by the client" if how.startswith("client") else "clean", ended)
        recorded = [entry["event"] for entry in _events(exchange)]
        self._compare(exchange, "events", _words(recorded), _words(events))
        for theirs, ours in zip(_told(recorded), _told(events), strict=False):
            self._compare_outlines(exchange, outline(theirs["object"]), outline(ours["object"]))
        self._compare(exchange, "bookmarks", _bookmarks(recorded), _bookmarks(events))

    def _request(self, exchange: Json) -> Any:
        request = exchange["request"]
        headers = {"Accept": "application/json"} | (request.get("headers") or {})
        user = re.search(r"of user (\S+)", request.get("auth") or "")
        if not exchange.get("note", "").startswith("no credentials"):
            headers["Authorization"] = f"Bearer {user[1] if user else 'admin'}"
        body = request.get("body")
        content = None
        if body is not None:
            content = _LARGE if str(body).startswith("(JSON of") else (
                body.encode() if isinstance(body, str) else json.dumps(body).encode()
            )  # fmt: skip
            patch = request["method"] == "PATCH" and "headers" not in request
            headers.setdefault("Content-Type", "application/merge-patch+json" if patch else "application/json")
        url = URL(self._api.url + request["path"].replace("(", "%28").replace(")", "%29"), encoded=True)
        return self._session.request(request["method"], url, data=content, headers=headers)

    def _compare_outlines(self, exchange: Json, recorded: Json, ours: Json) -> None:
        for key, value in recorded.items():
            self._compare(exchange, key, value, ours.get(key))

    def _compare(self, exchange: Json, what: str, recorded: object, ours: object) -> None:
        self.compared += 1
        if recorded != ours:
            request = exchange["request"]
            where = f"{request['method']} {request['path']} ({exchange.get('note', '')})"
            self.differences.append(f"{where}: {what}: recorded {recorded!r}, the fake has {ours!r}")


async def replay(case: Case) -> Replay:
    """Do a recording again."""
    api = KubeApi(case.personality, scale=case.scale, tokens=("admin", "lb-registrator"))
    api.powerless.add("lb-registrator")
    async with api, aiohttp.ClientSession() as session:
        run = Replay(case, api, session)
        await run.run()
        return run


def outline(answer: Any) -> Json:
    """Return what a client may rely on in an answer: not its times, and not what defaults fill in."""
    if not isinstance(answer, dict):
        return {"answer": answer}
    if answer.get("kind") == "Status":
        return _outline_of_status(answer)
    if "items" in answer:
        return _outline_of_list(answer)
    metadata = answer.get("metadata") or {}
    found = {key: answer[key] for key in ("kind", "apiVersion", "endpoints", "ports", "addressType") if key in answer}
    found |= {
        key: metadata[key]
        for key in ("name", "namespace", "resourceVersion", "labels", "deletionGracePeriodSeconds", "annotations")
        if key in metadata
    }
    if answer.get("kind") == "Lease":
        found["spec"] = answer["spec"]
    status = answer.get("status") or {}
    return found | {f"status.{key}": status[key] for key in ("phase", "loadBalancer") if key in status}


def _outline_of_status(answer: Json) -> Json:
    found = {key: answer.get(key) for key in ("kind", "apiVersion", "status", "reason", "code")}
    found["continue"] = "continue" in answer["metadata"]
    details = answer.get("details") or {}
    found["has details"] = "details" in answer
    found |= {f"details.{key}": details.get(key) for key in ("name", "group", "retryAfterSeconds")}
    return found | {"causes": [cause.get("reason") for cause in details.get("causes") or ()]}


def _outline_of_list(answer: Json) -> Json:
    found: Json = {key: answer[key] for key in ("kind", "apiVersion") if key in answer}
    found |= {key: answer["metadata"].get(key) for key in ("resourceVersion", "continue", "remainingItemCount")}
    items = answer["items"]
    if not isinstance(items, int):
        found["items"] = [item if isinstance(item, str) else item["metadata"]["name"] for item in items]
        found["kinds of items"] = [item["kind"] for item in items if isinstance(item, dict) and "kind" in item]
    return found


def _told(events: list[Json]) -> list[Json]:
    return [event for event in events if event["type"] != "BOOKMARK"]


def _words(events: list[Json]) -> list[str]:
    """Return the events, but for bookmarks, in a word each."""
    found = [
        (event["type"], event["object"].get("kind"), event["object"].get("metadata") or {}) for event in _told(events)
    ]
    return [f"{kind} {what} {metadata.get('name')} {metadata.get('resourceVersion')}" for kind, what, metadata in found]


def _bookmarks(events: list[Json]) -> list[str]:
    """Return what bookmarks hold, and whether they have the version of the event before; their moments differ."""
    found, last = [], ""
    for event in events:
        item = event["object"]
        version = item.get("metadata", {}).get("resourceVersion")
        if event["type"] == "BOOKMARK":
            found.append(f"{item} at the last version: {version == last}".replace(str(version), "N"))
        last = version
    return found


def _is_watch(exchange: Json) -> bool:
    path = exchange.get("request", {}).get("path", "")
    return bool(_WATCH.search(path)) and exchange["request"]["method"] == "GET"


def _events(exchange: Json) -> list[Json]:
    response = exchange.get("response", {})
    found = response.get("events") or exchange.get("events") or []
    if not found and isinstance(response.get("json"), dict) and "type" in response["json"]:
        found = [{"t": exchange["t"], "event": response["json"]}]
    return list(found)
