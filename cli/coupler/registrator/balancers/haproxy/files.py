"""HAProxy's files and its reload: written atomically, checked first, put back where a reload fails."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from coupler.registrator.balancers import BalancerError
from coupler.registrator.balancers.haproxy.config import map_text
from coupler.registrator.balancers.system import replace_file, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RELOAD_SECONDS = 30.0


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
        code, output = await run(argv)
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
                await asyncio.to_thread(replace_file, path, map_text(entries))
            if text == self.current():
                return
            with tempfile.TemporaryDirectory(prefix="coupler-") as folder:
                candidate = Path(folder) / self.config.name
                candidate.write_text(text)
                files = [word for file in (*self._base, candidate) for word in ("-f", str(file))]
                code, output = await run([self._program, "-c", *files])
            if code:
                raise BalancerError("HAProxy refuses the configuration; the one before it stays", output)
            await asyncio.to_thread(replace_file, self.config, text)

    def restore(self, text: str | None) -> None:
        """Put our file back as it was before."""
        if text is None:
            self.config.unlink(missing_ok=True)
        else:
            replace_file(self.config, text)
