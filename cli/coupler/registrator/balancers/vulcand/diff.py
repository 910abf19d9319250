"""What is in etcd, what ought to be, and the writes in between, in the one order in which vulcand takes them.

A frontend that is written before its backend is never routed, nor is one whose backend was deleted and written anew:
both have to be written again after it. Etcd's own revisions tell it, whoever made the mess and whenever.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from coupler.registrator.balancers.vulcand import documents
from coupler.registrator.balancers.vulcand.ids import backend_id, frontend_id
from coupler.registrator.model import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

    from coupler.registrator.balancers.vulcand.documents import Document
    from coupler.registrator.balancers.vulcand.redirects import Redirects
    from coupler.registrator.model import Backend, Route

BACKENDS, FRONTENDS, HOSTS = "backends", "frontends", "hosts"
_MAIN = {BACKENDS: "backend", FRONTENDS: "frontend", HOSTS: "host"}
_PARTS = 2
_UNSEEN = ("PassHostHeader", "Stream")


@dataclass(frozen=True, slots=True)
class Put:
    """Write a key, relative to vulcand's prefix."""

    path: str
    value: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one key."""

    path: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete a whole backend, frontend or host: these keys in this order, and the directory `path` if there is one."""

    path: str
    keys: tuple[str, ...]


Step = Put | Delete | Drop


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value and the revisions (v3) or indices (v2) of its creation and last writing."""

    value: bytes
    created: int
    modified: int

    @property
    def document(self) -> Any:
        """Return the value as JSON; None if it is none."""
        try:
            return orjson.loads(self.value)
        except orjson.JSONDecodeError:
            return None


@dataclass(slots=True)
class Observed:
    """The backends, frontends and hosts that are there: of each, the keys below it by their relative path.

    In a v2 etcd they may be empty directories, which have no keys.
    """

    backends: dict[str, dict[str, Entry]] = field(default_factory=dict)
    frontends: dict[str, dict[str, Entry]] = field(default_factory=dict)
    hosts: dict[str, dict[str, Entry]] = field(default_factory=dict)

    def add(self, path: str, entry: Entry | None) -> None:
        """Take in one key, or with None an empty directory."""
        kind, _, rest = path.partition("/")
        name, _, below = rest.partition("/")
        if kind in _MAIN and name:
            kinds = {BACKENDS: self.backends, FRONTENDS: self.frontends, HOSTS: self.hosts}
            keys = kinds[kind].setdefault(name, {})
            if entry is not None and below:
                keys[below] = entry


@dataclass(frozen=True, slots=True)
class Wanted:
    """One backend as its keys should be. `leaving` are servers that are known, and are to get nothing now.

    `kept` are frontends that cannot be written as they should be, and stay as they are; `problem` says why.
    """

    id: str
    document: Document
    servers: Mapping[str, Document]
    leaving: Set[str]
    frontends: Mapping[str, tuple[Document, Mapping[str, Document]]]
    kept: Set[str] = frozenset()
    problem: str | None = None


def wanted(owner: str, backend: Backend, routes: Iterable[Route], redirects: Redirects | None = None) -> Wanted:
    """Return what a backend and the routes to it come to, with `redirects` to TLS.

    Raises ModelError where vulcand cannot carry the backend.
    """
    why = documents.unsupported(backend)
    if why:
        raise ModelError(why)
    id_ = backend_id(owner, backend.id)
    servers, leaving = documents.servers(backend)
    frontends, kept, problem = dict[str, tuple["Document", "Mapping[str, Document]"]](), set[str](), None
    for route in routes:
        try:
            document = documents.frontend_document(route, backend.policy, id_)
            name = frontend_id(owner, document["Route"], route.host or "any")
            kept.add(name)
            to_tls = redirects.of(route) if redirects is not None else None
            frontends[name] = document, documents.middlewares(route, backend.policy, to_tls)
            kept.remove(name)
        except ModelError as error:
            problem = error.summary
    return Wanted(id_, documents.backend_document(backend.policy), servers, leaving, frontends, kept, problem)


def upserts(want: Wanted, observed: Observed, *, anew: bool) -> Iterator[Step]:
    """Yield what makes everything of a backend be there. `anew`: a key that is written is created anew (v2)."""
    have = observed.backends.get(want.id, {})
    main = have.get("backend")
    written = main is None or main.document != want.document
    if written:
        yield Put(f"{BACKENDS}/{want.id}/backend", _text(want.document))
    reborn = main is None or (written and anew)
    born = main.created if main is not None else 0
    for name, server in want.servers.items():
        entry = have.get(f"servers/{name}")
        if reborn or entry is None or entry.document != server or entry.modified < born:
            yield Put(f"{BACKENDS}/{want.id}/servers/{name}", _text(server))
    for name, (document, middlewares) in want.frontends.items():
        yield from _frontend(
            name, document, middlewares, observed.frontends.get(name, {}), None if reborn else born, anew
        )


def _frontend(
    name: str,
    document: Document,
    middlewares: Mapping[str, Document],
    have: Mapping[str, Entry],
    born: int | None,
    anew: bool,
) -> Iterator[Step]:
    main = have.get("frontend")
    path = f"{FRONTENDS}/{name}"
    written = main is None or born is None or main.modified < born or main.document != document
    if written:
        if main is not None and _looks_same(main.document, document):
            # vulcand compares all but these: it sees the change only beside one that it looks at
            limits = {**document["Settings"].get("Limits", {}), "MaxMemBodyBytes": 1 << 20}
            yield Put(f"{path}/frontend", _text({**document, "Settings": {**document["Settings"], "Limits": limits}}))
        yield Put(f"{path}/frontend", _text(document))
    reborn = main is None or (written and anew)
    for id_, middleware in middlewares.items():
        entry = have.get(f"middlewares/{id_}")
        late = entry is not None and main is not None and entry.modified < main.created
        if reborn or entry is None or late or entry.document != middleware:
            yield Put(f"{path}/middlewares/{id_}", _text(middleware))


def _looks_same(old: Any, new: Document) -> bool:
    """Return whether two frontends differ, and only in what vulcand does not compare."""
    if not isinstance(old, dict) or not isinstance(old.get("Settings"), dict) or old == new:
        return False
    return _compared(old) == _compared(new)


def _compared(document: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in document["Settings"].items() if name not in _UNSEEN}
    return {**document, "Settings": settings}


def leavers(want: Wanted, observed: Observed) -> Iterator[Step]:
    """Yield the deletion of servers that are known to be not ready."""
    for path in observed.backends.get(want.id, {}):
        if path.startswith("servers/") and path.partition("/")[2] in want.leaving:
            yield Delete(f"{BACKENDS}/{want.id}/{path}")


def leftovers(want: Wanted, observed: Observed) -> Iterator[Step]:
    """Yield the deletion of what nobody wants in a backend and its frontends that stay."""
    for name, (_, middlewares) in want.frontends.items():
        kept = {"frontend", *(f"middlewares/{id_}" for id_ in middlewares)}
        yield from (
            Delete(f"{FRONTENDS}/{name}/{path}") for path in observed.frontends.get(name, {}) if path not in kept
        )
    kept = {"backend", *(f"servers/{name}" for name in (*want.servers, *want.leaving))}
    yield from (
        Delete(f"{BACKENDS}/{want.id}/{path}") for path in observed.backends.get(want.id, {}) if path not in kept
    )


def drop(kind: str, name: str, keys: Iterable[str]) -> Drop:
    """Return the teardown of a frontend (itself first), or of a backend or host (itself last)."""
    path, main = f"{kind}/{name}", _MAIN[kind]
    below = sorted(key for key in keys if key != main)
    order = [main, *below] if kind == FRONTENDS else [*below, main]
    return Drop(path, tuple(f"{path}/{key}" for key in order if key in set(keys)))


def users(observed: Observed, ours: Set[str]) -> dict[str, str]:
    """Return by backend a frontend that leads to it and is none of `ours`: vulcand would not start without it."""
    found = {}
    for name, keys in observed.frontends.items():
        main = keys.get("frontend")
        document = main.document if main is not None and name not in ours else None
        if isinstance(document, dict):
            found[str(document.get("BackendId"))] = name
    return found


def told(steps: Sequence[Step], prefix: str) -> list[str]:
    """Return steps in words."""
    lines = []
    for step in steps:
        match step:
            case Put(path, value):
                lines.append(f"put {prefix}/{path} {value}")
            case Delete(path):
                lines.append(f"delete {prefix}/{path}")
            case Drop(path, keys):
                lines += [f"delete {prefix}/{key}" for key in keys] or [f"delete the empty {prefix}/{path}"]
    return lines


def _text(document: Document) -> str:
    return orjson.dumps(document).decode()
