"""What a HAProxy has, beside what it is to have → commands of the runtime API. Pure.

Source: https://docs.haproxy.org/2.6/management.html#9.3 (`add server`, `set server`, `show servers state`).
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

from coupler.registrator.balancers.haproxy.config import (
    OWNER,
    backend_name,
    host_port,
    server_name,
    servers_of,
)
from coupler.registrator.balancers.haproxy.policy import server_options
from coupler.registrator.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from coupler.registrator.balancers.haproxy.config import Shape
    from coupler.registrator.model import Backend, Endpoint

_FORCED_MAINT, _FORCED_DRAIN = 0x01, 0x08
_CHECK_ENABLED = 0x04


@dataclass(frozen=True, slots=True)
class Server:
    """A server as HAProxy has it."""

    address: str
    port: int
    state: State
    weight: int
    checked: bool


_COLUMNS = ("be_name", "srv_name", "srv_addr", "srv_port", "srv_admin_state", "srv_uweight", "srv_check_state")


class ServerTable:
    """Reads an answer to `show servers state` line by line, and remembers what its columns are."""

    def __init__(self) -> None:
        self._pick: Callable[[list[str]], tuple[str, ...]] | None = None
        self._width = 0
        self.servers: dict[str, dict[str, Server]] = {}

    def add(self, line: str) -> None:
        """Take a line in; what is no line of a server is passed over."""
        words = line.split()
        if line.startswith("# "):
            self._width = len(words) - 1
            self._pick = itemgetter(*(words.index(name) - 1 for name in _COLUMNS))
        elif self._pick is not None and len(words) == self._width:
            backend, name, address, port, admin, weight, check = self._pick(words)
            flags = int(admin)
            state = State.DOWN if flags & _FORCED_MAINT else State.DRAIN if flags & _FORCED_DRAIN else State.READY
            server = Server(address, int(port), state, int(weight), checked=bool(int(check) & _CHECK_ENABLED))
            self.servers.setdefault(backend, {})[name] = server


def parse_servers(text: str) -> dict[str, dict[str, Server]]:
    """Return the servers in an answer to `show servers state`, by backend and name."""
    table = ServerTable()
    for line in text.splitlines():
        table.add(line)
    return table.servers


@dataclass(frozen=True, slots=True)
class Proxies:
    """The frontends and backends of ours that a process has: for as long as it lives, these."""

    frontends: frozenset[str]
    backends: frozenset[str]

    def lack(self, outline: Shape) -> bool:
        """Whether a backend of `outline` is missing, or a frontend is another one."""
        return outline.frontends != self.frontends or not outline.backends <= self.backends


def parse_proxies(backends: str, frontends: str) -> Proxies:
    """Return what answers to `show backend` and to `show stat -1 1 -1` (frontends alone) name that is ours."""
    names = (line.partition(",")[0] for line in frontends.splitlines())
    return Proxies(
        frozenset(name for name in names if name.startswith(OWNER)),
        frozenset(name for name in backends.splitlines() if name.startswith(OWNER)),
    )


def moves(backend: Backend, observed: dict[str, Server]) -> Iterator[list[str]]:
    """Return for each endpoint the commands after which it is a server in the state that it should have.

    What was looked at is taken out of `observed`: what stays there is wanted no more, or is somebody else's.
    """
    name, options = backend_name(backend), server_options(backend)
    checked = bool(backend.policy.check_path)
    for endpoint in servers_of(backend):
        server = server_name(endpoint)
        yield _upsert(f"{name}/{server}", endpoint, observed.pop(server, None), options, checked=checked)


def _upsert(path: str, endpoint: Endpoint, server: Server | None, options: str, *, checked: bool) -> list[str]:
    commands: list[str] = []
    if server is None:
        commands.append(f"add server {path} {host_port(endpoint)} weight {endpoint.weight} {options}")
        server = Server(endpoint.address, endpoint.port, State.DOWN, endpoint.weight, checked=False)
    if (server.address, server.port) != (endpoint.address, endpoint.port):
        commands.append(f"set server {path} addr {endpoint.address} port {endpoint.port}")
    if server.weight != endpoint.weight:
        commands.append(f"set server {path} weight {endpoint.weight}")
    if checked and not server.checked:
        commands.append(f"enable health {path}")
    if server.state is not endpoint.state:
        commands.append(f"set server {path} state {'maint' if endpoint.state is State.DOWN else endpoint.state}")
    return commands


def removals(name: str, servers: Iterable[str]) -> list[str]:
    """Return the commands that send servers of a backend home, two for each: no new requests; gone when idle."""
    return [
        command
        for server in servers
        for command in (f"set server {name}/{server} state maint", f"del server {name}/{server}")
    ]


def refused(command: str, answer: str) -> bool:
    """Return whether HAProxy did not do as it was told."""
    if command.startswith("add server"):
        return not answer.startswith("New server registered")
    if command.startswith("del server"):
        return not answer.startswith(("Server deleted", "No such server"))
    return bool(answer.strip("+ ")) and "changed" not in answer and "no need to change" not in answer
