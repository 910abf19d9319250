"""What a HAProxy has, beside what it is to have → commands of the runtime API. Pure.

Source: https://docs.haproxy.org/2.6/management.html#9.3 (`add server`, `set server`, `show servers state`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.registrator.balancers.haproxy.config import (
    OWNER,
    backend_name,
    host_port,
    map_text,
    server_name,
    server_options,
)
from coupler.registrator.model import Backend, Endpoint, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from coupler.registrator.model import Desired

_FORCED_MAINT, _FORCED_DRAIN = 0x01, 0x08
_CHECK_ENABLED = 0x04
_LARGEST_PAYLOAD = 12_000  # bytes; a command and its payload share a buffer of 16,384


@dataclass(frozen=True, slots=True)
class Server:
    """A server as HAProxy has it."""

    address: str
    port: int
    state: State
    weight: int
    checked: bool


def parse_servers(text: str) -> dict[str, dict[str, Server]]:
    """Return the servers in an answer to `show servers state`, by backend and name."""
    servers: dict[str, dict[str, Server]] = {}
    columns: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if line.startswith("# "):
            columns = {name: place for place, name in enumerate(words[1:])}
        elif len(words) == len(columns):
            row = {name: words[place] for name, place in columns.items()}
            servers.setdefault(row["be_name"], {})[row["srv_name"]] = _server(row)
    return servers


def _server(row: Mapping[str, str]) -> Server:
    admin = int(row["srv_admin_state"])
    state = State.DOWN if admin & _FORCED_MAINT else State.DRAIN if admin & _FORCED_DRAIN else State.READY
    checked = bool(int(row["srv_check_state"]) & _CHECK_ENABLED)
    return Server(row["srv_addr"], int(row["srv_port"]), state, int(row["srv_uweight"]), checked)


@dataclass(frozen=True, slots=True)
class Proxies:
    """The frontends and backends of ours that a process has: for as long as it lives, these."""

    frontends: frozenset[str]
    backends: frozenset[str]


def parse_proxies(text: str) -> Proxies:
    """Return what an answer to `show stat -1 3 -1` names that is ours."""
    rows = [line.split(",", 2)[:2] for line in text.splitlines() if line.startswith(OWNER)]
    return Proxies(
        frozenset(name for name, kind in rows if kind == "FRONTEND"),
        frozenset(name for name, kind in rows if kind == "BACKEND"),
    )


def parse_map(text: str) -> dict[str, str]:
    """Return the entries in an answer to `show map`."""
    entries = (line.split(" ", 2) for line in text.splitlines() if line)
    return {words[1]: words[2] for words in entries if len(words) == len(("address", "key", "value"))}


def upserts(backend: Backend, observed: Mapping[str, Server]) -> list[str]:
    """Return the commands after which every endpoint of `backend` is a server in the state that it should have."""
    commands: list[str] = []
    for endpoint in backend.endpoints:
        commands += _upsert(f"{backend_name(backend)}/{server_name(endpoint)}", endpoint, backend, observed)
    return commands


def _upsert(path: str, endpoint: Endpoint, backend: Backend, observed: Mapping[str, Server]) -> list[str]:
    server = observed.get(server_name(endpoint))
    commands: list[str] = []
    if server is None:
        commands.append(f"add server {path} {host_port(endpoint)} weight {endpoint.weight} {server_options(backend)}")
        server = Server(endpoint.address, endpoint.port, State.DOWN, endpoint.weight, checked=False)
    if (server.address, server.port) != (endpoint.address, endpoint.port):
        commands.append(f"set server {path} addr {endpoint.address} port {endpoint.port}")
    if server.weight != endpoint.weight:
        commands.append(f"set server {path} weight {endpoint.weight}")
    if backend.policy.check_path and not server.checked:
        commands.append(f"enable health {path}")
    if server.state is not endpoint.state:
        commands.append(f"set server {path} state {'maint' if endpoint.state is State.DOWN else endpoint.state}")
    return commands


def _surplus(wanted: Iterable[Endpoint], observed: Mapping[str, Server]) -> list[str]:
    """Return the names of servers of ours that are no endpoint any more. What does not bear our mark stays."""
    names = {server_name(endpoint) for endpoint in wanted}
    return [name for name in observed if name.startswith(OWNER) and name not in names]


def refused(command: str, answer: str) -> bool:
    """Return whether HAProxy did not do as it was told."""
    if command.startswith("add server"):
        return not answer.startswith("New server registered")
    if command.startswith("del server"):
        return not answer.startswith(("Server deleted", "No such server"))
    return bool(answer.strip("+ ")) and "changed" not in answer and "no need to change" not in answer


def orphans(desired: Desired, servers: Mapping[str, Mapping[str, Server]]) -> list[tuple[str, str]]:
    """Return (backend, server) of ours that nothing wants; backends without our mark are not looked at."""
    wanted = {backend_name(backend): backend.endpoints for backend in desired.backends.values()}
    return [
        (name, server)
        for name, members in servers.items()
        if name.startswith(OWNER)
        for server in _surplus(wanted.get(name, ()), members)
    ]


def map_fills(path: Path, version: str, entries: Mapping[str, str]) -> list[str]:
    """Return the commands that fill a version of a map: payloads that fit into HAProxy's buffer."""
    fills: list[str] = []
    lines: list[str] = []
    size = 0
    for line in map_text(entries).splitlines(keepends=True):
        if size + len(line) > _LARGEST_PAYLOAD:
            fills.append(f"add map @{version} {path} <<\n{''.join(lines)}")
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    return [*fills, f"add map @{version} {path} <<\n{''.join(lines)}"] if lines else fills
