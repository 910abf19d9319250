"""Ways to make HAProxy read its files anew without losing a connection, and the wait for the process that comes."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.system import run

if TYPE_CHECKING:
    from pathlib import Path

    from coupler.registrator.balancers.haproxy.socket import Process, RuntimeSocket

_RELOAD_SECONDS = 30.0
_VERDICT = re.compile(r"^Success=([01])$", re.MULTILINE)


class Reload(Protocol):
    """A way to make HAProxy read its files anew without losing a connection."""

    async def __call__(self, pid: int) -> None:
        """Ask for it; `pid` is the process that serves now. Raises BalancerError."""


@dataclass(frozen=True, slots=True)
class MasterReload:
    """Through the socket of a master process (`haproxy -W -S PATH`): the way under systemd."""

    socket: Path

    async def __call__(self, pid: int) -> None:  # noqa: ARG002 -- the master knows its workers
        """Ask the master. Since 2.7 it says whether it worked; before, that shows when a new process answers."""
        try:
            async with asyncio.timeout(_RELOAD_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self.socket)
                answer = await _answer(reader, writer)
        except (OSError, TimeoutError) as error:
            raise BalancerError(f"HAProxy's master does not answer on {self.socket}", str(error)) from error
        if (why := reload_failure(answer)) is not None:
            raise BalancerError("HAProxy's master could not reload", why)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    try:
        writer.write(b"reload\n")
        return (await reader.read()).decode("utf-8", "replace")
    except ConnectionError:
        return ""  # cut off as the master became another program, which is what was asked
    finally:
        writer.close()


def reload_failure(answer: str) -> str | None:
    """Return what a master (2.7 and later) says of a reload that failed; None where it worked, or nothing is said.

    Source: https://docs.haproxy.org/2.7/management.html#9.4 (`reload`).
    """
    verdict = _VERDICT.search(answer)
    if verdict is None or verdict[1] == "1":
        return None
    return answer[verdict.end() :].strip().removeprefix("--").strip() or "it does not say why"


@dataclass(frozen=True, slots=True)
class SpawnReload:
    """Without a master: a new daemon takes over the sockets (`-x`) and lets the old one finish (`-sf`)."""

    program: str
    files: tuple[Path, ...]
    socket: Path

    async def __call__(self, pid: int) -> None:
        """Start the successor and wait until it serves."""
        files = [word for file in self.files for word in ("-f", str(file))]
        argv = [self.program, *files, "-D", "-x", str(self.socket), "-sf", str(pid)]
        code, output = await run(argv)
        if code:
            raise BalancerError("HAProxy's successor did not start", output)


async def successor(socket: RuntimeSocket, old: Process, patience: float) -> None:
    """Wait until another process than `old` answers, at most `patience` seconds. Raises BalancerError."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        socket.forget()
        try:
            process = await socket.process()
        except BalancerError:
            process = None  # between the two
        if process is not None and process.pid != old.pid and not process.stopping:
            return
        await asyncio.sleep(0.01)
    raise BalancerError("HAProxy was told to reload, and no new process came", "its own log says why")
