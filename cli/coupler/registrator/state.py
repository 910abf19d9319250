"""What a registrator has and does, as plain data for JSON and for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from coupler.registrator import routing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from coupler.registrator.intake import Intake
    from coupler.registrator.leader import Election
    from coupler.registrator.model import Backend, Desired, Route
    from coupler.registrator.mover import Mover


def state(
    intake: Intake, movers: Sequence[Mover], elections: Sequence[Election], drains: Iterable[str]
) -> dict[str, Any]:
    """Return everything: sources, balancers, what is routed where, and what was left out. No private key is in it."""
    desired, lacking = intake.desired, reasons(intake, movers)
    return {
        "ready": not lacking,
        "not_ready_because": lacking,
        "sources": [asdict(source) for source in intake.states()],
        "balancers": [_balancer(mover) for mover in movers],
        "elections": [{"key": each.key, "leads": each.leads, "problem": each.problem} for each in elections],
        "routes": [_route(route, desired) for route in sorted(desired.routes, key=routing.order)],
        "tcp_routes": [asdict(route) for route in desired.tcp_routes],
        "hosts": [
            {"name": h.name, "tls": h.certificate is not None, "redirect": h.redirect, "hsts": h.hsts}
            for h in desired.hosts
        ],
        "backends": {name: _backend(backend) for name, backend in desired.backends.items()},
        "problems": [asdict(problem) for problem in desired.problems],
        "drains": sorted(drains),
    }


def reasons(intake: Intake, movers: Sequence[Mover]) -> list[str]:
    """Return why the balancers may not have what is wanted; nothing if they have."""
    found = [f"{source.name} has not synced" for source in intake.states() if not source.synced]
    found += [f"{mover.balancer.name} is not in step" for mover in movers if mover.leads and not mover.in_step]
    return found


def explanation(desired: Desired, host: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """Return which routes were looked at for a request, in order, and where it goes."""
    considered = routing.explain(desired.routes, host, path, headers)
    taken = next((entry.route for entry in considered if entry.takes), None)
    backend = desired.backends.get(taken.backend) if taken else None
    return {
        "host": host,
        "path": path,
        "considered": [
            {"route": _route(entry.route, desired), "takes": entry.takes, "why": entry.why} for entry in considered
        ],
        "backend": _backend(backend) | {"id": backend.id} if backend else None,
    }


def _balancer(mover: Mover) -> dict[str, Any]:
    record = mover.record
    return {
        "name": mover.balancer.name,
        "leads": mover.leads,
        "in_step": mover.in_step,
        "error": record.error,
        "failed": dict(record.failed),
        "pending": sorted(record.pending),
        "moves": record.moves,
        "changes": record.changes,
        "drifted": record.drifted,
    }


def _route(route: Route, desired: Desired) -> dict[str, Any]:
    ready = sum(endpoint.state == "ready" for endpoint in desired.backends[route.backend].endpoints)
    return {
        "id": route.id,
        "host": route.host or "*",
        "path": route.path,
        "exact": route.exact,
        "headers": dict(route.headers),
        "priority": route.priority,
        "backend": route.backend,
        "ready": ready,
    }


def _backend(backend: Backend) -> dict[str, Any]:
    policy = {name: value for name, value in asdict(backend.policy).items() if value}
    return {
        "mode": backend.mode,
        "policy": policy,
        "endpoints": [asdict(endpoint) for endpoint in backend.endpoints],
    }
