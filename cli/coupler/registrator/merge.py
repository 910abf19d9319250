"""Offers of several sources → one desired state, by a stated rule.

The rule: of two backends with one id, the one of the source that is named first counts, whole. Of two routes that take
the same requests (same host, path, kind of path and headers), the higher priority counts, then the source named first,
then the smaller id; of two TCP routes for one port, the same without priorities. Of two hosts with one name, the one of
the source that is named first. What loses is listed as a problem, with the winner.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from coupler.registrator.model import Backend, Desired, Host, Mode, Offer, Problem, Route, TcpRoute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence, Set


def merge(offers: Sequence[tuple[str, Offer]]) -> Desired:
    """Return what `offers`, (name of the source, its offer) in the order of precedence, make together."""
    problems = [problem for _, offer in offers for problem in offer.problems]
    backends = _backends(offers, problems)
    routes = _routes(offers, backends, problems)
    tcp_routes = _tcp_routes(offers, backends, problems)
    return Desired(
        MappingProxyType(backends),
        tuple(sorted(routes, key=lambda route: route.match)),
        tuple(sorted(tcp_routes, key=lambda route: route.port)),
        _hosts(offers, problems),
        tuple(problems),
    )


def _backends(offers: Iterable[tuple[str, Offer]], problems: list[Problem]) -> dict[str, Backend]:
    taken: dict[str, Backend] = {}
    owner: dict[str, str] = {}
    for source, offer in offers:
        for backend in offer.backends:
            if backend.id in taken:
                problems.append(Problem(f"backend {backend.id} of {source}", f"{owner[backend.id]} has it already"))
                continue
            taken[backend.id], owner[backend.id] = backend, source
    return dict(sorted(taken.items()))


def _routes(
    offers: Iterable[tuple[str, Offer]], backends: Mapping[str, Backend], problems: list[Problem]
) -> Iterable[Route]:
    ranked = [(route, place, source) for place, (source, offer) in enumerate(offers) for route in offer.routes]
    winners: dict[object, Route] = {}
    for route, _, source in sorted(ranked, key=lambda entry: (-entry[0].priority, entry[1], entry[0].id)):
        if _lost(route, source, winners.get(route.match), problems):
            continue
        if _leads(route, source, backends.get(route.backend), Mode.HTTP, problems):
            winners[route.match] = route
    return winners.values()


def _tcp_routes(
    offers: Iterable[tuple[str, Offer]], backends: Mapping[str, Backend], problems: list[Problem]
) -> Iterable[TcpRoute]:
    ranked = [(route, place, source) for place, (source, offer) in enumerate(offers) for route in offer.tcp_routes]
    winners: dict[int, TcpRoute] = {}
    for route, _, source in sorted(ranked, key=lambda entry: (entry[1], entry[0].id)):
        if _lost(route, source, winners.get(route.port), problems):
            continue
        if _leads(route, source, backends.get(route.backend), Mode.TCP, problems):
            winners[route.port] = route
    return winners.values()


def _hosts(offers: Iterable[tuple[str, Offer]], problems: list[Problem]) -> tuple[Host, ...]:
    taken: dict[str, tuple[Host, str]] = {}
    for source, offer in offers:
        for host in offer.hosts:
            winner, owner = taken.setdefault(host.name, (host, source))
            if winner != host:
                problems.append(Problem(f"host {host.name} of {source}", f"{owner} says how it is served"))
    return tuple(host for _, (host, _) in sorted(taken.items()))


def _lost(route: Route | TcpRoute, source: str, winner: Route | TcpRoute | None, problems: list[Problem]) -> bool:
    if winner is None:
        return False
    if winner.backend != route.backend:
        problems.append(Problem(f"route {route.id} of {source}", f"route {winner.id} takes the same requests"))
    return True


def _leads(route: Route | TcpRoute, source: str, backend: Backend | None, mode: Mode, problems: list[Problem]) -> bool:
    if backend is not None and backend.mode is mode:
        return True
    why = "there is no such backend" if backend is None else f"that backend speaks {backend.mode}"
    problems.append(Problem(f"route {route.id} of {source}", f"leads to backend {route.backend}: {why}"))
    return False


def refresh(desired: Desired, offers: Sequence[tuple[str, Offer]], ids: Set[str]) -> Desired | None:
    """Return `desired` with the endpoints that these backends have now; None where more than endpoints changed.

    Much cheaper than `merge`: routes and hosts are the same objects as before.
    """
    fresh: dict[str, Backend] = {}
    for _, offer in reversed(offers):  # the first has the last word
        fresh |= {backend.id: backend for backend in offer.backends if backend.id in ids}
    for id_ in ids:
        old, new = desired.backends.get(id_), fresh.get(id_)
        if old is None or new is None or old.mode is not new.mode or old.policy != new.policy:
            return None
    return replace(desired, backends=MappingProxyType({**desired.backends, **fresh}))
