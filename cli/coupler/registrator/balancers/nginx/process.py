"""nginx as a process: who its master is, which workers serve, which generation of our files they run.

A master that is told to reload (SIGHUP, https://nginx.org/en/docs/control.html) starts new workers, and a tenth of a
second later lets the old ones finish: they take no new connection from then on, and change their title.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.registrator.balancers import BalancerError

if TYPE_CHECKING:
    from coupler.registrator.balancers.nginx.config import NginxSettings

_PROC = Path("/proc")
_MASTER, _WORKER, _LEAVING = (
    b"nginx: master process",
    b"nginx: worker process",
    b"nginx: worker process is shutting down",
)
_ANSWER_SECONDS = 2.0
_PARENT, _STARTED = 1, 19  # places in /proc/PID/stat behind the name (proc_pid_stat(5): fields 4 and 22)


def master(settings: NginxSettings) -> int | None:
    """Return the pid of the master; None where the file names none, or another program has that pid now."""
    try:
        pid = int(settings.pid_file.read_text())
    except (OSError, ValueError):
        return None
    return pid if _title(pid).startswith(_MASTER) else None


def started(pid: int) -> str | None:
    """Return when a process started, in ticks since the machine did; None if there is none."""
    fields = _stat(pid)
    return fields[_STARTED] if fields else None


def workers(pid: int) -> frozenset[int]:
    """Return the workers of a master that take connections."""
    parent = str(pid)
    children = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return frozenset(child for child in children if serves(child) and _stat(child)[_PARENT : _PARENT + 1] == [parent])


def serves(pid: int) -> bool:
    """Whether this is a worker that takes connections."""
    title = _title(pid)
    return title.startswith(_WORKER) and not title.startswith(_LEAVING)


def tell_to_reload(pid: int) -> None:
    """Have the master read its configuration. Raises BalancerError."""
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise BalancerError(f"nginx's master {pid} cannot be told to reload", error.strerror) from error


async def generation(settings: NginxSettings) -> str | None:
    """Return the generation that nginx says it runs; None without an answer."""
    address, _, port = settings.status.rpartition(":")
    writer = None
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await asyncio.open_connection(address.strip("[]"), int(port))
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                answer = await reader.read()
            return answer.rpartition(b"\r\n\r\n")[2].decode("ascii", "replace").strip()
        finally:
            if writer is not None:
                writer.close()
    return None


def _title(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes()
    return b""


def _stat(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return (_PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return []
