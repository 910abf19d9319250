"""What an API server keeps: objects, one count of versions for all of them, and what changed at which version."""

from __future__ import annotations

import re
import uuid
from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.kube_selectors import Selector

Object = dict[str, Any]
Key = tuple[str, str]  # namespace, "" for none, and name

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_GRACE = 30


@dataclass(frozen=True)
class Kind:
    """A kind of objects, where it is served, and whether its status is a resource of its own."""

    api: str
    resource: str
    name: str
    namespaced: bool = True
    status: bool = False

    @property
    def group(self) -> str:
        return self.api.split("/")[2] if self.api.startswith("/apis/") else ""

    @property
    def version(self) -> str:
        """`apiVersion` of its objects."""
        return self.api.removeprefix("/apis/").removeprefix("/api/")

    @property
    def qualified(self) -> str:
        """The resource as messages name it."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    def details(self, name: str = "", **more: Any) -> Object:
        details = {"name": name, "group": self.group, "kind": self.resource}
        return {key: value for key, value in details.items() if value} | more


CORE, NETWORKING, DISCOVERY = "/api/v1", "/apis/networking.k8s.io/v1", "/apis/discovery.k8s.io/v1"
GATEWAY, GATEWAY_ALPHA = "/apis/gateway.networking.k8s.io/v1", "/apis/gateway.networking.k8s.io/v1alpha2"

KINDS = (
    Kind(CORE, "namespaces", "Namespace", namespaced=False, status=True),
    Kind(CORE, "nodes", "Node", namespaced=False, status=True),
    Kind(CORE, "pods", "Pod", status=True),
    Kind(CORE, "services", "Service", status=True),
    Kind(CORE, "endpoints", "Endpoints"),
    Kind(CORE, "configmaps", "ConfigMap"),
    Kind(CORE, "secrets", "Secret"),
    Kind(CORE, "events", "Event"),
    Kind(CORE, "replicationcontrollers", "ReplicationController", status=True),
    Kind(DISCOVERY, "endpointslices", "EndpointSlice"),
    Kind(NETWORKING, "ingresses", "Ingress", status=True),
    Kind(NETWORKING, "ingressclasses", "IngressClass", namespaced=False),
    Kind("/apis/coordination.k8s.io/v1", "leases", "Lease"),
    Kind("/apis/events.k8s.io/v1", "events", "Event"),
)
GATEWAY_KINDS = (
    Kind(GATEWAY, "gatewayclasses", "GatewayClass", namespaced=False, status=True),
    Kind(GATEWAY, "gateways", "Gateway", status=True),
    Kind(GATEWAY, "httproutes", "HTTPRoute", status=True),
    Kind(GATEWAY_ALPHA, "tcproutes", "TCPRoute", status=True),
)
OLD_KINDS = (
    *(kind for kind in KINDS if kind.api == CORE),
    Kind("/apis/extensions/v1beta1", "ingresses", "Ingress", status=True),
)


@dataclass(frozen=True)
class Personality:
    """How a version of the API server differs from others."""

    version: Object
    kinds: tuple[Kind, ...] = KINDS
    watch_list: Literal["ignored", "refused", "served"] = "refused"
    gone: Literal["event", "status"] = "event"  # how a watch learns that its version is too old
    watch_cache: bool = True
    pages: bool = True
    bookmarks: bool = True
    progress: bool = False  # bookmarks bring the version of the store, not that of the kind's last event
    status_patch: bool = True
    sends_again: bool = False  # a watch from version N begins with the object whose version is N
    terminating_slices: bool = False
    deleted_as_it_was: bool = True  # what stops matching a selector is shown as it was when it still did
    uncached: frozenset[str] = frozenset()  # resources that are watched in the store itself


def _version(major: str, minor: str, git: str) -> Object:
    return {"major": major, "minor": minor, "gitVersion": git, "platform": "linux/amd64"}


V1_2 = Personality(
    _version("1", "2", "v1.2.0"),
    OLD_KINDS,
    watch_list="ignored",
    gone="status",
    pages=False,
    bookmarks=False,
    status_patch=False,
    sends_again=True,
    deleted_as_it_was=False,
    uncached=frozenset({"events"}),
)
V1_21 = Personality(_version("1", "21", "v1.21.2+k3s"))
V1_32 = Personality(_version("1", "32", "v1.32.0"), watch_list="served", progress=True, terminating_slices=True)


class Refused(Exception):  # noqa: N818 (an answer of the server, and no failure of the test)
    """An answer other than the wanted one: a Status object."""

    def __init__(
        self, code: int, reason: str, message: str, details: Object | None = None, *, metadata: Object | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.retry_after = code, reason, (details or {}).get("retryAfterSeconds")
        self.status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": metadata or {}, "status": "Failure"}
        self.status["message"] = message
        if reason:
            self.status["reason"] = reason
        if details is not None:
            self.status["details"] = details
        self.status["code"] = code


@dataclass(frozen=True, slots=True)
class Change:
    """What happened at `version`: from `old` to `new`, None where there was or is nothing."""

    version: int
    key: Key
    old: Object | None
    new: Object | None

    def seen(self, selector: Selector, *, as_it_was: bool) -> tuple[str, Object] | None:
        """Return the event of a watch with `selector`, None for none."""
        was = self.old is not None and selector.matches(self.old)
        if self.new is not None and selector.matches(self.new):
            return ("MODIFIED" if was else "ADDED"), self.new
        if was and self.old is not None:
            item = self.old if as_it_was or self.new is None else self.new
            return "DELETED", item | {"metadata": item["metadata"] | {"resourceVersion": str(self.version)}}
        return None


@dataclass
class Shelf:
    """Everything of one kind."""

    objects: dict[Key, Object] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    last: int = 0  # the version of its last change, though that may be forgotten
    floor: int = 0  # older versions than this cannot be watched

    def since(self, version: int) -> list[Change]:
        return self.changes[bisect_right(self.changes, version, key=lambda change: change.version) :]

    def at(self, version: int) -> dict[Key, Object]:
        """Return the objects as they were."""
        objects = dict(self.objects)
        for change in reversed(self.since(version)):
            if change.old is None:
                objects.pop(change.key, None)
            else:
                objects[change.key] = change.old
        return objects


class Store:
    """Objects of every kind. What is handed in is copied as far as it is changed; what is handed out is not to be."""

    def __init__(self, personality: Personality) -> None:
        self.personality = personality
        self.version = 1
        self.compacted = 0
        self.kinds: list[Kind] = list(personality.kinds)
        self.shelves: dict[Kind, Shelf] = {}
        self.told: Callable[[Kind, Change], None] = lambda _kind, _change: None

    def shelf(self, kind: Kind) -> Shelf:
        return self.shelves.setdefault(kind, Shelf())

    def kind(self, resource: str, api: str | None = None) -> Kind:
        return next(kind for kind in self.kinds if kind.resource == resource and api in {None, kind.api})

    def kind_of(self, item: Object) -> Kind:
        names = item.get("kind"), item.get("apiVersion")
        return next(kind for kind in self.kinds if (kind.name, kind.version) == names)

    def get(self, kind: Kind, key: Key) -> Object:
        found = self.shelf(kind).objects.get(key)
        if found is None:
            raise Refused(404, "NotFound", f'{kind.qualified} "{key[1]}" not found', kind.details(key[1]))
        return found

    def create(self, kind: Kind, namespace: str, item: Object) -> Object:
        metadata = dict(item.get("metadata") or {})
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        name = str(metadata.get("name") or "")
        _check_name(kind, name)
        spaces = self.shelf(self.kind("namespaces", CORE)).objects
        if kind.namespaced and ("", namespace) not in spaces:
            details = {"name": namespace, "kind": "namespaces"}
            raise Refused(404, "NotFound", f'namespaces "{namespace}" not found', details)
        if (namespace, name) in self.shelf(kind).objects:
            raise Refused(409, "AlreadyExists", f'{kind.qualified} "{name}" already exists', kind.details(name))
        _check_types(kind, item)
        self._check(kind, name, item)
        if kind.status:
            item = {**item, "status": {"phase": "Pending"} if kind.resource == "pods" else {"loadBalancer": {}}}
        return self.write(kind, (namespace, name), item | {"metadata": metadata})

    def replace(self, kind: Kind, key: Key, item: Object, *, status: bool) -> Object:
        old = self.get(kind, key)
        _check_types(kind, item)
        given = (item.get("metadata") or {}).get("resourceVersion")
        if not given and kind.resource == "leases":
            why = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
            raise self._invalid(kind, key[1], why, "metadata.resourceVersion")
        return self._update(kind, key, old, item, given, status=status)

    def patch(self, kind: Kind, key: Key, patch: Object, *, status: bool, strategic: bool) -> Object:
        old = self.get(kind, key)
        given = (patch.get("metadata") or {}).get("resourceVersion")
        return self._update(kind, key, old, merge(old, patch, strategic=strategic), given, status=status)

    def delete(self, kind: Kind, key: Key, options: Object) -> tuple[Object, bool]:
        """Delete; return the object's last state, and whether it is gone already."""
        old = self.get(kind, key)
        wanted = options.get("preconditions") or {}
        for given, name, word in (("resourceVersion", "ResourceVersion", "record"), ("uid", "UID", "record")):
            if wanted.get(given) not in {None, old["metadata"][given]}:
                what = f"{kind.name}.{kind.group}" if kind.group else kind.name
                raise Refused(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {what} "{key[1]}": the {name} in the precondition '
                    f"({wanted[given]}) does not match the {name} in {word} ({old['metadata'][given]}). "
                    "The object might have been modified",
                    kind.details(key[1]) | {"kind": kind.name},
                )
        if kind.resource != "pods":
            return self.remove(kind, key), True
        grace = options.get("gracePeriodSeconds")
        bound = bool((old.get("spec") or {}).get("nodeName"))
        grace = int(grace if grace is not None else _GRACE if bound else 0)
        when = _stamp(timedelta(seconds=grace))
        dying = {"deletionTimestamp": when, "deletionGracePeriodSeconds": grace}
        item = self.write(kind, key, old | {"metadata": old["metadata"] | dying})
        if grace == 0:
            self.remove(kind, key)
        return item, grace == 0

    def write(self, kind: Kind, key: Key, item: Object) -> Object:
        """Put an object there as it is; an equal one makes no new version."""
        shelf, (namespace, name) = self.shelf(kind), key
        old = shelf.objects.get(key)
        given = item.get("metadata") or {}
        before = old["metadata"] if old else {}
        metadata: Object = {"name": name, "namespace": namespace, "uid": given.get("uid") or before.get("uid")}
        if not namespace:
            del metadata["namespace"]
        metadata["uid"] = metadata["uid"] or str(uuid.uuid4())
        metadata["resourceVersion"] = before.get("resourceVersion", "")
        metadata["creationTimestamp"] = before.get("creationTimestamp") or given.get("creationTimestamp") or _stamp()
        metadata |= {key: value for key, value in given.items() if key not in metadata}
        new = {"metadata": metadata}
        new |= {key: value for key, value in item.items() if key not in {"kind", "apiVersion", "metadata"}}
        new = _as_stored(kind, new, self.personality)
        if old == new:
            return old
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        shelf.objects[key] = new
        self._tell(kind, Change(self.version, key, old, new))
        return new

    def remove(self, kind: Kind, key: Key) -> Object:
        old = self.get(kind, key)
        del self.shelf(kind).objects[key]
        self.version += 1
        self._tell(kind, Change(self.version, key, old, None))
        return old

    def compact(self, version: int | None = None, *, cache: bool = True) -> None:
        """Forget what was before `version`, now if None; without `cache` only the lists forget, and no watch."""
        self.compacted = self.version if version is None else version
        if not cache:
            return
        for kind in self.kinds:
            shelf = self.shelf(kind)
            shelf.floor = max(shelf.floor, self.compacted)
            shelf.changes = shelf.since(self.compacted)

    def rewind(self, version: int) -> None:
        """Be as a store that was restored from a backup of `version`: what came after has never been."""
        for shelf in self.shelves.values():
            shelf.objects = shelf.at(version)
            shelf.changes = [change for change in shelf.changes if change.version <= version]
            shelf.last = min(shelf.last, version)
        self.version = version

    def list_at(self, kind: Kind, version: int) -> dict[Key, Object]:
        if version < self.compacted:
            raise Refused(410, "Expired", "The resourceVersion for the provided list is too old.")
        return self.shelf(kind).at(version)

    def changes_since(self, kind: Kind, version: int) -> list[Change]:
        """Return what a watch from `version` begins with."""
        shelf = self.shelf(kind)
        reason = "Gone" if self.says_gone(kind) else "Expired"
        if not self.personality.watch_cache and version < self.compacted:
            raise Refused(410, reason, "The resourceVersion for the provided watch is too old.")
        if version < shelf.floor:
            raise Refused(410, reason, f"too old resource version: {version} ({shelf.floor})")
        return shelf.since(version - 1 if self.personality.sends_again else version)

    def says_gone(self, kind: Kind) -> bool:
        """Return whether a watch whose version is too old is refused with HTTP 410."""
        return self.personality.gone == "status" and kind.resource not in self.personality.uncached

    def _tell(self, kind: Kind, change: Change) -> None:
        shelf = self.shelf(kind)
        shelf.changes.append(change)
        shelf.last = change.version
        self.told(kind, change)

    def _update(self, kind: Kind, key: Key, old: Object, item: Object, given: str | None, *, status: bool) -> Object:
        if given and given != old["metadata"]["resourceVersion"]:
            message = f'Operation cannot be fulfilled on {kind.qualified} "{key[1]}": {_MODIFIED}'
            raise Refused(409, "Conflict", message, kind.details(key[1]))
        _check_types(kind, item)
        self._check(kind, key[1], item)
        if status:
            item = old | {"status": item.get("status", {})}
        elif kind.status:
            item = {**item, "status": old["status"]} if "status" in old else without(item, "status")
        return self.write(kind, key, item)

    def _check(self, kind: Kind, name: str, item: Object) -> None:
        """Refuse what the kind does not take; of the rules of real servers, those that a registrator may run into."""
        duration = (item.get("spec") or {}).get("leaseDurationSeconds", 1)
        if kind.resource == "leases" and duration <= 0:
            why = f"spec.leaseDurationSeconds: Invalid value: {duration}: must be greater than 0"
            raise self._invalid(kind, name, why, "spec.leaseDurationSeconds")

    def _invalid(self, kind: Kind, name: str, why: str, place: str) -> Refused:
        cause = {"reason": "FieldValueInvalid", "message": why.split(": ", 1)[1], "field": place}
        message = f'{kind.qualified} "{name}" is invalid: {why}'
        return Refused(422, "Invalid", message, kind.details(name, causes=[cause]))


def merge(old: Any, patch: Any, *, strategic: bool = False, key: str = "") -> Any:
    """Return `old` with a merge patch (RFC 7386); a strategic one merges conditions by their types."""
    if strategic and key == "conditions" and isinstance(old, list) and isinstance(patch, list):
        by_type = {entry.get("type"): entry for entry in old}
        for entry in patch:
            by_type[entry.get("type")] = merge(by_type.get(entry.get("type"), {}), entry)
        return list(by_type.values())
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif not name.startswith("$"):
            merged[name] = merge(merged.get(name), value, strategic=strategic, key=name)
    return merged


def without(item: Object, *names: str) -> Object:
    return {key: value for key, value in item.items() if key not in names}


def _as_stored(kind: Kind, item: Object, personality: Personality) -> Object:
    """Return `item` as it comes back from the store: what is empty in a slice is null there, and defaults are set."""
    if kind.resource in {"services", "ingresses"} and "status" in item:
        return item | {"status": {"loadBalancer": {}} | (item["status"] or {})}
    if kind.resource != "endpointslices":
        return item
    dropped = set() if personality.terminating_slices else {"serving", "terminating"}
    endpoints = [
        endpoint | {"conditions": _present(without(endpoint.get("conditions") or {}, *dropped))}
        for endpoint in item.get("endpoints") or ()
    ]
    ports = [_present({"name": "", "protocol": "TCP"} | port) for port in item.get("ports") or ()]
    return item | {"endpoints": endpoints or None, "ports": ports or None}


def _present(item: Object) -> Object:
    return {key: value for key, value in item.items() if value is not None}


def _check_types(kind: Kind, item: Object) -> None:
    """Refuse what cannot be decoded."""
    if item.get("kind") not in {None, kind.name}:
        what = f'{item["kind"]} in version "{item.get("apiVersion")}" cannot be handled as a {kind.name}'
        raise Refused(400, "BadRequest", what)
    spec = item.get("spec") or {}
    for key in ("acquireTime", "renewTime") if kind.resource == "leases" else ():
        if spec.get(key) is not None and not _MICRO_TIME.fullmatch(str(spec[key])):
            why = f'Lease in version "v1" cannot be handled as a Lease: {key}: parsing time "{spec[key]}"'
            raise Refused(400, "BadRequest", why)


def _check_name(kind: Kind, name: str) -> None:
    if not name:
        cause = {"reason": "FieldValueRequired", "message": "Required value: name or generateName is required"}
        details = kind.details(causes=[cause | {"field": "metadata.name"}])
        raise Refused(422, "Invalid", f'{kind.name} "" is invalid: metadata.name: {cause["message"]}', details)
    if not _NAME.fullmatch(name):
        cause = {"reason": "FieldValueInvalid", "message": f'Invalid value: "{name}": a lowercase RFC 1123 subdomain'}
        details = kind.details(name, causes=[cause | {"field": "metadata.name"}]) | {"kind": kind.name}
        raise Refused(422, "Invalid", f'{kind.name} "{name}" is invalid: metadata.name: {cause["message"]}', details)


def _stamp(later: timedelta = timedelta()) -> str:
    return (datetime.now(UTC) + later).strftime("%Y-%m-%dT%H:%M:%SZ")
