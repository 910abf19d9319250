"""HAProxy's files and its reload: written atomically, checked first, put back where a reload fails."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.haproxy.config import map_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CHECK_SECONDS, _RELOAD_SECONDS = 30.0, 30.0


class Reload(Protocol):
    """A way to make HAProxy read its files anew without losing a connection."""

    async def __call__(self, pid: int) -> None:
        """Ask for it; `pid` is the process that serves now. Raises BalancerError."""


@dataclass(frozen=True, slots=True)
class MasterReload:
    """Through the socket of a master process (`haproxy -W -S PATH`): the way under systemd."""

    socket: Path

    async def __call__(self, pid: int) -> None:  # noqa: ARG002 -- the master knows its workers
        """Ask the master; whether it worked shows when a new process answers."""
        try:
            async with asyncio.timeout(_RELOAD_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self.socket)
                writer.write(b"reload\n")
                await reader.read()
                writer.close()
        except (OSError, TimeoutError) as error:
            raise BalancerError(f"HAProxy's master does not answer on {self.socket}", str(error)) from error


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
        code, output = await _run(argv)
        if code:
            raise BalancerError("HAProxy's successor did not start", output)


class Files:
    """Our configuration file and its maps. `base` are the user's own files, which HAProxy reads before ours."""

    def __init__(self, config: Path, base: Sequence[Path], program: str) -> None:
        self.config = config
        self._base = tuple(base)
        self._program = program
        self._one_at_a_time = asyncio.Lock()

    def current(self) -> str | None:
        """Return our file as it lies there."""
        return self.config.read_text() if self.config.exists() else None

    async def write(self, text: str, maps: Mapping[Path, Mapping[str, str]]) -> None:
        """Put file and maps in place if HAProxy accepts them. Raises BalancerError; then the file is as before."""
        async with self._one_at_a_time:
            for path, entries in maps.items():
                await asyncio.to_thread(_replace, path, map_text(entries))
            if text == self.current():
                return
            with tempfile.TemporaryDirectory(prefix="coupler-") as folder:
                candidate = Path(folder) / self.config.name
                candidate.write_text(text)
                files = [word for file in (*self._base, candidate) for word in ("-f", str(file))]
                code, output = await _run([self._program, "-c", *files])
            if code:
                raise BalancerError("HAProxy refuses the configuration; the one before it stays", output)
            await asyncio.to_thread(_replace, self.config, text)

    def restore(self, text: str | None) -> None:
        """Put our file back as it was before."""
        if text is None:
            self.config.unlink(missing_ok=True)
        else:
            _replace(self.config, text)


def taken(address: str, port: int) -> str | None:
    """Return why HAProxy could not listen there (`*`: on every IPv4 address); None if it could."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("" if address == "*" else address, port))
    except OSError as error:
        return f"cannot listen on {address}:{port}: {error.strerror}"
    return None


def _replace(path: Path, text: str) -> None:
    if path.exists() and path.read_text() == text:
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


async def _run(argv: Sequence[str]) -> tuple[int, str]:
    """Run a program; return its exit code and what it said. Where it hangs, it is killed and counts as failed."""
    with tempfile.TemporaryFile() as output:  # a daemon keeps its standard error open: a pipe would never end
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
            )
        except OSError as error:
            return 1, f"{argv[0]}: {error.strerror}"
        try:
            code = await asyncio.wait_for(process.wait(), _CHECK_SECONDS)
        except TimeoutError:
            code = 1
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        output.seek(0)
        return code, output.read().decode("utf-8", "replace").strip()
