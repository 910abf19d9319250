"""Pods that say themselves where their requests come from: the use of the registrator's ancestor.

Pods of one name (annotation `backend`, else their label app, else their owner) in one namespace form a backend. What
they say of routes may differ, as in the middle of a rolling update: the newest pod that is ready decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.registrator.model import MAX_PORT, Endpoint, State
from coupler.registrator.sources.kubernetes.annotations import POD, Asked, read
from coupler.registrator.sources.kubernetes.announced import add_routes, add_tcp_route
from coupler.registrator.sources.kubernetes.objects import Key, Reference, key_of, pairs, reference, seconds
from coupler.registrator.sources.kubernetes.plan import OF_PODS, Group, Part, Plan, Translation
from coupler.registrator.sources.kubernetes.services import endpoint_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coupler.registrator.sources.kubernetes.objects import Json

_NAMES = ("app.kubernetes.io/name", "app")
_OVER = frozenset(("Succeeded", "Failed"))


@dataclass(frozen=True, slots=True)
class Pod:
    """What is kept of a pod that asks for something.

    `ports` are (name, number) of its containers, TCP only. `leaving` is when its deletion was asked for; `since` when
    its readiness changed, or its deletion was asked for.
    """

    about: Reference
    group: str
    created: str
    annotations: tuple[tuple[str, str], ...]
    address: str
    ports: tuple[tuple[str, int], ...]
    ready: bool
    leaving: float | None
    since: float | None

    @property
    def owner(self) -> Group:
        """Return the group of endpoints that it belongs to."""
        return Group(OF_PODS, self.about.namespace, self.group)

    def state(self, asked: Asked, now: float) -> State | None:
        """Return what it may get; None where its time to drain is over."""
        if self.leaving is None:
            return State.READY if self.ready else State.DOWN
        ends = self.ends(asked)
        return None if ends is not None and ends <= now else State.DRAIN

    def ends(self, asked: Asked) -> float | None:
        """Return when its time to drain is over, where that was limited."""
        if self.leaving is None or asked.drain_seconds is None:
            return None
        return self.leaving + asked.drain_seconds


def read_pod(item: Json, prefix: str) -> Pod | None:
    """Return what is kept of a pod; None where it asks for nothing, has no address yet, or is over."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    annotations = metadata.get("annotations") or {}
    own = {name: text for name, text in annotations.items() if name.startswith(prefix)}
    address = status.get("podIP") or next((entry.get("ip") for entry in status.get("podIPs") or ()), None)
    if not own or not address or status.get("phase") in _OVER:
        return None
    condition: Json = next((entry for entry in status.get("conditions") or () if entry.get("type") == "Ready"), {})
    deleted = seconds(metadata.get("deletionTimestamp"))
    leaving = None if deleted is None else deleted - (metadata.get("deletionGracePeriodSeconds") or 0)
    return Pod(
        reference(item, "v1", POD),
        own.get(f"{prefix}backend") or _group(metadata),
        metadata.get("creationTimestamp") or "",
        pairs(own),
        address,
        _ports(spec),
        condition.get("status") == "True",
        leaving,
        seconds(condition.get("lastTransitionTime")) if leaving is None else leaving,
    )


def _group(metadata: Json) -> str:
    labels = metadata.get("labels") or {}
    named = next((labels[name] for name in _NAMES if labels.get(name)), None)
    owner = next((entry["name"] for entry in metadata.get("ownerReferences") or () if entry.get("controller")), None)
    return str(named or owner or metadata["name"])


def _ports(spec: Json) -> tuple[tuple[str, int], ...]:
    """Return the ports of containers, and of those init containers that go on running (sidecars)."""
    sidecars = [entry for entry in spec.get("initContainers") or () if entry.get("restartPolicy") == "Always"]
    return tuple(
        (port.get("name") or "", port["containerPort"])
        for container in (*(spec.get("containers") or ()), *sidecars)
        for port in container.get("ports") or ()
        if (port.get("protocol") or "TCP") == "TCP"
    )


def port_of(pod: Pod, asked: Asked) -> tuple[int | None, str]:
    """Return the port that requests go to; or None, and why not."""
    known = ", ".join(f"{name} ({number})" if name else str(number) for name, number in pod.ports) or "none"
    if asked.port is not None:
        if asked.port.isdecimal():
            return int(asked.port), ""
        number = next((number for name, number in pod.ports if name == asked.port), None)
        return number, f"port: {asked.port!r} is the name of no container's port; there are {known}"
    if len({number for _, number in pod.ports}) == 1:
        return pod.ports[0][1], ""
    number = next((number for name, number in pod.ports if name == "http"), None)
    return number, f"port has to be said: the containers' ports are {known}"


class Pods:
    """All pods that ask for something, by name and by group."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._pods: dict[Key, Pod] = {}
        self._groups: dict[Group, set[Key]] = {}
        self._leaving: set[Key] = set()

    def keys(self) -> set[Key]:
        """Return the names of the pods."""
        return set(self._pods)

    def get(self, key: Key) -> Pod | None:
        """Return the pod of that name."""
        return self._pods.get(key)

    def put(self, item: Json) -> frozenset[Group]:
        """Take a pod; return the groups that this may change."""
        return self._set(key_of(item), read_pod(item, self._prefix))

    def drop(self, key: Key, uid: str | None) -> frozenset[Group]:
        """Let go of a pod, if it is still the one with `uid`; None for whichever it is."""
        known = self._pods.get(key)
        if known is None or uid not in {None, known.about.uid}:
            return frozenset()
        return self._set(key, None)

    def _set(self, key: Key, pod: Pod | None) -> frozenset[Group]:
        before = self._pods.pop(key, None)
        self._leaving.discard(key)
        if pod is not None:
            if pod.leaving is not None:
                self._leaving.add(key)
            self._pods[key] = pod
        if before == pod:
            return frozenset()
        if before is not None:
            members = self._groups[before.owner]
            members.discard(key)
            if not members:
                del self._groups[before.owner]
        if pod is not None:
            self._groups.setdefault(pod.owner, set()).add(key)
        return frozenset(entry.owner for entry in (before, pod) if entry is not None)

    def groups(self) -> Iterable[Group]:
        """Return all groups, in a stable order."""
        return sorted(self._groups)

    def of(self, group: Group) -> list[Pod]:
        """Return the pods of a group, in a stable order."""
        return [self._pods[key] for key in sorted(self._groups.get(group.owner, ()))]

    def asked(self, pod: Pod) -> Asked:
        """Return what a pod asks for."""
        return read(pod.annotations, self._prefix, POD)

    def leader(self, group: Group) -> Pod | None:
        """Return the pod whose word counts: of those that stay, ready ones first, the newest."""
        staying = [pod for pod in self.of(group) if pod.leaving is None] or self.of(group)
        return max(staying, key=lambda pod: (pod.ready, pod.created, pod.about.uid), default=None)

    def endpoints(self, group: Group, now: float, known: dict[str, Endpoint]) -> tuple[Endpoint, ...]:
        """Return a group's endpoints. `known` are those of before, by uid."""
        made = []
        for pod in self.of(group):
            asked = self.asked(pod)
            state, (port, _) = pod.state(asked, now), port_of(pod, asked)
            if state is not None and port is not None and 0 < port <= MAX_PORT:
                uid = pod.about.uid
                made.append(endpoint_of(uid, pod.address, port, state, asked.weight, known.get(uid)))
        return tuple(endpoint for endpoint in made if endpoint)

    def next_end(self, now: float) -> tuple[float, Group] | None:
        """Return when next a pod's time to drain is over, and of which group it is."""
        ends = [
            (end, pod.owner)
            for pod in map(self._pods.__getitem__, self._leaving)
            if (end := pod.ends(self.asked(pod))) is not None and end > now
        ]
        return min(ends, default=None)

    def outline(self, group: Group) -> object:
        """Return what of a group decides about routes: where it changes, endpoints are not all that did."""
        pods = self.of(group)
        said = frozenset((pod.annotations, pod.ports) for pod in pods)
        leader = self.leader(group) if len(said) > 1 else None
        return (said, leader.about.uid if leader else "") if pods else None


def translate(pods: Pods, into: Translation) -> None:
    """Add the routes of all pods."""
    for group in pods.groups():
        leader = pods.leader(group)
        if leader is not None:
            _complain(pods, group, leader, into)
            _routes(group, pods.asked(leader), into)


def _about(group: Group) -> Reference:
    """Return what complaints are about: pods come and go, and say the same wrong thing a thousand times."""
    return Reference("v1", "Pods", group.namespace, group.name, "")


def _complain(pods: Pods, group: Group, leader: Pod, into: Translation) -> None:
    theirs = pods.asked(leader)
    for pod in pods.of(group):
        asked = pods.asked(pod)
        for text in asked.complaints:
            into.complain(_about(group), text)
        port, why = port_of(pod, asked)
        if port is None and _wants(asked):
            into.complain(_about(group), why)
        if _said(asked) != _said(theirs):
            into.complain(_about(group), f"its pods differ in their routes: those of {leader.about.name} count")


def _wants(asked: Asked) -> bool:
    return asked.of_http or asked.tcp_port is not None


def _said(asked: Asked) -> object:
    return asked.hosts, asked.path, asked.exact, asked.tcp_port, asked.priority, asked.policy, asked.middlewares


_NO_AGE = "~"
"""Sorts behind every time: a group of pods has no age, and yields to objects that stay."""


def _routes(group: Group, asked: Asked, into: Translation) -> None:
    if asked.broken:
        return
    name = f"{group.namespace}/{group.name}"
    parts = (Part(1, group),)
    if asked.of_http:
        backend = into.plan(Plan(name, parts, policy=asked.policy))
        add_routes(asked, name, backend, _about(group), _NO_AGE, into)
    if asked.tcp_port is not None:
        add_tcp_route(asked, name, parts, _about(group), _NO_AGE, into)
