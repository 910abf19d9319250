"""Several groups of endpoints, each with a share of the requests → one group with weights, so that no balancer has to
know of splits.

A weight is a whole number up to 256, so shares are approximate: each share's sum is rounded to the nearest number that
the largest weight allows, and is at least 1. Where a share is smaller than its endpoints are many, some of them get
weight 0. Only endpoints that are ready count; a share without any leaves its part to the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from coupler.registrator.model import MAX_WEIGHT, Endpoint, State

if TYPE_CHECKING:
    from collections.abc import Sequence

Portion = tuple[int, tuple[Endpoint, ...]]
"""A share of the requests, relative to the others, and the endpoints that take it."""


def blend(portions: Sequence[Portion]) -> tuple[Endpoint, ...]:
    """Return the endpoints of all portions with weights by which each portion gets its share."""
    if len(portions) == 1 and portions[0][0]:
        return portions[0][1]
    scale = _scale(portions)
    weighed = [endpoint for share, endpoints in portions for endpoint in _weighed(share * scale, endpoints)]
    return _distinct(weighed)


def _ready(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    return [endpoint for endpoint in endpoints if endpoint.state is State.READY and endpoint.weight]


def _scale(portions: Sequence[Portion]) -> float:
    """Return by what shares are multiplied so that the largest weight is as large as can be."""
    limits = []
    for share, endpoints in portions:
        ready = _ready(endpoints)
        if share and ready:
            most, total = max(endpoint.weight for endpoint in ready), sum(endpoint.weight for endpoint in ready)
            limits.append(MAX_WEIGHT * total / (share * most))
    return min(limits, default=1.0)


def _weighed(wanted: float, endpoints: tuple[Endpoint, ...]) -> list[Endpoint]:
    """Return `endpoints` with weights whose sum over the ready ones is `wanted`, rounded."""
    ready = _ready(endpoints)
    whole = sum(endpoint.weight for endpoint in ready)
    if not wanted or not whole:
        return [_with_weight(endpoint, 0 if not wanted else endpoint.weight) for endpoint in endpoints]
    total = max(1, round(wanted))
    exact = {endpoint.uid: endpoint.weight * total / whole for endpoint in ready}
    given = {uid: min(MAX_WEIGHT, int(weight)) for uid, weight in exact.items()}
    missing = total - sum(given.values())
    for uid in sorted(given, key=lambda uid: (given[uid] - exact[uid], uid)):
        if missing > 0 and given[uid] < MAX_WEIGHT:
            given[uid] += 1
            missing -= 1
    usual = max(given.values())
    return [_with_weight(endpoint, given.get(endpoint.uid, usual if endpoint.weight else 0)) for endpoint in endpoints]


def _with_weight(endpoint: Endpoint, weight: int) -> Endpoint:
    return endpoint if endpoint.weight == weight else replace(endpoint, weight=weight)


def _distinct(endpoints: list[Endpoint]) -> tuple[Endpoint, ...]:
    """Return one endpoint for each uid: what is in two portions takes both parts; of two ports, both are kept."""
    found: dict[str, Endpoint] = {}
    for endpoint in endpoints:
        first = found.get(endpoint.uid)
        if first is None:
            found[endpoint.uid] = endpoint
        elif (first.address, first.port) == (endpoint.address, endpoint.port):
            found[endpoint.uid] = _with_weight(first, min(MAX_WEIGHT, first.weight + endpoint.weight))
        else:
            other = replace(endpoint, uid=f"{endpoint.uid}:{endpoint.port}")
            twin = found.get(other.uid)
            both = min(MAX_WEIGHT, twin.weight + other.weight) if twin else other.weight
            found[other.uid] = _with_weight(other, both)
    return tuple(found.values())
