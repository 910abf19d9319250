"""Services of type LoadBalancer: addresses of our pool, ports of the balancer, their status.

The balancer listens on all its addresses: a port belongs to one Service, whichever address that has.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from coupler.registrator.model import Mode, TcpRoute
from coupler.registrator.sources.kubernetes.annotations import SERVICE, read
from coupler.registrator.sources.kubernetes.announced import for_tcp
from coupler.registrator.sources.kubernetes.objects import Wish
from coupler.registrator.sources.kubernetes.plan import OF_SERVICE, Group, Part, Plan, Translation
from coupler.registrator.sources.kubernetes.settings import is_address, parse_range

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from coupler.registrator.sources.kubernetes.objects import Json, Key
    from coupler.registrator.sources.kubernetes.services import Service
    from coupler.registrator.sources.kubernetes.settings import Address, KubernetesSettings

LOAD_BALANCER = "LoadBalancer"


def is_ours(service: Service, settings: KubernetesSettings) -> bool:
    """Return whether a Service asks for a load balancer, and for this one."""
    if service.type != LOAD_BALANCER:
        return False
    name = service.kept.spec.get("loadBalancerClass")
    return name == settings.load_balancer_class if name else settings.classless


def shown(status: Json) -> list[Json]:
    """Return the addresses and names that a status has: other fields of its entries are the server's."""
    entries = (status.get("loadBalancer") or {}).get("ingress") or ()
    return [{field: entry[field] for field in ("ip", "hostname") if entry.get(field)} for entry in entries]


@dataclass(frozen=True, slots=True)
class Pool:
    """The addresses that may be given out."""

    ranges: tuple[tuple[Address, Address], ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Pool:
        """Return the pool that settings name."""
        return cls(tuple(parse_range(text) for text in texts))

    def __contains__(self, text: str) -> bool:
        if not is_address(text):
            return False
        address = ipaddress.ip_address(text)
        return any(
            start.version == address.version and int(start) <= int(address) <= int(end) for start, end in self.ranges
        )

    def __iter__(self) -> Iterator[str]:
        for start, end in self.ranges:
            make = ipaddress.IPv4Address if start.version == _FOUR else ipaddress.IPv6Address
            for number in range(int(start), int(end) + 1):
                yield str(make(number))

    def free(self, taken: frozenset[str], version: int | None) -> str | None:
        """Return the first address that is not taken, of that version of IP."""
        return next((text for text in self if text not in taken and version in {None, _version(text)}), None)


_FOUR = 4
_VERSIONS = {"IPv4": 4, "IPv6": 6}


def _version(text: str) -> int:
    return ipaddress.ip_address(text).version


def assign(services: Iterable[Service], pool: Pool, before: Mapping[Key, str]) -> dict[Key, str | None]:
    """Return the address of each Service: what its status has, what was given `before`, what it asks for, a free one.

    The older Service is served first. None where the pool is exhausted.
    """
    ordered = sorted(services, key=lambda service: service.kept.age)
    given: dict[Key, str | None] = {}
    taken: set[str] = set()
    for wishes in (_shown_ip, lambda service: before.get(service.kept.key), _asked_ip):
        for service in ordered:
            wish, asked = wishes(service), _asked_ip(service)
            if service.kept.key in given or not wish or wish not in pool or _canonical(wish) in taken:
                continue
            if asked and asked != wish and asked in pool:
                continue  # it asks for another one now
            given[service.kept.key] = _canonical(wish)
            taken.add(_canonical(wish))
    for service in ordered:
        if service.kept.key not in given:
            version = _VERSIONS.get(service.families[0]) if service.families else None
            given[service.kept.key] = address = pool.free(frozenset(taken), version)
            taken.update([address] if address else [])
    return given


def _shown_ip(service: Service) -> str | None:
    return next((entry["ip"] for entry in shown(service.kept.status) if "ip" in entry), None)


def _asked_ip(service: Service) -> str | None:
    return service.kept.spec.get("loadBalancerIP") or None


def _canonical(text: str) -> str:
    return str(ipaddress.ip_address(text))


def translate(
    services: Mapping[Key, Service], settings: KubernetesSettings, before: dict[Key, str], into: Translation
) -> None:
    """Add the TCP routes of all Services of type LoadBalancer that are ours, and what their status should be.

    `before` are the addresses that were given so far, and is brought up to date.
    """
    ours = [service for service in services.values() if is_ours(service, settings)]
    pool = Pool.of(settings.pool)
    given = assign(ours, pool, before) if settings.pool else {}
    before.clear()
    before.update({key: address for key, address in given.items() if address})
    for service in ours:
        wanted = [{"ip": given[service.kept.key]}] if settings.pool else settings.reached()
        if settings.pool and given[service.kept.key] is None:
            wanted = []
            into.complain(
                service.kept.about,
                f"there is no address left in the pool {', '.join(settings.pool)}: its ports are served, "
                "its status names no address",
            )
        asked = _asked_ip(service)
        if settings.pool and asked and asked not in {entry["ip"] for entry in wanted}:
            why = "another Service has it" if asked in pool else "it is not in the pool"
            into.complain(service.kept.about, f"loadBalancerIP: {asked} is not given out: {why}")
        _ports(service, settings, into)
        _status(service, wanted, into)
    for service in services.values():
        if service.type != LOAD_BALANCER and _is_from_us(service, pool, settings):
            _status(service, [], into)


def _is_from_us(service: Service, pool: Pool, settings: KubernetesSettings) -> bool:
    entries = shown(service.kept.status)
    published = settings.reached()
    return any(entry.get("ip", "") in pool or (not settings.pool and entry in published) for entry in entries)


def _ports(service: Service, settings: KubernetesSettings, into: Translation) -> None:
    about, created = service.kept.about, service.kept.created
    asked = read(service.kept.annotations, settings.prefix, SERVICE)
    for port in service.ports:
        if port.protocol != "TCP":
            into.complain(about, f"port {port.number}: {port.protocol} is not balanced, TCP is")
            continue
        name = f"{service.kept.key[0]}/{service.kept.key[1]}:{port.number}"
        group = Group(OF_SERVICE, *service.kept.key, port.name)
        plan = Plan(f"{name}/tcp", (Part(1, group),), Mode.TCP, for_tcp(asked.policy), asked.weight)
        into.claim(about, created, partial(TcpRoute, f"{name}/tcp", into.plan(plan), port.number), None)


def _status(service: Service, wanted: list[Json], into: Translation) -> None:
    if shown(service.kept.status) != wanted:
        namespace, name = service.kept.key
        path = f"/api/v1/namespaces/{namespace}/services/{name}/status"
        into.wishes.append(Wish(service.kept.about, path, {"status": {"loadBalancer": {"ingress": wanted or None}}}))
