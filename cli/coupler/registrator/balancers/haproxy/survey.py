"""The servers that HAProxy has beside those that it should have: read a few backends at a time, others between.

It is what a move, a plan and the search for drift have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.registrator.balancers.haproxy.config import OWNER, backend_name
from coupler.registrator.balancers.haproxy.pace import Pace
from coupler.registrator.balancers.haproxy.servers import Proxies, ServerTable, moves, parse_proxies, refused, removals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from coupler.registrator.balancers.haproxy.config import Shape
    from coupler.registrator.balancers.haproxy.keyring import Asks
    from coupler.registrator.model import Backend

_AT_ONCE = 20
_COMMANDS_AT_ONCE = 400


@dataclass(frozen=True, slots=True)
class Found:
    """A backend of HAProxy: whose it is (None: nobody's any more), what moves it, servers of ours that are too many."""

    name: str
    backend: Backend | None
    commands: list[str]
    surplus: list[str]

    @property
    def id(self) -> str:
        """Return the name by which `apply` looks at it again."""
        return self.backend.id if self.backend is not None else self.name


async def read_proxies(socket: Asks) -> Proxies:
    """Return the proxies of ours that the process has."""
    backends, frontends = await socket.ask(["show backend", "show stat -1 1 -1"])
    return parse_proxies(backends, frontends)


def places(backends: Iterable[Backend], proxies: Proxies) -> list[tuple[str, Backend | None]]:
    """Return these backends with their names, as far as the process has them."""
    named = ((backend_name(backend), backend) for backend in backends)
    return [(name, backend) for name, backend in named if name in proxies.backends]


def left_over(outline: Shape, proxies: Proxies) -> list[tuple[str, Backend | None]]:
    """Return the names of backends of ours that nothing wants any more; they go with the next reload."""
    return [(name, None) for name in sorted(proxies.backends - outline.backends)]


async def survey(socket: Asks, wanted: Sequence[tuple[str, Backend | None]]) -> AsyncIterator[Found]:
    """Return one backend after another."""
    pace = Pace()
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        answers = await socket.ask([f"show servers state {name}" for name, _ in some])
        for (name, backend), answer in zip(some, answers, strict=True):
            yield await _compare(name, backend, answer, pace)


async def _compare(name: str, backend: Backend | None, answer: str, pace: Pace) -> Found:
    table = ServerTable()
    for line in answer.splitlines():
        table.add(line)
        await pace.breathe()
    observed = table.servers.get(name, {})
    commands: list[str] = []
    if backend is not None:
        for some in moves(backend, observed):
            commands += some
            await pace.breathe()
    return Found(name, backend, commands, [server for server in observed if server.startswith(OWNER)])


async def move_servers(
    socket: Asks, wanted: Sequence[tuple[str, Backend | None]], failed: dict[str, str]
) -> tuple[int, list[Found]]:
    """Add and change servers; return how many commands it took, and the backends that have too many.

    What HAProxy refuses is noted in `failed`, by backend.
    """
    surplus: list[Found] = []
    queue: list[tuple[str, str]] = []
    done = 0
    async for found in survey(socket, wanted):
        queue += [(found.id, command) for command in found.commands]
        if found.surplus:
            surplus.append(found)
        if len(queue) >= _COMMANDS_AT_ONCE:
            done += await _carry_out(socket, queue, failed)
            queue = []
    return done + await _carry_out(socket, queue, failed), surplus


async def _carry_out(socket: Asks, queue: Sequence[tuple[str, str]], failed: dict[str, str]) -> int:
    answers = await socket.ask([command for _, command in queue])
    for (backend_id, command), answer in zip(queue, answers, strict=True):
        if refused(command, answer):
            failed.setdefault(backend_id, f"{command}: {answer}")
    return len(queue)


async def send_home(socket: Asks, surplus: Iterable[Found]) -> tuple[int, frozenset[str]]:
    """Delete the servers that are too many; return how many went, and the backends where some are busy still."""
    leaving = [(found, server) for found in surplus for server in found.surplus]
    commands = [command for found, server in leaving for command in removals(found.name, [server])]
    answers = (await socket.ask(commands))[1::2]
    busy = [found.id for (found, _), answer in zip(leaving, answers, strict=True) if refused("del server", answer)]
    return len(leaving) - len(busy), frozenset(busy)
