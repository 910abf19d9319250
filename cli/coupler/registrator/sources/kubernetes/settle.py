"""Claims of many objects → routes and hosts, by a stated rule, with a complaint to each that loses.

The rule: of two claims to the same requests, or to one port, the higher priority counts, then the older object, then
the smaller name. Of two certificates for one host the one of the older object. A canary takes its part of the requests
from another object of its namespace that has a route for the same host and path.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from coupler.registrator.model import Host, ModelError, Route, TcpRoute
from coupler.registrator.sources.kubernetes.plan import Claim, Part, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from coupler.registrator.sources.kubernetes.plan import HostClaim, Translation
    from coupler.registrator.sources.kubernetes.secrets import Secrets

_ALL = 100


def settle_routes(into: Translation) -> tuple[list[Route], list[TcpRoute]]:
    """Return the routes that count, and complain to the others."""
    ordinary, canaries = _parted(into.claims)
    winners: dict[object, Claim] = {}
    for claim in sorted(ordinary, key=_rank):
        match = _match(claim.route)
        winner = winners.setdefault(match, claim)
        if winner.route.backend != claim.route.backend:
            into.complain(claim.about, _lost(claim, winner))
    _split(winners, canaries, into)
    routes = [claim.route for claim in winners.values()]
    return (
        sorted((route for route in routes if isinstance(route, Route)), key=lambda route: route.id),
        sorted((route for route in routes if isinstance(route, TcpRoute)), key=lambda route: route.id),
    )


def _parted(claims: Iterable[Claim]) -> tuple[list[Claim], list[Claim]]:
    """Return claims of their own, and parts of others'. A canary by header and percentage is both."""
    ordinary, canaries = [], []
    for claim in claims:
        if claim.percent is None:
            ordinary.append(claim)
            continue
        if isinstance(claim.route, Route) and claim.route.headers:
            ordinary.append(replace(claim, percent=None))
            claim = replace(claim, route=replace(claim.route, headers=()))  # noqa: PLW2901 (the part of all the others)
        canaries.append(claim)
    return ordinary, canaries


def _rank(claim: Claim) -> tuple[object, ...]:
    priority = claim.route.priority if isinstance(claim.route, Route) else 0
    return -priority, claim.created, str(claim.about), claim.route.id


def _match(route: Route | TcpRoute) -> object:
    return route.match if isinstance(route, Route) else route.port


def _lost(claim: Claim, winner: Claim) -> str:
    if isinstance(claim.route, TcpRoute):
        return f"port {claim.route.port} belongs to {winner.about}, which is older: a port has one owner"
    host, path, exact, headers = claim.route.match
    what = f"{host or 'any host'}{path}{' (exact)' if exact else ''}{f' with {dict(headers)}' if headers else ''}"
    return f"{what} belongs to {winner.about}: the higher priority, the older object, then the smaller name has it"


def _split(winners: dict[object, Claim], canaries: Sequence[Claim], into: Translation) -> None:
    """Give each canary its part of the route that it names."""
    shared: dict[object, list[Claim]] = {}
    for claim in sorted(canaries, key=_rank):
        winner = winners.get(_match(claim.route))
        if winner is None or winner.about.namespace != claim.about.namespace or winner.about == claim.about:
            host, path, _, _ = claim.route.match if isinstance(claim.route, Route) else ("", "", False, ())
            where = f"{host or 'any host'}{path}"
            into.complain(
                claim.about,
                f"canary-percent: nothing else in namespace {claim.about.namespace} has a route for {where}: "
                "there is nothing to take a part of",
            )
            continue
        parts = shared.setdefault(_match(claim.route), [])
        if (claim.percent or 0) + sum(other.percent or 0 for other in parts) > _ALL:
            into.complain(claim.about, f"canary-percent: with {parts[0].about} this is more than all requests")
            continue
        parts.append(claim)
    for match, parts in shared.items():
        if parts:
            winners[match] = _blended(winners[match], parts, into)


def _blended(winner: Claim, canaries: Sequence[Claim], into: Translation) -> Claim:
    first = into.plans[winner.route.backend]
    left = _ALL - sum(claim.percent or 0 for claim in canaries)
    portions = [(left, first.parts)]
    portions += [(claim.percent or 0, into.plans[claim.route.backend].parts) for claim in canaries]
    whole = 1
    for _, inner in portions:
        whole *= sum(part.share for part in inner) or 1
    parts = tuple(
        Part(share * part.share * (whole // (sum(one.share for one in inner) or 1)), part.group)
        for share, inner in portions
        for part in inner
    )
    name = "+".join((first.id, *(claim.about.name for claim in canaries)))
    id_ = into.plan(Plan(name, parts, first.mode, first.policy, first.weight))
    return replace(winner, route=replace(winner.route, backend=id_))


def settle_hosts(into: Translation, secrets: Secrets) -> list[Host]:
    """Return what holds for hosts, and complain about certificates that cannot be used, or are not wanted."""
    by_name: dict[str, list[HostClaim]] = {}
    for claim in sorted(into.hosts, key=lambda claim: (claim.created, str(claim.about))):
        by_name.setdefault(claim.name.lower().removesuffix("."), []).append(claim)
    hosts = []
    for name, claims in sorted(by_name.items()):
        host = _host(name, claims, secrets, into)
        if host is not None:
            hosts.append(host)
    return hosts


def _host(name: str, claims: Sequence[HostClaim], secrets: Secrets, into: Translation) -> Host | None:
    first = next((claim for claim in claims if claim.secret), None)
    for claim in claims:
        if claim.secret and first and claim.secret != first.secret:
            into.complain(claim.about, f"host {name}: its certificate is the one that the older {first.about} names")
        elif claim.secret and (problem := secrets.problem(claim.secret)):
            into.complain(claim.about, problem)
        if claim.redirect and first is None:
            into.complain(claim.about, f"redirect-to-ssl: host {name or '(any)'} has no certificate, so it is not done")
    certificate = secrets.get(first.secret) if first and first.secret else None
    redirect = certificate is not None and any(claim.redirect for claim in claims)
    hsts = next((claim.hsts for claim in claims if claim.hsts is not None), None)
    if certificate is None and hsts is None:
        return None
    try:
        return Host(name, certificate, redirect, hsts)
    except ModelError as error:
        into.complain(claims[0].about, error.what)
        return None
