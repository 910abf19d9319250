"""A stand-in for kube-apiserver, held to recordings of real ones by tests/contract/kubernetes.

    async with KubeApi(V1_32) as api:
        api.put({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "shop"}})
        ... requests to api.url ...
        api.restart()

or `python -m tests.fakes.kube_api --port 8080`. Everything happens in the loop of its caller.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson
from aiohttp import web
from tests.fakes.kube_selectors import Selector, SelectorError, parse
from tests.fakes.kube_store import (
    CORE,
    GATEWAY_KINDS,
    V1_2,
    V1_21,
    V1_32,
    Change,
    Key,
    Kind,
    Object,
    Personality,
    Refused,
    Store,
)
from tests.fakes.kube_watch import Watch

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

_FUTURE_SECONDS = 3.0  # how long a list waits for a version to come
_LARGEST_BODY = 3 * 2**20
_FALSE = {"", "0", "false", "False"}
_PATCHES = {"application/merge-patch+json", "application/strategic-merge-patch+json"}
_CHECKS = (
    *("ping", "log", "etcd", "informer-sync", "poststarthook/start-apiextensions-controllers"),
    *("poststarthook/rbac/bootstrap-roles", "poststarthook/apiservice-registration-controller", "shutdown"),
)
PERSONALITIES = {"1.2": V1_2, "1.21": V1_21, "1.32": V1_32}


class Text(Exception):  # noqa: N818 (an answer)
    """An answer in plain text, as some filters in front of the API give."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.response_status, self.text, self.headers = status, text, headers or {}


class KubeApi:
    """A server with its store, Python ways to write to it, and switches for its bad days.

    `scale` shortens every period that the server knows: 0.01 makes a watch of 200 seconds last 2. With `rights`, who
    asks is whom a client's certificate names, and may do what `rights(name, "GET /path")` says.
    """

    def __init__(
        self,
        personality: Personality = V1_32,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        tokens: Iterable[str] = (),
        rights: Callable[[str, str], bool] | None = None,
        scale: float = 1.0,
        bookmark_seconds: float = 60.0,
    ) -> None:
        self.store = Store(personality)
        self.store.told = self._told
        self.host, self.port, self.scale, self.bookmark_seconds = host, port, scale, bookmark_seconds
        self.tokens: set[str] | None = set(tokens) or None
        self.refused_tokens: set[str] = set()
        self.powerless: set[str] = set()  # tokens whose users, of the same name, have no rights
        self.watches: set[Watch] = set()
        self.requests: list[str] = []
        self.on_request: Callable[[str], None] = lambda _request: None
        self.chunk_size = 0
        self.ready = True
        self.failing: set[str] = set()  # checks of /livez, /healthz and /readyz
        self.rights = rights
        self._tls = tls
        self._turn_away: list[Text] = []
        self._empty: list[str] = []
        self._etcd, self._reads_lists, self._answers_lists = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._etcd.set()
        self.release_lists()
        self._runner: web.ServerRunner | None = None
        self._server: asyncio.Server | None = None
        for namespace in ("default", "kube-system"):
            self.put({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": namespace}})

    # Running it

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    async def __aenter__(self) -> KubeApi:
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.down()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def up(self) -> None:
        """Listen, on the port of before if there was one."""
        if self._runner is None:
            self._http = web.Server(self._handle, handler_cancellation=True, access_log=None)
            self._runner = web.ServerRunner(self._http, handle_signals=False, shutdown_timeout=0.1)
            await self._runner.setup()
        with socket.create_server((self.host, self.port), backlog=512) as listener:
            self.port = listener.getsockname()[1]
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._http, sock=listener.dup(), ssl=self._tls)

    def down(self, *, quietly: bool = False) -> None:
        """Close the listener, and every connection with it; `quietly` leaves those open, as SIGTERM does."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if not quietly and self._runner is not None:
            for connection in self._http.connections:
                if connection.transport is not None:
                    connection.transport.abort()

    # Its bad days

    def stall(self) -> None:
        """Make the open watches silent; what happens meanwhile waits."""
        for watch in self.watches:
            watch.stalled = True
            watch.wake()

    def resume(self) -> None:
        """Let the silent watches go on."""
        for watch in self.watches:
            watch.stalled = False
            watch.wake()

    def cut(self, *, midline: bool = False) -> None:
        """End the open watches without a final chunk; `midline`, each in the middle of its next event."""
        for watch in self.watches:
            if midline:
                watch.ends_midline = True
            else:
                watch.abort()

    def split(self, size: int) -> None:
        """Send watches in chunks of `size` bytes; 0 sends each event whole."""
        self.chunk_size = size

    def compact(self, version: int | None = None, *, cache: bool = True) -> None:
        """Forget what was before `version`, now if None; without `cache` watches may still begin there."""
        self.store.compact(version, cache=cache)

    def restart(self) -> None:
        """Be as after SIGKILL and a start: connections are cut, and the watch cache is empty."""
        self.cut()
        for kind in self.store.kinds:
            shelf = self.store.shelf(kind)
            shelf.floor, shelf.changes = self.store.version, shelf.since(self.store.compacted)

    def rewind(self, version: int) -> None:
        """Be as after a restart on a backup of `version`."""
        self.cut()
        self.store.rewind(version)

    def hold_lists(self, *, unread: bool = False) -> None:
        """Let lists be read from the store, and not answered before `release_lists`; `unread`, not even read."""
        (self._reads_lists if unread else self._answers_lists).clear()

    def release_lists(self) -> None:
        self._reads_lists.set()
        self._answers_lists.set()

    def too_many(self, count: int, retry_after: float = 1) -> None:
        """Turn the next `count` requests away with 429."""
        text, headers = "Too many requests, please try again later.\n", {"Retry-After": str(retry_after)}
        self._turn_away += [Text(429, text, headers) for _ in range(count)]

    def unavailable(self, count: int) -> None:
        """Turn the next `count` requests away with 503."""
        self._turn_away += [Text(503, "service unavailable\n") for _ in range(count)]

    def empty_next_list(self, resource: str) -> None:
        """Answer the next list of `resource` with 200, and nothing in it."""
        self._empty.append(resource)

    def etcd_down(self) -> None:
        """Be without a store: lists hang, but for those that the cache may answer; watches are silent."""
        self._etcd.clear()
        self.stall()

    def etcd_up(self) -> None:
        self._etcd.set()
        self.resume()

    def unauthorized(self, token: str) -> None:
        """Refuse `token` from now on."""
        self.refused_tokens.add(token)

    def install(self, *kinds: Kind) -> None:
        """Serve more kinds."""
        self.store.kinds += [kind for kind in kinds if kind not in self.store.kinds]

    def uninstall(self, *kinds: Kind) -> None:
        """Serve these kinds no more, and cut who watches them."""
        self.store.kinds = [kind for kind in self.store.kinds if kind not in kinds]
        for watch in self.watches:
            if watch.kind in kinds:
                watch.abort()

    # Writing without HTTP

    def put(self, item: Object) -> Object:
        """Put an object there as it is, its status too; a missing namespace is made."""
        kind = self.store.kind_of(item)
        metadata = item["metadata"]
        namespace = metadata.get("namespace", "default") if kind.namespaced else ""
        spaces = self.store.kind("namespaces", CORE)
        if namespace and ("", namespace) not in self.store.shelf(spaces).objects:
            self.store.write(spaces, ("", namespace), {"status": {"phase": "Active"}})
        return self.store.write(kind, (namespace, metadata["name"]), item)

    def delete(self, resource: str, name: str, namespace: str = "default", *, api: str | None = None) -> Object:
        """Delete an object at once."""
        kind = self.store.kind(resource, api)
        return self.store.remove(kind, (namespace if kind.namespaced else "", name))

    def objects(self, resource: str, *, api: str | None = None) -> dict[Key, Object]:
        """Return what there is of a resource, by namespace and name."""
        return self.store.shelf(self.store.kind(resource, api)).objects

    # Requests

    def _told(self, kind: Kind, change: Change) -> None:
        for watch in self.watches:
            if watch.kind == kind:
                watch.told(change)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.rel_url}")
        self.on_request(self.requests[-1])
        try:
            return await self._answer(request)
        except Text as text:
            headers = {"Content-Type": "text/plain; charset=utf-8", **text.headers}
            return web.Response(status=text.response_status, text=text.text, headers=headers)
        except Refused as refused:
            headers = {"Retry-After": str(refused.retry_after)} if refused.retry_after else {}
            return _json(refused.status, refused.code, headers)
        except ConnectionResetError:
            return web.Response()  # there is nobody to read it

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._turn_away:
            raise self._turn_away.pop(0)
        if self.rights is not None:
            self._authorize(request, self.rights)
        if request.path in {"/healthz", "/livez", "/readyz"}:
            raise self._health(request)
        user = self._user(request)
        if request.path == "/version":
            return _json(self.store.personality.version)
        kind, namespace, name, sub = self._place(unquote(request.path))
        if user in self.powerless:
            raise _forbidden(user, request, kind, (namespace, name, sub))
        if "json" not in request.headers.get("Accept", "json") and "*" not in request.headers["Accept"]:
            raise Refused(406, "NotAcceptable", "406: Not Acceptable", {})
        if request.method == "GET" and not name:
            return await self._collection(request, kind, namespace)
        return await self._object(request, kind, (namespace, name), sub)

    def _health(self, request: web.BaseRequest) -> Text:
        """Return what the checks come to. Whoever asks learns which of them failed, and not why."""
        failing = self.failing | (set() if self.ready and self._etcd.is_set() else {"etcd"})
        if request.path != "/readyz":
            failing = self.failing
        failing -= set(request.query.getall("exclude", ()))
        lines = [f"[-]{name} failed: reason withheld" if name in failing else f"[+]{name} ok" for name in _CHECKS]
        name = request.path.strip("/")
        if failing:
            return Text(500, "\n".join([*lines, f"{name} check failed", ""]))
        return Text(200, "\n".join([*lines, f"{name} check passed", ""]) if "verbose" in request.query else "ok")

    def _authorize(self, request: web.BaseRequest, rights: Callable[[str, str], bool]) -> None:
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        subject = {key: value for part in (certificate or {}).get("subject", ()) for key, value in part}
        user = subject.get("commonName", "")
        if not user or user in self.refused_tokens:
            raise Refused(401, "Unauthorized", "Unauthorized")
        if not rights(user, f"{request.method} {request.path}"):
            message = f'forbidden: User "{user}" cannot {request.method.lower()} path "{request.path}"'
            raise Refused(403, "Forbidden", message, {})

    def _user(self, request: web.BaseRequest) -> str:
        """Return whose request it is; a token is the name of its user."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.refused_tokens or (self.tokens is not None and token not in self.tokens):
            raise Refused(401, "Unauthorized", "Unauthorized")
        if token in self.powerless and not request.path.startswith(("/api", "/version")):
            message = f'forbidden: User "{token}" cannot {request.method.lower()} path "{request.path}"'
            raise Refused(403, "Forbidden", message, {})
        return token

    def _place(self, path: str) -> tuple[Kind, str, str, str]:
        """Return kind, namespace, name and subresource that `path` leads to."""
        parts = path.strip("/").split("/")
        depth = 2 if parts[0] == "api" else 3
        api, rest = "/" + "/".join(parts[:depth]), parts[depth:]
        if parts[0] not in {"api", "apis"} or all(kind.api != api for kind in self.store.kinds):
            if self.store.personality.gone == "status":
                raise Refused(404, "NotFound", "the server could not find the requested resource", {})
            raise Text(404, "404 page not found\n")
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces" and rest[2] != "status":
            namespace, rest = rest[1], rest[2:]
        for kind in self.store.kinds:
            if kind.api == api and rest and kind.resource == rest[0]:
                name, sub = (*rest[1:3], "", "")[:2]
                return kind, namespace, name, sub
        raise Refused(404, "NotFound", "the server could not find the requested resource", {})

    async def _collection(self, request: web.BaseRequest, kind: Kind, namespace: str) -> web.StreamResponse:
        query = request.query
        try:
            selector = parse(kind.resource, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        except SelectorError as error:
            raise Refused(400, "BadRequest", str(error)) from error
        if not query.get("timeoutSeconds", "0").isdigit():
            value = query["timeoutSeconds"]
            raise Refused(400, "BadRequest", f'strconv.ParseInt: parsing "{value}": invalid syntax')
        version = query.get("resourceVersion", "")
        if version and not version.isdigit():
            why = f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: parsing "{version}": invalid syntax'
            raise Refused(500, "", why)
        if query.get("watch", "") not in _FALSE:
            return await self._watch(request, kind, namespace, selector)
        await self._reads_lists.wait()
        answer = await self._list(query, kind, namespace, selector)
        await self._answers_lists.wait()
        return answer

    async def _watch(
        self, request: web.BaseRequest, kind: Kind, namespace: str, selector: Selector
    ) -> web.StreamResponse:
        query, how = request.query, self.store.personality.watch_list
        initial = how == "served" and query.get("sendInitialEvents") == "true"
        if how == "refused" and query.get("resourceVersionMatch"):
            raise _options("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch")
        if how == "served" and initial != (query.get("resourceVersionMatch") == "NotOlderThan"):
            raise _options("resourceVersionMatch: Forbidden: sendInitialEvents and resourceVersionMatch go together")
        watch = Watch(self, kind, namespace, selector, query)
        try:
            watch.begin(query.get("resourceVersion"), initial=initial)
        except Refused as refused:
            if self.store.says_gone(kind):
                raise
            return await watch.fail(request, refused)
        watch.stalled = not self._etcd.is_set()
        self.watches.add(watch)
        try:
            return await watch.serve(request)
        finally:
            self.watches.discard(watch)

    async def _list(self, query: Any, kind: Kind, namespace: str, selector: Selector) -> web.Response:
        pages = self.store.personality.pages
        limit = int(query.get("limit") or 0) if pages and query.get("limit", "").isdigit() else 0
        version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
        token = query.get("continue", "") if pages else ""
        if token and version:
            raise Refused(400, "BadRequest", "specifying resource version is not allowed when using continue")
        if match and not version:
            raise _options("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless "
                           "resourceVersion is provided")  # fmt: skip
        from_cache = version == "0" or (version and not limit and match != "Exact")
        if not from_cache:
            await self._etcd.wait()
        await self._wait_for(int(version or 0))
        if kind.resource in self._empty:
            self._empty.remove(kind.resource)
            return _json(_list_of(kind, self.store.version, [], {}))
        at, start = _position(token) if token else (self.store.version, "")
        if at < 0:  # the rest of a list whose version is gone: as it is now
            at = self.store.version
        elif token and at < self.store.compacted:
            raise _expired(start)
        elif pages and version not in {"", "0"} and (match == "Exact" or (limit and not match)):
            at = int(version)
        found = _found(self.store.list_at(kind, at), namespace, selector)
        rest = [(path, item) for path, item in found if path >= start] if start else found
        page = rest[:limit] if limit and version != "0" else rest
        more: Object = {}
        if len(page) < len(rest):
            more["continue"] = _token(at, page[-1][0] + "\0")
            if not selector:
                more["remainingItemCount"] = len(rest) - len(page)
        return _json(_list_of(kind, at, [item for _, item in page], more))

    async def _wait_for(self, version: int) -> None:
        if version <= self.store.version:
            return
        await asyncio.sleep(_FUTURE_SECONDS * self.scale)
        if version > self.store.version:
            cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            message = f"Timeout: Too large resource version: {version}, current: {self.store.version}"
            raise Refused(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})

    async def _object(self, request: web.BaseRequest, kind: Kind, key: Key, sub: str) -> web.Response:
        method, status = request.method, sub == "status"
        if sub and not (status and kind.status):
            raise Refused(404, "NotFound", "the server could not find the requested resource", {})
        allowed = {"POST"} if not key[1] else {"GET", "PUT", "PATCH"} if status else {"GET", "PUT", "PATCH", "DELETE"}
        if status and not self.store.personality.status_patch:
            allowed.discard("PATCH")
        if method not in allowed:
            message = "the server does not allow this method on the requested resource"
            raise Refused(405, "MethodNotAllowed", message, {})
        if method == "GET":
            return _json(_whole(kind, self.store.get(kind, key)))
        body = await self._body(request, kind)
        if not self._etcd.is_set():
            message = "Timeout: request did not complete within requested timeout context deadline exceeded"
            raise Refused(504, "Timeout", message, {})
        if method == "POST":
            return _json(_whole(kind, self.store.create(kind, key[0], body)), 201)
        if method == "PUT":
            return _json(_whole(kind, self.store.replace(kind, key, body, status=status)))
        if method == "PATCH":
            strategic = request.content_type.startswith("application/strategic")
            return _json(_whole(kind, self.store.patch(kind, key, body, status=status, strategic=strategic)))
        grace = request.query.get("gracePeriodSeconds")
        last, _ = self.store.delete(kind, key, {"gracePeriodSeconds": grace} | body)
        if kind.resource == "pods":
            return _json(_whole(kind, last))
        done = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return _json(done | {"details": kind.details(key[1], uid=last["metadata"]["uid"])})

    async def _body(self, request: web.BaseRequest, kind: Kind) -> Object:
        if request.method == "PATCH" and request.content_type not in _PATCHES:
            raise Refused(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
        content = await request.content.read()
        if len(content) > _LARGEST_BODY:
            raise Refused(413, "RequestEntityTooLarge", f"Request entity too large: limit is {_LARGEST_BODY}")
        try:
            body = orjson.loads(content or b"{}")
        except orjson.JSONDecodeError as error:
            why = f"the object provided is unrecognized (must be of type {kind.name}): json parse error: {error}"
            raise Refused(400, "BadRequest", why) from error
        return dict(body)


def _found(objects: dict[Key, Object], namespace: str, selector: Selector) -> list[tuple[str, Object]]:
    found = [
        (key[1] if namespace or not key[0] else "/".join(key), item)
        for key, item in objects.items()
        if namespace in {"", key[0]} and selector.matches(item)
    ]
    return sorted(found, key=lambda pair: pair[0])


def _list_of(kind: Kind, version: int, items: list[Object], more: Object) -> Object:
    metadata = {"resourceVersion": str(version)} | more
    return {"kind": f"{kind.name}List", "apiVersion": kind.version, "metadata": metadata, "items": items}


def _whole(kind: Kind, item: Object) -> Object:
    return {"kind": kind.name, "apiVersion": kind.version, **item}


def _token(version: int, start: str) -> str:
    text = orjson.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start})
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _position(token: str) -> tuple[int, str]:
    try:
        value = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(value["rv"]), str(value["start"])
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, "BadRequest", f"invalid continue token: continue key is not valid: {error}") from error


def _expired(start: str) -> Refused:
    message = (
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter, or use the continue token in this response to retrieve the remainder."
    )
    return Refused(410, "Expired", message, metadata={"continue": _token(-1, start)})


def _options(why: str) -> Refused:
    field = why.split(":", maxsplit=1)[0]
    cause = {"reason": "FieldValueForbidden", "message": why.split(": ", 1)[1], "field": field}
    details = {"group": "meta.k8s.io", "kind": "ListOptions", "causes": [cause]}
    return Refused(422, "Invalid", f'ListOptions.meta.k8s.io "" is invalid: {why}', details)


def _forbidden(user: str, request: web.BaseRequest, kind: Kind, place: tuple[str, str, str]) -> Refused:
    namespace, name, sub = place
    reads = "watch" if request.query.get("watch", "") not in _FALSE else "get" if name else "list"
    verb = {"GET": reads, "PUT": "update", "POST": "create"}.get(request.method, request.method.lower())
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    what = f'{kind.qualified} "{name}"' if name else kind.qualified
    resource = f"{kind.resource}/{sub}" if sub else kind.resource
    message = f'{what} is forbidden: User "{user}" cannot {verb} resource "{resource}" in API group "{kind.group}"'
    return Refused(403, "Forbidden", f"{message} {where}", kind.details(name))


def _json(answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    headers = {"Content-Type": "application/json"} | (headers or {})
    return web.Response(body=orjson.dumps(answer), status=status, headers=headers)


async def _main(personality: Personality, host: str, port: int) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with KubeApi(personality, host=host, port=port) as api:
        api.install(*GATEWAY_KINDS)
        print(api.url, flush=True)  # noqa: T201 (a program)
        await stop.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="a stand-in for kube-apiserver, with an empty store")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--personality", choices=PERSONALITIES, default="1.32")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(PERSONALITIES[options.personality], options.host, options.port))
