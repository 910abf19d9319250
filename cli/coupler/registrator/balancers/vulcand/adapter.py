"""vulcand as a balancer: its keys in etcd are read, compared and written; vulcand follows by itself.

Order of a move: hosts and their certificates; backends, their servers, their frontends, the middlewares of those; then
servers that are not ready go; then, with leave to remove, what nobody wants: frontends, servers, backends, hosts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.registrator.balancers import Applied, BalancerError
from coupler.registrator.balancers.vulcand import documents
from coupler.registrator.balancers.vulcand.diff import (
    BACKENDS,
    FRONTENDS,
    Drop,
    Observed,
    Step,
    Wanted,
    drop,
    leavers,
    leftovers,
    told,
    upserts,
    users,
    wanted,
)
from coupler.registrator.balancers.vulcand.ids import is_ours, probe_id
from coupler.registrator.balancers.vulcand.keys import DeposedError
from coupler.registrator.balancers.vulcand.probe import Probe
from coupler.registrator.etcd import EtcdError
from coupler.registrator.model import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Set

    from coupler.registrator.balancers.vulcand.keys import Keys
    from coupler.registrator.balancers.vulcand.tls import Tls
    from coupler.registrator.leader import Fence
    from coupler.registrator.model import Desired, Host, Route

_READ_ONE_BY_ONE = 20
_BREATH = 200


@dataclass(frozen=True, slots=True)
class _Plan:
    """What would be done: `upserts` before `removals`; whom it concerns; what cannot be done at all."""

    upserts: tuple[Step, ...]
    removals: tuple[Step, ...]
    names: frozenset[str]
    failed: Mapping[str, str]


class Vulcand:
    """The vulcands that follow one prefix of one etcd.

    `owner` marks our keys: registrators that share a balancer have the same one. `fence` gives what proves that we
    lead; without it, no other registrator may write there. `probe` lists base URLs of vulcands that are asked now and
    then whether they still follow etcd. With `tls`, hosts are served over TLS; without it, they are left alone.
    """

    name = "vulcand"
    settle = 0.01  # each change of a server makes vulcand rebuild the frontends that lead to it
    shared = True

    def __init__(
        self,
        keys: Keys,
        prefix: str = "vulcand",
        *,
        owner: str = "coupler",
        fence: Callable[[], Fence | None] | None = None,
        probe: tuple[str, ...] = (),
        patience: float = 5.0,
        tls: Tls | None = None,
    ) -> None:
        if not owner.isalnum() or not owner.isascii():
            raise BalancerError(f"{owner!r} is no mark of an owner", next_step="letters and digits only")
        self._keys, self._prefix, self._owner, self._fence = keys, prefix, owner, fence
        self._probe = Probe(probe, probe_id(owner), patience)
        self._stale: Mapping[str, str] = {}
        self._routed: tuple[object, Mapping[str, list[Route]]] = None, {}
        self._moved: tuple[tuple[Route, ...], tuple[Host, ...]] = (), ()
        self._tls = tls

    async def identity(self) -> str | None:
        """Return what names the etcd; None while it has no quorum."""
        try:
            return await self._keys.cluster()
        except EtcdError:
            return None

    async def apply(self, desired: Desired, backends: Set[str] | None, *, remove: bool) -> Applied:
        """Move these backends to `desired`; None, or a name that is not in it, reads and moves everything.

        What changed in routes and hosts since the last move is moved too.
        """
        fence = self._leading()
        try:
            plan = await self._plan(desired, self._reach(desired, backends), remove=remove)
            steps = (*plan.upserts, *plan.removals)
            if steps:
                await self._keys.write(steps, fence)
            self._moved = desired.routes, desired.hosts
            if self._stale:
                self._stale = await self._probe.stale()
        except EtcdError as error:
            raise _unreachable(error) from error
        silent = {f"({url})": why for url, why in self._stale.items()}
        return Applied(len(steps), {**plan.failed, **silent})

    async def drift(self, desired: Desired) -> frozenset[str]:
        """Return what differs in etcd, and the vulcands, in brackets, that do not follow it any more."""
        fence = self._leading()
        try:
            plan = await self._plan(desired, None, remove=True)
            if self._probe.urls:
                await self._keys.write(self._probe.steps(), fence)
                self._stale = await self._probe.stale()
        except EtcdError as error:
            raise _unreachable(error) from error
        return plan.names | {f"({url})" for url in self._stale}

    async def plan(self, desired: Desired) -> list[str]:
        """Return the keys that would be written and deleted, and what vulcand goes without."""
        try:
            plan = await self._plan(desired, None, remove=True)
        except EtcdError as error:
            raise _unreachable(error) from error
        lines = [f"left out of backend {name}: {why}" for name, why in plan.failed.items()]
        lines += [
            f"backend {backend.id} goes without {', '.join(words)}, which vulcand has not"
            for backend in desired.backends.values()
            if backend.id not in plan.failed and (words := documents.ignored(backend))
        ]
        lines += [f"port {route.port} is not served: vulcand balances no plain TCP" for route in desired.tcp_routes]
        for host in desired.hosts:
            if self._tls is None and (host.certificate or host.redirect):
                lines.append(f"host {host.name or '*'} is not served over TLS, or sent there: seal-key-file is not set")
            if host.hsts is not None:
                lines.append(f"host {host.name or '*'} goes without HSTS, which vulcand has not")
        return lines + told((*plan.upserts, *plan.removals), self._prefix)

    async def persist(self, desired: Desired) -> None:
        """Do nothing: etcd keeps what is in it."""

    async def close(self) -> None:
        """Let go of the vulcands; etcd stays as it is."""
        await self._probe.close()

    def _reach(self, desired: Desired, backends: Set[str] | None) -> Set[str] | None:
        """Return the backends to look at; None for everything, as where a route went or a host is another one."""
        routes, hosts = self._moved
        if backends is None or not backends <= desired.backends.keys() or hosts != desired.hosts:
            return None
        if routes is desired.routes:
            return backends
        before, now = set(routes), set(desired.routes)
        if not before <= now:
            return None
        return backends | {route.backend for route in now - before}

    def _leading(self) -> Fence | None:
        if self._fence is None:
            return None
        fence = self._fence()
        if fence is None:
            raise DeposedError
        return fence

    async def _plan(self, desired: Desired, backends: Set[str] | None, *, remove: bool) -> _Plan:
        wants, failed = await self._wanted(desired, backends)
        observed = await self._observe(None if backends is None else wants.values())
        names, puts, gone = set[str](), list[Step](), list[Step]()
        for number, (name, want) in enumerate(wants.items()):
            added = list(upserts(want, observed, anew=self._keys.anew))
            deleted = [*leavers(want, observed), *(leftovers(want, observed) if remove else ())]
            if added or deleted:
                names.add(name)
            puts += added
            gone += deleted
            if number % _BREATH == 0:
                await asyncio.sleep(0)
        # vulcand takes a frontend only after its backend: every backend of a move comes before every frontend
        puts.sort(key=lambda step: step.path.startswith(FRONTENDS))
        if backends is None and remove:
            frontends, orphans, used = self._orphans(wants.values(), observed)
            names.update(step.path for step in (*frontends, *orphans))
            gone = [*frontends, *gone, *orphans]
            failed = {**failed, **used}
        if backends is None and self._tls is not None:
            change = await self._tls.plan(self._owner, desired.hosts, observed)
            names |= change.upserts.keys()
            puts = [*change.upserts.values(), *puts]
            failed = {**failed, **change.failed}
            if remove:
                names.update(step.path for step in change.removals)
                gone += change.removals
        return _Plan(tuple(puts), tuple(gone), frozenset(names), failed)

    async def _wanted(self, desired: Desired, backends: Set[str] | None) -> tuple[dict[str, Wanted], dict[str, str]]:
        if self._routed[0] is not desired.routes:
            routes: dict[str, list[Route]] = {}
            for route in desired.routes:
                routes.setdefault(route.backend, []).append(route)
            self._routed = desired.routes, routes
        wants, failed = dict[str, Wanted](), dict[str, str]()
        redirects = self._tls.redirects(desired.hosts) if self._tls is not None else None
        chosen = desired.backends.values() if backends is None else [desired.backends[name] for name in backends]
        for number, backend in enumerate(chosen):
            try:
                routed = self._routed[1].get(backend.id, ())
                want = wants[backend.id] = wanted(self._owner, backend, routed, redirects)
                if want.problem:
                    failed[backend.id] = want.problem
            except ModelError as error:
                failed[backend.id] = error.summary
            if number % _BREATH == 0:
                await asyncio.sleep(0)
        return wants, failed

    def _orphans(self, wants: Iterable[Wanted], observed: Observed) -> tuple[list[Drop], list[Drop], dict[str, str]]:
        """Return frontends and backends of ours that nobody wants, and backends that others still use, with the reason.

        A frontend without its backend would keep vulcand from starting: whoever made it has to take it away first.
        """
        backends, frontends = set[str](), set[str]()
        if self._probe.urls:
            backends, frontends = {probe_id(self._owner)}, {probe_id(self._owner)}
        for want in wants:
            backends.add(want.id)
            frontends |= want.frontends.keys() | want.kept
        others = users(observed, {name for name in observed.frontends if is_ours(self._owner, name)})
        lost, used = list[Drop](), dict[str, str]()
        for name, keys in observed.backends.items():
            if name in backends or not is_ours(self._owner, name):
                continue
            if name in others:
                used[f"{BACKENDS}/{name}"] = f"frontend {others[name]}, which is not ours, still leads there"
            else:
                lost.append(drop(BACKENDS, name, keys))
        return (
            [
                drop(FRONTENDS, name, keys)
                for name, keys in observed.frontends.items()
                if name not in frontends and is_ours(self._owner, name)
            ],
            lost,
            used,
        )

    async def _observe(self, wants: Iterable[Wanted] | None) -> Observed:
        observed = Observed()
        paths = [
            path
            for want in wants or ()
            for path in (f"{BACKENDS}/{want.id}", *(f"{FRONTENDS}/{name}" for name in want.frontends))
        ]
        if wants is None or len(paths) > _READ_ONE_BY_ONE:
            await self._keys.read(observed)
        else:
            await asyncio.gather(*(self._keys.read(observed, path) for path in paths))
        return observed


def _unreachable(error: EtcdError) -> BalancerError:
    return BalancerError(error.what, error.why, error.next_step)
