"""A vulcand without its proxy: it follows keys as a real one does, with all its traps, and says who would answer.

It has the certificates of a real one too, and chooses among them alike.

Held to recordings of real ones by `tests/contract/vulcand/test_fake.py`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fakes.vulcand_tls import Certificates, open_pair

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.fakes.vulcand_tls import Shown

NOT_FOUND, NO_SERVERS, OK = 404, 500, 200
_TERM = re.compile(r'(\w+)\(((?:"(?:[^"\\]|\\.)*"(?:, )?)+)\)')
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_URI = "{{.Request.URL.RequestURI}}"
_APPLIED_V2 = frozenset(("set", "create", "delete", "expire"))


class ExitsError(Exception):
    """vulcand does not start."""


@dataclass(eq=False)
class _Backend:
    servers: dict[str, str] = field(default_factory=dict)
    used_by: set[str] = field(default_factory=set)


@dataclass(eq=False)
class _Frontend:
    document: dict
    backend: _Backend
    middlewares: dict[str, dict] = field(default_factory=dict)


class Vulcand:
    """Its routing table and certificates. `api` is 2 or 3: the two read etcd differently.

    Keys are relative to the prefix. `seal_key` is what a real one has as `-sealKey`, in bytes.
    """

    def __init__(self, api: int, seal_key: bytes | None = None) -> None:
        self.api, self.seal_key = api, seal_key
        self.certificates = Certificates()
        self.backends: dict[str, _Backend] = {}
        self.frontends: dict[str, _Frontend] = {}
        self.routes: dict[str, _Frontend] = {}
        self.refused: list[str] = []
        self.settings: dict[str, dict] = {}

    def start(self, keys: Mapping[str, str], directories: Iterable[str] = ()) -> None:
        """Read everything. Raises ExitsError where a real one ends, and then knows what it knew before."""
        fresh = Vulcand(self.api, self.seal_key)
        names = {tuple(path.split("/")[:2]) for path in (*keys, *directories)}
        for kind, main in (("hosts", "host"), ("backends", "backend"), ("frontends", "frontend")):
            for _, name in sorted(n for n in names if n[0] == kind and len(n) == 2):
                if f"{kind}/{name}/{main}" not in keys:
                    if self.api == 2:
                        raise ExitsError(f"{kind} {name} parameters missing")
                    continue
                try:
                    fresh._read(kind, name, main, keys)
                except ValueError as error:
                    raise ExitsError(f"{kind} {name}: {error}") from None
        if fresh.refused:
            raise ExitsError(fresh.refused[0])
        self.__dict__.update(fresh.__dict__)

    def _read(self, kind: str, name: str, main: str, keys: Mapping[str, str]) -> None:
        self.put(f"{kind}/{name}/{main}", keys[f"{kind}/{name}/{main}"], strict=True)
        for path, value in keys.items():
            below = path.split("/")
            if len(below) != 4 or below[0] != kind:
                continue
            if below[1] == name:
                self.put(path, value, strict=True)
            elif self.api == 3 and kind == "backends" and below[1].startswith(name):
                self.put(f"{kind}/{name}/servers/{below[1]} {below[3]}", value, strict=True)

    def event(self, action: str, path: str, value: str | None = None) -> None:
        """Apply what a watch says: an action of v2, or put and delete of v3."""
        if self.api == 2 and action not in _APPLIED_V2:
            self.refused.append(f"unsupported action {action}")
        elif action in {"delete", "expire"}:
            self.delete(path)
        else:
            self.put(path, value or "")

    def put(self, path: str, value: str, *, strict: bool = False) -> None:
        kind, name, *rest = path.split("/")
        try:
            document = _object(json.loads(value))
        except ValueError as error:
            if strict:
                raise
            self.refused.append(f"{path}: {error}")
            return
        match kind, rest:
            case "backends", ["backend"]:
                self.backends.setdefault(name, _Backend())
                self.settings[name] = document.get("Settings", {})
            case "backends", ["servers", server]:
                if not re.match(r"[a-z]+://[^/]", document.get("URL", "")):
                    self.refused.append(f"{path}: no URL")
                    return
                self.backends.setdefault(name, _Backend()).servers[server] = document["URL"]
            case "frontends", ["frontend"]:
                self._frontend(name, document)
            case "hosts", ["host"]:
                self._host(name, document.get("Settings"), path)
            case "frontends", ["middlewares", middleware]:
                if name not in self.frontends:
                    self.refused.append(f"missing frontend {name} of middleware {middleware}")
                    return
                self.frontends[name].middlewares[middleware] = document

    def _host(self, name: str, settings: object, path: str) -> None:
        pair = None
        try:
            settings = _object(settings or {})
            if settings.get("KeyPair"):
                pair = open_pair(settings["KeyPair"], self.seal_key)
            self.certificates.put(name, pair, default=settings.get("Default", False))
        except ValueError as error:
            self.refused.append(f"{path}: {error}")

    def _host_gone(self, name: str, rest: list[str]) -> None:
        if name and (rest == ["host"] or (self.api == 2 and not rest)):
            try:
                self.certificates.delete(name)
            except ValueError as error:
                self.refused.append(f"host {name} is deleted: {error}")

    def _frontend(self, name: str, document: dict) -> None:
        backend = self.backends.get(document["BackendId"])
        if backend is None:
            self.refused.append(f"missing backend {document['BackendId']} of frontend {name}")
            return
        try:
            _terms(document["Route"])
        except ValueError as error:
            self.refused.append(str(error))
            return
        frontend = self.frontends.get(name)
        if frontend is None:
            frontend = self.frontends[name] = _Frontend(document, backend)
        else:
            if frontend.document["Route"] != document["Route"]:
                self.routes.pop(frontend.document["Route"], None)
            frontend.backend.used_by.discard(name)
            frontend.backend = backend
            if _compared(frontend.document) != _compared(document):
                frontend.document = document
        backend.used_by.add(name)
        self.routes[document["Route"]] = frontend

    def delete(self, path: str) -> None:
        kind, name, *rest = f"{path}/".split("/")[:-1] if "/" in path else (path, "")
        whole = self.api == 2 and not rest
        match kind, rest:
            case "frontends", _ if name and (whole or rest == ["frontend"]):
                frontend = self.frontends.pop(name, None)
                if frontend is not None:
                    self.routes.pop(frontend.document["Route"], None)
                    frontend.backend.used_by.discard(name)
            case "frontends", ["middlewares", middleware]:
                if name in self.frontends:
                    self.frontends[name].middlewares.pop(middleware, None)
            case "hosts", _:
                self._host_gone(name, rest)
            case "backends", _ if name and (whole or rest == ["backend"]):
                backend = self.backends.pop(name, None)
                if backend is not None and backend.used_by:
                    self.refused.append(f"backend {name} is used by frontends")
            case "backends", ["servers", server]:
                if name in self.backends:
                    self.backends[name].servers.pop(server, None)

    def ask(self, path: str, host: str = "", headers: Mapping[str, str] | None = None) -> tuple[int, frozenset[str]]:
        """Return the status, and the servers one of which would answer."""
        frontend = self.frontend_of(path, host, headers)
        if frontend is None:
            return NOT_FOUND, frozenset()
        servers = frozenset(frontend.backend.servers.values())
        return (OK, servers) if servers else (NO_SERVERS, servers)

    def shows(self, name: str | None) -> tuple[Shown, ...]:
        """Return the certificates one of which is shown to a client that asks for `name`."""
        return self.certificates.shown(name)

    def location(self, url: str, headers: Mapping[str, str] | None = None) -> str | None:
        """Return where a request is redirected to; None if it is not."""
        host, _, rest = url.partition("://")[2].partition("/")
        frontend = self.frontend_of("/" + rest.partition("?")[0], host, headers)
        chain = sorted(frontend.middlewares.values(), key=lambda each: each.get("Priority", 0)) if frontend else ()
        for rewrite in (each["Middleware"] for each in chain if each["Type"] == "rewrite"):
            made = _rewritten(rewrite, url)
            if made != url and rewrite["Redirect"]:
                return made.replace(_URI, "/" + url.partition("://")[2].partition("/")[2])
            url = made
        return None

    def frontend_of(self, path: str, host: str = "", headers: Mapping[str, str] | None = None) -> _Frontend | None:
        given = {name.lower(): value for name, value in (headers or {}).items()}
        for route in sorted(self.routes, reverse=True):
            if all(_holds(*term, host.lower().partition(":")[0], path, given) for term in _terms(route)):
                return self.routes[route]
        return None


def _object(value: object) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"cannot unmarshal {value!r}")  # noqa: TRY004 -- one kind of error for what cannot be read
    return value


def _rewritten(rewrite: Mapping, url: str) -> str:
    """Return what Go's `ReplaceAllString` makes of a URL; what stands in it as a template is left as it is."""
    into = re.sub(r"\$\{(\d)\}", r"\\g<\1>", rewrite["Replacement"].replace("\\", r"\\")).replace("$$", "$")
    return re.sub(rewrite["Regexp"], into, url)


def _compared(document: Mapping) -> object:
    settings = {k: v for k, v in document.get("Settings", {}).items() if k not in {"PassHostHeader", "Stream"}}
    return {**document, "Settings": settings}


def _terms(route: str) -> list[tuple[str, list[str]]]:
    terms = []
    for part in route.split(" && "):
        match = _TERM.fullmatch(part)
        if match is None or match[1].removesuffix("Regexp") not in {"Host", "Path", "Method", "Header"}:
            raise ValueError(f"route should be a valid route expression: {route}")
        terms.append((match[1], [json.loads(text) for text in _TEXT.findall(match[2])]))
    return terms


def _holds(name: str, arguments: list[str], host: str, path: str, headers: Mapping[str, str]) -> bool:
    kind = name.removesuffix("Regexp")
    subject = {"Host": host, "Path": path, "Method": "GET", "Header": headers.get(arguments[0].lower(), "")}[kind]
    expected = arguments[-1].lower() if kind == "Host" else arguments[-1]
    if name.endswith("Regexp"):
        return re.search(expected.removesuffix("$") + (r"\Z" if expected.endswith("$") else ""), subject) is not None
    return subject == expected
