"""HAProxy as a balancer: moved through its runtime API, reloaded only when its shape has to change.

Order of a move: servers that are new or differ, certificates, a reload if a backend or a frontend is missing, the
routes, and only then what is to go. A server that goes gets no more requests, finishes those it has, and is deleted
when it is idle.
"""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coupler.registrator.balancers import Applied, BalancerError
from coupler.registrator.balancers.haproxy.config import (
    backend_name,
    config_pieces,
    map_text,
    tcp_frontend,
)
from coupler.registrator.balancers.haproxy.keyring import Keyring
from coupler.registrator.balancers.haproxy.maps import move_maps, read_maps
from coupler.registrator.balancers.haproxy.outline import Outliner
from coupler.registrator.balancers.haproxy.pace import joined
from coupler.registrator.balancers.haproxy.restart import Restarter
from coupler.registrator.balancers.haproxy.servers import Proxies, removals
from coupler.registrator.balancers.haproxy.socket import ReplacedError, RuntimeSocket
from coupler.registrator.balancers.haproxy.survey import (
    left_over,
    move_servers,
    places,
    read_proxies,
    send_home,
    survey,
)
from coupler.registrator.balancers.system import taken

if TYPE_CHECKING:
    from collections.abc import Callable, Set
    from pathlib import Path

    from coupler.registrator.balancers.haproxy.config import Settings, Shape
    from coupler.registrator.balancers.haproxy.files import Files
    from coupler.registrator.balancers.haproxy.reload import Reload
    from coupler.registrator.balancers.haproxy.socket import Process
    from coupler.registrator.model import Desired

OLDEST = (2, 6)
"""The first release that adds and deletes servers while it runs, without being asked for experiments."""

_FRONTENDS, _ROUTES, _CERTIFICATES, _FILE = "(frontends)", "(routes)", "(certificates)", "(file)"


@dataclass(slots=True)
class _Known:
    """What is known of a process: its proxies for as long as it lives, and for which shape all but servers is right."""

    process: Process
    proxies: Proxies
    settled: Shape | None = None
    fits: Shape | None = None

    def lacks(self, outline: Shape) -> bool:
        """Whether a reload is due. A backend too many is none: it is emptied, and goes with the next reload."""
        if self.fits is not outline and not self.proxies.lack(outline):
            self.fits = outline
        return self.fits is not outline


class HAProxy:
    """One HAProxy, local to this registrator.

    `reload_interval` is the least time between two reloads, `patience` how long one may take, both in seconds.
    """

    name = "haproxy"
    settle = 0.0
    shared = False

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
        self._onlooker = RuntimeSocket(socket.path)
        self._files = files
        self._keyring = Keyring(settings, files)
        self._outliner = Outliner(settings, self._keyring)
        self._restarter = Restarter(files, reload, reload_interval, patience, clock)
        self._known: _Known | None = None
        self._free: tuple[object, Proxies] | None = None  # TCP routes whose ports are ours or free

    @property
    def reloads(self) -> int:
        """Return how many reloads there were."""
        return self._restarter.count

    async def prepare(self, desired: Desired) -> None:
        """Write our files where there are none, so that a HAProxy that names them can start."""
        if self._files.current() is None:
            await self.persist(desired)

    async def identity(self) -> str | None:
        """Return pid and start of the process that balances."""
        try:
            process = await self._onlooker.process()
        except BalancerError:
            return None
        return f"{process.pid}@{process.started}"

    async def apply(self, desired: Desired, backends: Set[str] | None, *, remove: bool) -> Applied:
        """Move these backends to `desired`; None reads and moves everything, orphans included."""
        try:
            return await self._move(desired, backends, remove=remove)
        except ReplacedError:
            self._known = None
            return await self._move(desired, None, remove=remove)

    async def plan(self, desired: Desired) -> list[str]:
        """Return the commands, the reload if there is one, and the differences of maps and file."""
        await self._onlooker.process()
        proxies = await read_proxies(self._onlooker)
        desired, failed = self._servable(desired, proxies)
        outline = await self._outliner.take(desired)
        failed |= self._keyring.refused
        lines = [f"left out of {name}: {why}" for name, why in failed.items()]
        deletions: list[str] = []
        wanted = [*places(desired.backends.values(), proxies), *left_over(outline, proxies)]
        async for found in survey(self._onlooker, wanted):
            lines += found.commands
            deletions += removals(found.name, found.surplus)[1::2]
        if proxies.lack(outline):
            lines += [f"reload for backend {name}" for name in sorted(outline.backends - proxies.backends)]
            lines += [f"reload for frontend {name}" for name in sorted(outline.frontends ^ proxies.frontends)]
        lines += await self._keyring.plan(self._onlooker)
        for path, entries in (await read_maps(self._onlooker, outline.maps)).items():
            lines += _differences(map_text(entries), map_text(outline.maps[path]), path)
        text = await joined(config_pieces(desired, outline))
        return lines + deletions + _differences(self._files.current() or "", text, self._settings.config)

    async def drift(self, desired: Desired) -> frozenset[str]:
        """Return what is not as desired: ids, names that HAProxy alone has, and words in parentheses for the rest."""
        await self._onlooker.process()
        proxies = await read_proxies(self._onlooker)
        desired, _ = self._servable(desired, proxies)
        outline = self._outliner.peek(desired)
        names = set(self._absent(desired, outline, proxies)) if proxies.lack(outline) else set()
        wanted = [*places(desired.backends.values(), proxies), *left_over(outline, proxies)]
        async for found in survey(self._onlooker, wanted):
            if found.commands or found.surplus:
                names.add(found.id)
        if await read_maps(self._onlooker, outline.maps) != outline.maps:
            names.add(_ROUTES)
        if await self._keyring.differs(self._onlooker):
            names.add(_CERTIFICATES)
        if await self._files.unlike(await joined(config_pieces(desired, outline)), outline.maps):
            names.add(_FILE)
        return frozenset(names)

    async def persist(self, desired: Desired) -> None:
        """Write files for the next start, if HAProxy accepts them. Raises BalancerError; then they are as before."""
        proxies = self._known.proxies if self._known else Proxies(frozenset(), frozenset())
        desired, _ = self._servable(desired, proxies)
        outline = await self._outliner.take(desired)
        if outline is self._restarter.unfit:
            raise BalancerError("HAProxy did not start with this configuration; the one before it stays")
        await self._keyring.store(remove=False)
        await self._files.write(await joined(config_pieces(desired, outline)), outline.maps)

    async def close(self) -> None:
        """Close the connections; routes and servers stay."""
        self._socket.forget()
        self._onlooker.forget()

    async def _move(self, desired: Desired, backends: Set[str] | None, *, remove: bool) -> Applied:
        everything = backends is None or self._known is None
        known = self._known = self._known or await self._look()
        desired, failed = self._servable(desired, known.proxies)
        outline = await self._outliner.take(desired)
        names = backends or frozenset()
        some = [desired.backends[name] for name in names if name in desired.backends]
        rest = (names - desired.backends.keys()) if names else frozenset()
        orphaned = known.proxies.backends - outline.backends if rest else frozenset()
        if everything or not rest <= orphaned or any(backend_name(b) not in outline.backends for b in some):
            everything, known.settled = True, None
            chosen = [*places(desired.backends.values(), known.proxies), *left_over(outline, known.proxies)]
        else:
            chosen = [*places(some, known.proxies), *((name, None) for name in rest)]
        failed |= self._keyring.refused
        changes, surplus = await move_servers(self._socket, chosen, failed)
        if known.settled is not outline:
            changes += await self._keyring.load(self._socket, failed, remove=remove)
        waiting: frozenset[str] = frozenset()
        if known.lacks(outline):
            absent = self._absent(desired, outline, known.proxies)
            if remove and self._restarter.ready:
                if await self._reshape(desired, outline, absent, failed):
                    done = await self._move(desired, None, remove=remove)
                    return replace(done, changes=done.changes + changes + 1, failed={**failed, **done.failed})
            else:
                waiting = absent
            surplus = [found for found in surplus if found.backend is not None]  # routes may still lead to others
        elif known.settled is not outline:
            changes += await move_maps(self._socket, outline.maps, remove=remove)
            if everything and remove:
                await self._keep(desired, outline, failed)
            known.settled = outline if remove else None
        gone, busy = await send_home(self._socket, surplus) if remove else (0, frozenset())
        return Applied(changes + gone, failed, waiting | busy)

    async def _look(self) -> _Known:
        """Learn which proxies the process has: once for each process."""
        process = await self._socket.process()
        if process.release < OLDEST:
            oldest = ".".join(str(number) for number in OLDEST)
            raise BalancerError(
                f"HAProxy {process.version} is too old",
                f"servers can be added while it runs since {oldest}",
                f"install HAProxy {oldest} or newer",
            )
        return _Known(process, await read_proxies(self._socket))

    def _servable(self, desired: Desired, proxies: Proxies) -> tuple[Desired, dict[str, str]]:
        """Leave out TCP routes whose port another program has; return the rest, and by backend what was wrong.

        HAProxy must not meet such a port: while a new process tries to bind it, the old one stops listening.
        """
        if self._free is not None and self._free[0] is desired.tcp_routes and self._free[1] is proxies:
            return desired, {}
        held = {name.partition(":")[0] for name in proxies.frontends}
        wrong = {
            route: why
            for route in desired.tcp_routes
            if tcp_frontend(route) not in held and (why := taken(self._settings.tcp_address, route.port))
        }
        if not wrong:
            self._free = desired.tcp_routes, proxies
            return desired, {}
        rest = tuple(route for route in desired.tcp_routes if route not in wrong)
        return replace(desired, tcp_routes=rest), {route.backend: why for route, why in wrong.items()}

    def _absent(self, desired: Desired, outline: Shape, proxies: Proxies) -> frozenset[str]:
        """Return what waits for a reload: backends, or else the frontends."""
        if outline.backends <= proxies.backends:
            return frozenset((_FRONTENDS,))
        return frozenset(b.id for b in desired.backends.values() if backend_name(b) not in proxies.backends)

    async def _reshape(self, desired: Desired, outline: Shape, absent: Set[str], failed: dict[str, str]) -> bool:
        """Reload and look who came; where that fails, say so of those that wait for it."""
        try:
            text = await joined(config_pieces(desired, outline))
            await self._restarter.restart(self._socket, text, outline)
            known = self._known = await self._look()
            if known.lacks(outline):
                raise BalancerError("HAProxy does not have what our file says", "does it read the file?")
        except BalancerError as error:
            failed.update(dict.fromkeys(absent, error.summary))
            self._restarter.failed()
            return False
        self._restarter.succeeded()
        return True

    async def _keep(self, desired: Desired, outline: Shape, failed: dict[str, str]) -> None:
        """Write down what the next start needs, where it is not there."""
        try:
            await self._files.write(await joined(config_pieces(desired, outline)), outline.maps)
        except (BalancerError, OSError) as error:
            failed[_FILE] = str(error)


def _differences(old: str, new: str, path: Path) -> list[str]:
    return list(difflib.unified_diff(old.splitlines(), new.splitlines(), str(path), f"{path} (new)", n=1, lineterm=""))
