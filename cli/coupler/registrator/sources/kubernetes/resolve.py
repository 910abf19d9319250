"""Claims of objects → routes, backends and hosts: who wins where two want the same, and what a canary takes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from coupler.registrator.model import Backend, Host, ModelError, Route, TcpRoute
from coupler.registrator.sources.kubernetes.blend import blend
from coupler.registrator.sources.kubernetes.plan import Claim, HostClaim, Part, Plan, Translation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coupler.registrator.model import Certificate, Endpoint
    from coupler.registrator.sources.kubernetes.objects import Key
    from coupler.registrator.sources.kubernetes.plan import Group

_WHOLE = 100


@dataclass(frozen=True, slots=True)
class Resolution:
    """What claims come to. `users` are the plans with endpoints of a group, by the group without its port."""

    plans: Mapping[str, Plan] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    tcp_routes: tuple[TcpRoute, ...] = ()
    users: Mapping[Group, tuple[str, ...]] = field(default_factory=dict)


def resolve_claims(translation: Translation) -> Resolution:
    """Return the routes that win, and the plans that they lead to; the losers' objects are complained about.

    Of two claims to the same requests the higher priority wins, then the older object, then the smaller name. A claim
    with a percentage takes its part of the winner's requests, where both are of one namespace.
    """
    plans = dict(translation.plans)
    routes: dict[object, Route | TcpRoute] = {}
    ordered = sorted(translation.claims, key=_age)
    owners: dict[object, Claim] = {}
    for claim in (entry for entry in ordered if entry.percent is None):
        match = _match(claim.route)
        if match not in owners:
            owners[match], routes[match] = claim, claim.route
        elif owners[match].route.backend != claim.route.backend:
            translation.complain(claim.about, f"{_words(claim.route)}: {owners[match].about} has it already")
    for claim in (entry for entry in ordered if entry.percent is not None):
        base = owners.get(_match(claim.route))
        if base is None or base.about.namespace != claim.about.namespace:
            translation.complain(claim.about, f"{_words(claim.route)}: there is no route to take a part of")
            continue
        mixed = _mixed(plans, routes[_match(claim.route)], claim)
        plans[mixed.id] = mixed
        routes[_match(claim.route)] = replace(routes[_match(claim.route)], backend=mixed.id)
    used = {route.backend: plans[route.backend] for route in routes.values()}
    users: dict[Group, dict[str, None]] = {}
    for plan in used.values():
        for part in plan.parts:
            if part.group is not None:
                users.setdefault(part.group.owner, {})[plan.id] = None
    found = sorted(routes.values(), key=lambda route: route.id)
    return Resolution(
        used,
        tuple(route for route in found if isinstance(route, Route)),
        tuple(route for route in found if isinstance(route, TcpRoute)),
        {group: tuple(ids) for group, ids in users.items()},
    )


def backend_of(plan: Plan, endpoints: Callable[[Group, int], tuple[Endpoint, ...]]) -> Backend:
    """Return the backend of a plan. `endpoints` gives those of a group, with a weight for each."""
    portions = [
        (part.share, endpoints(part.group, plan.weight) if part.group is not None else ()) for part in plan.parts
    ]
    return Backend(plan.id, blend(portions), plan.mode, plan.policy)


def hosts_of(translation: Translation, certificate: Callable[[Key], Certificate | str | None]) -> tuple[Host, ...]:
    """Return what holds for each host. `certificate` gives a Secret's: None while it is not read, or what is wrong.

    The oldest object that names a Secret for a host decides on its certificate. Plain requests are sent to TLS only
    where there is one.
    """
    claims: dict[str, list[HostClaim]] = {}
    for claim in sorted(translation.hosts, key=lambda claim: (claim.created, str(claim.about))):
        claims.setdefault(claim.name, []).append(claim)
    made = []
    for name, entries in sorted(claims.items()):
        own = _certificate(name, entries, translation, certificate)
        redirect = own is not None and any(entry.redirect for entry in entries)
        hsts = next((entry.hsts for entry in entries if entry.hsts is not None), None)
        try:
            made.append(Host(name, own, redirect, hsts))
        except ModelError as error:
            translation.complain(entries[0].about, error.what)
    return tuple(made)


def _certificate(
    name: str,
    entries: list[HostClaim],
    translation: Translation,
    certificate: Callable[[Key], Certificate | str | None],
) -> Certificate | None:
    own: Certificate | None = None
    decided: HostClaim | None = None
    for entry in entries:
        if entry.secret is None:
            continue
        if decided is not None and decided.secret != entry.secret:
            translation.complain(entry.about, f"host {name or '*'}: {decided.about} has a certificate for it already")
            continue
        decided = entry
        found = certificate(entry.secret)
        if isinstance(found, str):
            translation.complain(entry.about, f"Secret {entry.secret[0]}/{entry.secret[1]}: {found}")
        else:
            own = found
    return own


def _age(claim: Claim) -> tuple[object, ...]:
    priority = claim.route.priority if isinstance(claim.route, Route) else 0
    return -priority, claim.created, claim.about.namespace, claim.about.name, claim.route.id


def _match(route: Route | TcpRoute) -> object:
    return route.match if isinstance(route, Route) else route.port


def _words(route: Route | TcpRoute) -> str:
    return f"{route.host or '*'}{route.path}" if isinstance(route, Route) else f"port {route.port}"


def _mixed(plans: Mapping[str, Plan], route: Route | TcpRoute, claim: Claim) -> Plan:
    """Return the plan of `route` with a share for the claim's own endpoints."""
    base, own, percent = plans[route.backend], plans[claim.route.backend], claim.percent or 0
    rest = _WHOLE - percent
    total = sum(part.share for part in base.parts) or 1
    own_total = sum(part.share for part in own.parts) or 1
    parts = [Part(part.share * rest * own_total, part.group) for part in base.parts]
    parts += [Part(part.share * percent * total, part.group) for part in own.parts]
    return Plan(f"{base.id}+{own.id}:{percent}", tuple(parts), base.mode, base.policy, base.weight)
