"""Services and their endpoints, from EndpointSlices or, where the server has none, from Endpoints.

Sources: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/ and the API's own reference. A slice
may have `endpoints: null`; of its conditions, `ready` absent means true, `serving` absent means as ready, `terminating`
absent means false. A Service has several slices at once: for each family of addresses, for each set of resolved ports,
and one endpoint may be in two of them for a moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coupler.registrator.model import MAX_PORT, Endpoint, ModelError, State
from coupler.registrator.sources.kubernetes.objects import Kept, Key, keep, key_of, seconds
from coupler.registrator.sources.kubernetes.plan import OF_SERVICE, Group

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from coupler.registrator.sources.kubernetes.objects import Json

SERVICE_NAME = "kubernetes.io/service-name"
CHANGED_AT = "endpoints.kubernetes.io/last-change-trigger-time"
_KEPT = ("loadBalancerClass", "loadBalancerIP")
_INSTANCES = "(instances)"  # no name that the API has
_RANK = {State.READY: 0, State.DRAIN: 1, State.DOWN: 2}


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service. `target` is the pods' port where it is a number."""

    name: str
    number: int
    protocol: str
    target: int | None


@dataclass(frozen=True, slots=True)
class Service:
    """What is kept of a Service. `kept` has its annotations, and of its spec what is asked for."""

    kept: Kept
    type: str
    ports: tuple[ServicePort, ...]
    families: tuple[str, ...]

    def port(self, wanted: str | int | None) -> ServicePort | None:
        """Return the port of that name or number; with None the only one, or the one that is called http."""
        if wanted is None:
            candidates = [port for port in self.ports if port.protocol == "TCP"]
            named = [port for port in candidates if port.name == "http"]
            chosen = candidates if len(candidates) == 1 else named
            return chosen[0] if chosen else None
        text = str(wanted)
        return next((p for p in self.ports if text in {p.name, str(p.number)} and p.protocol == "TCP"), None)

    def choices(self) -> str:
        """Return its ports in words."""
        named = (f"{port.name} ({port.number})" if port.name else str(port.number) for port in self.ports)
        return ", ".join(named) or "none"


def read_service(item: Json, prefixes: tuple[str, ...]) -> Service:
    """Return what is kept of a Service."""
    kept = keep(item, "v1", "Service", prefixes)
    spec = kept.spec
    ports = tuple(
        ServicePort(
            port.get("name") or "",
            port["port"],
            port.get("protocol") or "TCP",
            port["targetPort"] if isinstance(port.get("targetPort"), int) else None,
        )
        for port in spec.get("ports") or ()
    )
    wanted: Json = {name: spec[name] for name in _KEPT if name in spec}
    small = Kept(kept.about, kept.created, 0, "", kept.annotations, (), wanted, kept.status)
    return Service(small, spec.get("type") or "ClusterIP", ports, tuple(spec.get("ipFamilies") or ()))


Instance = tuple[str, str, State]
"""uid, address and state of one endpoint, without its port."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Endpoints that have the same ports, (name, number or None for any); `family` is IPv4 or IPv6."""

    service: Key
    family: str
    ports: tuple[tuple[str, int | None], ...]
    instances: tuple[Instance, ...]


def _ports(ports: Any) -> tuple[tuple[str, int | None], ...]:
    return tuple(
        (port.get("name") or "", port.get("port")) for port in ports or () if (port.get("protocol") or "TCP") == "TCP"
    )


def _state(conditions: Json) -> State:
    ready = conditions.get("ready")
    if ready or ready is None:
        return State.READY
    serving = conditions.get("serving")  # absent it means as ready, which is false here
    return State.DRAIN if serving and conditions.get("terminating") else State.DOWN


def read_slice(item: Json) -> tuple[Slice, ...]:
    """Return what is kept of an EndpointSlice: nothing if it belongs to no Service, or holds names."""
    namespace, _ = key_of(item)
    service = (item["metadata"].get("labels") or {}).get(SERVICE_NAME)
    family = item.get("addressType") or "IPv4"
    if not service or family not in {"IPv4", "IPv6"}:
        return ()
    instances = item[_INSTANCES] if _INSTANCES in item else _instances(item)
    return (Slice((namespace, service), family, _ports(item.get("ports")), instances),)


def with_instances(item: Json) -> Json:
    """Return an EndpointSlice with its endpoints in the form in which they are kept, a tenth of their size."""
    item[_INSTANCES] = _instances(item)
    item.pop("endpoints", None)
    return item


def _instances(item: Json) -> tuple[Instance, ...]:
    instances = []
    for endpoint in item.get("endpoints") or ():
        addresses = endpoint.get("addresses") or ()
        if addresses:  # of several, they are the same endpoint: the first stands for it
            uid = (endpoint.get("targetRef") or {}).get("uid") or addresses[0]
            instances.append((uid, addresses[0], _state(endpoint.get("conditions") or {})))
    return tuple(instances)


def read_endpoints(item: Json) -> tuple[Slice, ...]:
    """Return what is kept of core/v1 Endpoints, as slices: one for each subset."""
    found = []
    for subset in item.get("subsets") or ():
        instances = [
            ((address.get("targetRef") or {}).get("uid") or address["ip"], address["ip"], state)
            for field, state in (("addresses", State.READY), ("notReadyAddresses", State.DOWN))
            for address in subset.get(field) or ()
        ]
        for family in ("IPv4", "IPv6"):
            own = tuple(entry for entry in instances if (":" in entry[1]) == (family == "IPv6"))
            if own:
                found.append(Slice(key_of(item), family, _ports(subset.get("ports")), own))
    return tuple(found)


def changed_at(item: Json) -> float | None:
    """Return when the change behind this state of a slice, or of Endpoints, happened."""
    return seconds((item["metadata"].get("annotations") or {}).get(CHANGED_AT))


@dataclass(frozen=True, slots=True)
class Found:
    """What a reference to a Service's port leads to: endpoints and a name for them; or `why` it leads nowhere."""

    name: str
    group: Group | None
    service: Service | None = None
    why: str = ""


def find(services: Mapping[Key, Service], key: Key, port: str | int | None) -> Found:
    """Return what a reference to `port`, a name or a number or None for the obvious one, of a Service leads to."""
    name = f"{key[0]}/{key[1]}"
    service = services.get(key)
    if service is None:
        return Found(f"{name}:{port}", None, None, f"there is no Service {name}")
    if service.type == "ExternalName":
        return Found(
            f"{name}:{port}", None, service, f"Service {name} is of type ExternalName: a balancer needs addresses"
        )
    found = service.port(port)
    if found is None:
        wanted = "no port that is the obvious one" if port is None else f"no TCP port {port}"
        return Found(f"{name}:{port}", None, service, f"Service {name} has {wanted}; it has {service.choices()}")
    return Found(f"{name}:{found.number}", Group(OF_SERVICE, *key, found.name), service)


class Slices:
    """All slices, by the name of the object that they come from, and by Service."""

    def __init__(self) -> None:
        self._objects: dict[Key, tuple[str, tuple[Slice, ...]]] = {}
        self._names: dict[Key, set[Key]] = {}

    def keys(self) -> set[Key]:
        """Return the names of the objects."""
        return set(self._objects)

    def put(self, key: Key, uid: str, slices: tuple[Slice, ...]) -> frozenset[Group]:
        """Take an object's slices; return the Services whose endpoints this may change."""
        before = self._objects.get(key, ("", ()))[1]
        if slices == before and key in self._objects:
            return frozenset()
        self._objects[key] = (uid, slices)
        touched = {entry.service for entry in (*before, *slices)}
        for entry in before:
            self._names.get(entry.service, set()).discard(key)
        for entry in slices:
            self._names.setdefault(entry.service, set()).add(key)
        return frozenset(Group(OF_SERVICE, *service) for service in touched)

    def drop(self, key: Key, uid: str | None) -> frozenset[Group]:
        """Let go of an object, if it is still the one with `uid`; None for whichever it is."""
        known = self._objects.get(key)
        if known is None or uid not in {None, known[0]}:
            return frozenset()
        touched = self.put(key, known[0], ())
        del self._objects[key]
        return touched

    def of(self, service: Key) -> list[Slice]:
        """Return a Service's slices, in a stable order."""
        names = sorted(self._names.get(service, ()))
        return [entry for name in names for entry in self._objects[name][1] if entry.service == service]


def resolve(
    service: Service, name: str, slices: Sequence[Slice], weight: int, known: dict[str, Endpoint]
) -> tuple[Endpoint, ...]:
    """Return the endpoints that a Service has for its port of that name.

    Each instance counts once: with the address of the Service's first family, and, where it is in two slices, in the
    better state. `known` are endpoints of before, by uid: what did not change is the same object.
    """
    port = next((port for port in service.ports if port.name == name), None)
    if port is None:
        return ()
    order = {family: place for place, family in enumerate(service.families or ("IPv4", "IPv6"))}
    chosen: dict[str, tuple[tuple[int, int], str, int, State]] = {}
    for entry in slices:
        number = _number(entry, port)
        if number is None:
            continue
        place = order.get(entry.family, len(order))
        for uid, address, state in entry.instances:
            rank = (place, _RANK[state])
            if uid not in chosen or rank < chosen[uid][0]:
                chosen[uid] = (rank, address, number, state)
    made = [
        endpoint_of(uid, address, number, state, weight, known.get(uid))
        for uid, (_, address, number, state) in chosen.items()
    ]
    return tuple(endpoint for endpoint in made if endpoint)


def _number(entry: Slice, port: ServicePort) -> int | None:
    """Return the pods' port in this slice; None where they do not have it."""
    for name, number in entry.ports:
        if name == port.name:
            found = number if number is not None else port.target or port.number
            return found if 0 < found <= MAX_PORT else None
    return None


def endpoint_of(
    uid: str, address: str, port: int, state: State, weight: int, known: Endpoint | None
) -> Endpoint | None:
    """Return an endpoint, `known` itself if it is the same; None where a balancer could not carry its address."""
    if known and (known.address, known.port, known.weight, known.state) == (address, port, weight, state):
        return known
    try:
        return Endpoint(uid, address, port, state, weight)
    except ModelError:
        return None  # a zone, or a hand-made slice with something that is no address
