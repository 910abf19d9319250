"""HAProxy as a balancer: moved through its runtime API, reloaded only when its shape has to change.

Order of a move: servers that are new or differ, a reload if a backend or a frontend is missing, the routes, and only
then what is to go. A server that goes gets no more requests, finishes those it has, and is deleted when it is idle.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from coupler.registrator.balancers import Applied, BalancerError
from coupler.registrator.balancers.haproxy.config import backend_name, config_text, map_text, shape, tcp_frontend
from coupler.registrator.balancers.haproxy.diff import (
    Proxies,
    map_fills,
    orphans,
    parse_map,
    parse_proxies,
    parse_servers,
    refused,
    upserts,
)
from coupler.registrator.balancers.system import taken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence, Set
    from pathlib import Path

    from coupler.registrator.balancers.haproxy.config import Settings, Shape
    from coupler.registrator.balancers.haproxy.diff import Server
    from coupler.registrator.balancers.haproxy.files import Files, Reload
    from coupler.registrator.balancers.haproxy.socket import Process, RuntimeSocket
    from coupler.registrator.model import Backend, Desired

_SHAPE = "show stat -1 3 -1"
_SERVERS = "show servers state"
_ASKED_ONE_BY_ONE = 20
_FRONTENDS = "(frontends)"


class HAProxy:
    """One HAProxy, local to this registrator.

    `reload_interval` is the least time between two reloads, `patience` how long one may take, both in seconds.
    """

    name = "haproxy"

    def __init__(
        self,
        settings: Settings,
        socket: RuntimeSocket,
        files: Files,
        reload: Reload,
        *,
        reload_interval: float = 1.0,
        patience: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._socket = socket
        self._files = files
        self._reload = reload
        self._reload_interval = reload_interval
        self._patience = patience
        self._clock = clock
        self._next_reload = 0.0
        self._outlined: tuple[object, Shape] | None = None
        self._process: Process | None = None  # the one of which we know the following two
        self._proxies = Proxies(frozenset(), frozenset())
        self._loaded: Mapping[Path, Mapping[str, str]] | None = None  # the maps
        self.reloads = 0

    async def prepare(self, desired: Desired) -> None:
        """Write our files where there are none, so that a HAProxy that names them can start."""
        if self._files.current() is None:
            await self.persist(desired)

    async def identity(self) -> str | None:
        """Return pid and start of the process that balances."""
        try:
            process = await self._socket.process()
        except BalancerError:
            return None
        return f"{process.pid}@{process.started}"

    async def apply(self, desired: Desired, backends: Set[str] | None, *, remove: bool) -> Applied:
        """Move these backends to `desired`; None reads and moves everything, orphans included."""
        await self._look(afresh=backends is None)
        desired, failed = self._servable(desired)
        outline = self._outline(desired)
        everything = backends is None or not backends <= desired.backends.keys()
        chosen = [b for b in desired.backends.values() if backends is None or b.id in backends]
        changes = await self._upsert(self._present(chosen), failed)
        waiting: frozenset[str] = frozenset()
        if self._misshapen(outline):
            absent = frozenset(b.id for b in desired.backends.values() if backend_name(b) not in self._proxies.backends)
            if not remove or self._clock() < self._next_reload:
                waiting = absent or frozenset((_FRONTENDS,))
            else:
                changes += await self._reshape(desired, outline, absent or frozenset((_FRONTENDS,)), failed)
                everything = True
        if not self._misshapen(outline):
            changes += await self._route(outline, remove=remove)
        elif everything:
            chosen, everything = list(desired.backends.values()), False  # routes may still lead to orphans
        if remove:
            gone, busy = await self._collect(desired, None if everything else self._present(chosen))
            return Applied(changes + gone, failed, waiting | busy)
        return Applied(changes, failed, waiting)

    async def plan(self, desired: Desired) -> list[str]:
        """Return the commands, the reload if there is one, and the differences of maps and file."""
        await self._look(afresh=True)
        desired, failed = self._servable(desired)
        outline = self._outline(desired)
        servers = parse_servers((await self._socket.ask([_SERVERS]))[0])
        lines = [f"left out of backend {name}: {why}" for name, why in failed.items()]
        for backend in self._present(desired.backends.values()):
            lines += upserts(backend, servers.get(backend_name(backend), {}))
        if self._misshapen(outline):
            lines += [f"reload for backend {name}" for name in sorted(outline.backends - self._proxies.backends)]
            lines += [f"reload for frontend {name}" for name in sorted(outline.frontends ^ self._proxies.frontends)]
        loaded = await self._read_maps(outline)
        for path, entries in outline.maps.items():
            lines += _differences(map_text(loaded[path]), map_text(entries), path)
        lines += [f"del server {name}/{server}" for name, server in orphans(desired, servers)]
        return lines + _differences(self._files.current() or "", config_text(desired, outline), self._settings.config)

    async def persist(self, desired: Desired) -> None:
        """Write file and maps for the next start, if HAProxy accepts them."""
        desired, _ = self._servable(desired)
        outline = self._outline(desired)
        await self._files.write(config_text(desired, outline), outline.maps)

    async def close(self) -> None:
        """Close the connection; routes and servers stay."""
        self._socket.forget()

    def _servable(self, desired: Desired) -> tuple[Desired, dict[str, str]]:
        """Leave out TCP routes whose port another program has; return the rest, and by backend what was wrong.

        HAProxy must not meet such a port: while a new process tries to bind it, the old one stops listening.
        """
        held = {name.partition(":")[0] for name in self._proxies.frontends}
        wrong = {
            route: why
            for route in desired.tcp_routes
            if tcp_frontend(route) not in held and (why := taken(self._settings.tcp_address, route.port))
        }
        if not wrong:
            return desired, {}
        rest = tuple(route for route in desired.tcp_routes if route not in wrong)
        return replace(desired, tcp_routes=rest), {route.backend: why for route, why in wrong.items()}

    def _outline(self, desired: Desired) -> Shape:
        """Return the shape of `desired`: made anew only when more than endpoints has changed."""
        key = (desired.routes, desired.tcp_routes, [backend_name(backend) for backend in desired.backends.values()])
        if self._outlined is None or self._outlined[0] != key:
            self._outlined = key, shape(desired, self._settings)
        return self._outlined[1]

    async def _look(self, *, afresh: bool) -> None:
        """Learn which proxies the process has: once for each process. What its maps hold: anew, if `afresh`."""
        process = await self._socket.process()
        if process != self._process:
            self._proxies = parse_proxies((await self._socket.ask([_SHAPE]))[0])
            self._process, self._loaded = process, None
        if afresh:
            self._loaded = None

    def _present(self, backends: Iterable[Backend]) -> list[Backend]:
        return [backend for backend in backends if backend_name(backend) in self._proxies.backends]

    def _misshapen(self, outline: Shape) -> bool:
        """Whether a reload is due. A backend too many is none: it is emptied, and goes with the next reload."""
        return outline.frontends != self._proxies.frontends or not outline.backends <= self._proxies.backends

    async def _upsert(self, backends: Sequence[Backend], failed: dict[str, str]) -> int:
        servers = await self._servers([backend_name(backend) for backend in backends])
        commands = [
            (backend.id, command)
            for backend in backends
            for command in upserts(backend, servers.get(backend_name(backend), {}))
        ]
        answers = await self._socket.ask([command for _, command in commands]) if commands else []
        for (backend_id, command), answer in zip(commands, answers, strict=True):
            if refused(command, answer):
                failed.setdefault(backend_id, f"{command}: {answer}")
        return len(commands)

    async def _servers(self, names: Sequence[str]) -> dict[str, dict[str, Server]]:
        """Return the servers of these backends: each asked alone where they are few."""
        few = len(names) <= _ASKED_ONE_BY_ONE
        servers: dict[str, dict[str, Server]] = {}
        for answer in await self._socket.ask([f"{_SERVERS} {name}" for name in names] if few else [_SERVERS]):
            servers |= parse_servers(answer)
        return servers

    async def _reshape(self, desired: Desired, outline: Shape, absent: Set[str], failed: dict[str, str]) -> int:
        """Reload, and bring the new process up to date; where that fails, say so of those that wait for it."""
        try:
            await self._restart(desired, outline)
        except BalancerError as error:
            failed.update(dict.fromkeys(absent, f"{error.what}: {error.why}"))
            return 0
        await self._look(afresh=True)
        return 1 + await self._upsert(self._present(desired.backends.values()), failed)

    async def _restart(self, desired: Desired, outline: Shape) -> None:
        before = self._files.current()
        old = await self._socket.process()
        self._next_reload = self._clock() + self._reload_interval
        await self._files.write(config_text(desired, outline), outline.maps)
        try:
            await self._reload(old.pid)
            await self._successor(old.pid)
        except BalancerError:
            self._files.restore(before)
            raise
        self.reloads += 1

    async def _successor(self, old: int) -> None:
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            self._socket.forget()
            try:
                process = await self._socket.process()
            except BalancerError:
                process = None  # between the two
            if process is not None and process.pid != old and not process.stopping:
                return
            await asyncio.sleep(0.01)
        raise BalancerError("HAProxy was told to reload, and no new process came", "its own log says why")

    async def _route(self, outline: Shape, *, remove: bool) -> int:
        loaded = self._loaded if self._loaded is not None else await self._read_maps(outline)
        wanted = {path: entries if remove else {**loaded[path], **entries} for path, entries in outline.maps.items()}
        stale = {path: entries for path, entries in wanted.items() if entries != loaded[path]}
        if stale:
            await self._swap(stale)
        self._loaded = wanted
        return len(stale)

    async def _read_maps(self, outline: Shape) -> dict[Path, dict[str, str]]:
        paths = list(outline.maps)
        answers = await self._socket.ask([f"show map {path}" for path in paths])
        return {path: parse_map(answer) for path, answer in zip(paths, answers, strict=True)}

    async def _swap(self, maps: Mapping[Path, Mapping[str, str]]) -> None:
        """Replace the content of these maps at once: filled beside the old versions, then committed together."""
        self._loaded = None
        answers = await self._socket.ask([f"prepare map {path}" for path in maps])
        versions = [answer.rpartition(" ")[2] for answer in answers]
        if not all(version.isdigit() for version in versions):
            raise BalancerError("HAProxy does not know our maps", "; ".join(answers), "does it read our file?")
        numbered = list(zip(maps.items(), versions, strict=True))
        fills = [fill for (path, entries), version in numbered for fill in map_fills(path, version, entries)]
        commits = [f"commit map @{version} {path}" for (path, _), version in numbered]
        answers = await self._socket.ask([*fills, *commits])
        if any(answer.strip("+ ") for answer in answers):
            raise BalancerError("HAProxy did not take the routes", "; ".join(answers))

    async def _collect(self, desired: Desired, chosen: Sequence[Backend] | None) -> tuple[int, frozenset[str]]:
        """Send home what is ours and not wanted; return how many went, and the backends that are still busy.

        None looks everywhere. What is busy is named by its backend in HAProxy, so that another look goes everywhere.
        """
        if chosen is None:
            servers = parse_servers((await self._socket.ask([_SERVERS]))[0])
        else:
            servers = await self._servers([backend_name(backend) for backend in chosen])
        leaving = orphans(desired, servers)
        commands = [
            command
            for name, server in leaving
            for command in (f"set server {name}/{server} state maint", f"del server {name}/{server}")
        ]
        answers = await self._socket.ask(commands) if commands else []
        busy = [name for (name, _), answer in zip(leaving, answers[1::2], strict=True) if refused("del server", answer)]
        return len(leaving) - len(busy), frozenset(busy)


def _differences(old: str, new: str, path: Path) -> list[str]:
    return list(difflib.unified_diff(old.splitlines(), new.splitlines(), str(path), f"{path} (new)", n=1, lineterm=""))
