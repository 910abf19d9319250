"""All that is known of the cluster, in a compact form, and the offer that it makes. Knows nothing of connections.

What changes is told as a `Touch`. The offer is made when it is asked for: anew as a whole where routes may have
changed, and otherwise only the backends whose endpoints did.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from coupler.registrator.model import Backend, Offer
from coupler.registrator.sources.kubernetes import announced, gateway, ingress, loadbalancer, pods
from coupler.registrator.sources.kubernetes.blend import blend
from coupler.registrator.sources.kubernetes.objects import Key, keep, key_of, uid_of
from coupler.registrator.sources.kubernetes.plan import OF_PODS, Group, Translation
from coupler.registrator.sources.kubernetes.secrets import Secrets
from coupler.registrator.sources.kubernetes.services import Slices, read_endpoints, read_service, read_slice, resolve
from coupler.registrator.sources.kubernetes.settle import settle_hosts, settle_routes

if TYPE_CHECKING:
    from collections.abc import Iterable, Set

    from coupler.registrator.model import Endpoint, Host, Route, TcpRoute
    from coupler.registrator.sources.kubernetes.objects import Complaint, Json, Kept, Wish
    from coupler.registrator.sources.kubernetes.plan import Plan
    from coupler.registrator.sources.kubernetes.services import Service
    from coupler.registrator.sources.kubernetes.settings import KubernetesSettings

POD, SERVICE, SLICE, ENDPOINTS, SECRET = "Pod", "Service", "EndpointSlice", "Endpoints", "Secret"
KEPT = {
    "Ingress": "networking.k8s.io/v1",
    "IngressClass": "networking.k8s.io/v1",
    "GatewayClass": "gateway.networking.k8s.io/v1",
    "Gateway": "gateway.networking.k8s.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "TCPRoute": "gateway.networking.k8s.io/v1alpha2",
    "ReferenceGrant": "gateway.networking.k8s.io/v1beta1",
    "Namespace": "v1",
}
"""The kinds of which an object is kept, and the version that is read unless `World.apis` says another."""

_CLASS_PREFIXES = (ingress.CLASS_ANNOTATION, ingress.DEFAULT_ANNOTATION)


@dataclass(frozen=True, slots=True)
class Touch:
    """What a change may have changed: endpoints of these groups, routes, or only what is to be written back."""

    groups: frozenset[Group] = frozenset()
    routes: bool = False
    statuses: bool = False

    def __or__(self, other: Touch) -> Touch:
        if other.groups <= self.groups and self.routes >= other.routes and self.statuses >= other.statuses:
            return self  # of a long list, most
        return Touch(self.groups | other.groups, self.routes or other.routes, self.statuses or other.statuses)

    def __bool__(self) -> bool:
        return bool(self.groups) or self.routes or self.statuses


_Part = TypeVar("_Part")
NOTHING, ROUTES, STATUSES = Touch(), Touch(routes=True), Touch(statuses=True)


class World:
    """The objects, and the offer. `put`, `drop` and `replace` take them by kind."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self.settings = settings
        self.services: dict[Key, Service] = {}
        self.slices = Slices()
        self.pods = pods.Pods(settings.prefix)
        self.secrets = Secrets()
        self.kept: dict[str, dict[Key, Kept]] = {kind: {} for kind in KEPT}
        self.apis = dict(KEPT)
        self.wanted: frozenset[Key] = frozenset()
        self.complaints: tuple[Complaint, ...] = ()
        self.wishes: tuple[Wish, ...] = ()
        self._outlines: dict[Group, object] = {}
        self._addresses: dict[Key, str] = {}
        self._plans: dict[str, Plan] = {}
        self._uses: dict[Group, set[str]] = {}
        self._endpoints: dict[tuple[Group, int], tuple[Endpoint, ...]] = {}
        self._backends: dict[str, Backend] = {}
        self._offer = Offer()
        self._stale = True
        self._dirty: set[Group] = set()

    def put(self, kind: str, item: Json) -> Touch:
        """Take an object that is new or has changed."""
        key = key_of(item)
        match kind:
            case "Pod":
                touch = self._pods_touch(self.pods.put(item))
            case "Service":
                touch = self._put_service(key, read_service(item, self.settings.prefixes))
            case "EndpointSlice" | "Endpoints":
                read = read_slice if kind == SLICE else read_endpoints
                touch = Touch(self.slices.put(key, uid_of(item), read(item)))
            case "Secret":
                touch = ROUTES if self.secrets.put(item) else NOTHING
            case _:
                touch = self._put_kept(kind, key, item)
        return self.touched(touch)

    def drop(self, kind: str, key: Key, uid: str | None = None) -> Touch:
        """Let go of an object, if it is still the one with `uid`; None for whichever it is."""
        match kind:
            case "Pod":
                touch = self._pods_touch(self.pods.drop(key, uid))
            case "EndpointSlice" | "Endpoints":
                touch = Touch(self.slices.drop(key, uid))
            case "Secret":
                touch = ROUTES if self.secrets.refuse(key, "there is no such Secret") else NOTHING
            case "Service":
                known = self.services.get(key)
                gone = known is not None and uid in {None, known.kept.about.uid}
                if gone:
                    del self.services[key]
                touch = ROUTES if gone else NOTHING
            case _:
                held = self.kept[kind].get(key)
                gone = held is not None and uid in {None, held.about.uid}
                if gone:
                    del self.kept[kind][key]
                touch = ROUTES if gone else NOTHING
        return self.touched(touch)

    def replace(self, kind: str, items: Iterable[Json], own: Set[Key] | None = None) -> tuple[Touch, set[Key]]:
        """Take all objects of a kind: what is not among them is gone; with `own`, of these names only.

        Returns their names too.
        """
        before = self.keys(kind) if own is None else own
        touch, groups, seen = NOTHING, set[Group](), set[Key]()
        for item in items:
            seen.add(key_of(item))
            if kind == POD:
                groups |= self.pods.put(item)
            else:
                touch |= self.put(kind, item)
        for key in before - seen:
            if kind == POD:
                groups |= self.pods.drop(key, None)
            else:
                touch |= self.drop(kind, key)
        return self.touched(touch | self._pods_touch(groups)), seen

    def keys(self, kind: str) -> set[Key]:
        """Return the names of the objects that are known."""
        if kind == POD:
            return self.pods.keys()
        if kind in {SLICE, ENDPOINTS}:
            return self.slices.keys()
        return set(self.services if kind == SERVICE else self.kept[kind])

    def touched(self, touch: Touch) -> Touch:
        """Note that the offer has to be made again; return `touch`."""
        self._dirty |= touch.groups
        self._stale = self._stale or touch.routes or touch.statuses
        return touch

    def backends_of(self, groups: Set[Group]) -> frozenset[str]:
        """Return the ids of the backends that have endpoints of these groups."""
        return frozenset(id_ for group in groups for id_ in self._uses.get(group.owner, ()))

    def offer(self, now: float) -> Offer:
        """Return what is wanted at that time. Parts that did not change are the same objects as before."""
        if self._stale:
            self._compile(now)
        elif self._dirty:
            self._refresh(now)
        return self._offer

    def _put_service(self, key: Key, fresh: Service) -> Touch:
        before = self.services.get(key)
        self.services[key] = fresh
        if before == fresh:
            return NOTHING
        same = before is not None and replace(before, kept=replace(before.kept, status=fresh.kept.status)) == fresh
        return STATUSES if same else ROUTES

    def _put_kept(self, kind: str, key: Key, item: Json) -> Touch:
        prefixes = (*self.settings.prefixes, *_CLASS_PREFIXES)
        fresh = keep(item, self.apis[kind], kind, prefixes)
        before = self.kept[kind].get(key)
        self.kept[kind][key] = fresh
        if before is None:
            return ROUTES
        if before == fresh:
            return NOTHING
        same = replace(before, status=fresh.status, version=fresh.version, generation=fresh.generation) == fresh
        return STATUSES if same else ROUTES

    def _pods_touch(self, groups: Set[Group]) -> Touch:
        """Return what pods of these groups have changed: routes too, where what decides about them did."""
        routes = False
        for group in groups:
            outline = self.pods.outline(group)
            if outline != self._outlines.get(group):
                routes = True
                self._outlines[group] = outline
            if outline is None:
                self._outlines.pop(group, None)
        return Touch(frozenset(groups), routes=routes)

    def _compile(self, now: float) -> None:
        """Translate all objects, and make all backends."""
        into = self._translation()
        routes, tcp_routes = settle_routes(into)
        hosts = settle_hosts(into, self.secrets)
        self.wanted = frozenset(claim.secret for claim in into.hosts if claim.secret)
        used = {route.backend for route in routes} | {route.backend for route in tcp_routes}
        self._plans = {id_: plan for id_, plan in into.plans.items() if id_ in used}
        self._uses = {}
        for plan in self._plans.values():
            for part in plan.parts:
                if part.group is not None:
                    self._uses.setdefault(part.group.owner, set()).add(plan.id)
        self._read_endpoints(self._needed(self._plans.values()), now)
        self._backends = {id_: self._backend(plan) for id_, plan in sorted(self._plans.items())}
        self.complaints = tuple(sorted(into.complaints, key=lambda one: (str(one.about), one.message)))
        self.wishes = tuple(into.wishes)
        self._publish(routes, tcp_routes, hosts)
        self._stale, self._dirty = False, set()

    def _translation(self) -> Translation:
        into, settings, kept = Translation(), self.settings, self.kept
        services = dict(sorted(self.services.items()))
        if settings.pods is not None:
            pods.translate(self.pods, into)
        if settings.services:
            announced.translate(services, settings.prefix, into)
        if settings.ingress:
            ingresses = [entry for _, entry in sorted(kept["Ingress"].items())]
            ingress.translate(ingresses, kept["IngressClass"].values(), services, settings, into)
        if settings.gateway:
            gateway.translate(gateway.Objects(kept, services, self.secrets), settings, into)
        if settings.load_balancer:
            loadbalancer.translate(services, settings, self._addresses, into)
        return into

    def _needed(self, plans: Iterable[Plan]) -> set[tuple[Group, int]]:
        return {(part.group, plan.weight) for plan in plans for part in plan.parts if part.group is not None}

    def _read_endpoints(self, needed: set[tuple[Group, int]], now: float) -> None:
        """Bring the endpoints that are needed up to date. A compilation reads all: ports may mean others now."""
        for group, weight in needed:
            known = {endpoint.uid: endpoint for endpoint in self._endpoints.get((group, weight), ())}
            fresh = self._resolve(group, weight, now, known)
            if self._endpoints.get((group, weight)) != fresh or (group, weight) not in self._endpoints:
                self._endpoints[group, weight] = fresh
        if self._stale:
            self._endpoints = {key: found for key, found in self._endpoints.items() if key in needed}

    def _resolve(self, group: Group, weight: int, now: float, known: dict[str, Endpoint]) -> tuple[Endpoint, ...]:
        if group.kind == OF_PODS:
            return self.pods.endpoints(group, now, known)
        key = (group.namespace, group.name)
        service = self.services.get(key)
        return resolve(service, group.port, self.slices.of(key), weight, known) if service else ()

    def _backend(self, plan: Plan) -> Backend:
        portions = [
            (part.share, self._endpoints[part.group, plan.weight] if part.group is not None else ())
            for part in plan.parts
        ]
        fresh = Backend(plan.id, blend(portions), plan.mode, plan.policy)
        before = self._backends.get(plan.id)
        return before if before == fresh and before is not None else fresh

    def _refresh(self, now: float) -> None:
        """Make those backends again whose endpoints may have changed."""
        plans = [self._plans[id_] for id_ in self.backends_of(self._dirty)]
        owners = {group.owner for group in self._dirty}
        needed = {(group, weight) for group, weight in self._needed(plans) if group.owner in owners}
        self._read_endpoints(needed, now)
        self._dirty = set()
        fresh = {plan.id: self._backend(plan) for plan in plans}
        if any(self._backends[id_] is not backend for id_, backend in fresh.items()):
            self._backends.update(fresh)
            self._offer = replace(self._offer, backends=tuple(self._backends.values()))

    def _publish(self, routes: Iterable[Route], tcp_routes: Iterable[TcpRoute], hosts: Iterable[Host]) -> None:
        before = self._offer
        known = {route.id: route for route in before.routes}
        known_tcp = {route.id: route for route in before.tcp_routes}
        known_hosts = {host.name: host for host in before.hosts}
        fresh = Offer(
            tuple(self._backends.values()),
            tuple(_same(route, known.get(route.id)) for route in routes),
            tuple(_same(route, known_tcp.get(route.id)) for route in tcp_routes),
            tuple(_same(host, known_hosts.get(host.name)) for host in hosts),
            tuple(complaint.problem for complaint in self.complaints),
        )
        self._offer = before if fresh == before else fresh


def _same(fresh: _Part, before: _Part | None) -> _Part:
    return before if before is not None and before == fresh else fresh
