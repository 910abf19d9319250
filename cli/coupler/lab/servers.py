"""What the host serves on a lab's bridge: the git repository and the mirror."""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.errors import CouplerError
from coupler.lab.processes import Process, start_gated, wait_until
from coupler.mirror import fileserver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coupler.lab.network import Network

MIRROR_PORT = 8080
_FILESERVER = Path(fileserver.__file__).resolve()
_START_SECONDS = 20


@dataclass(frozen=True)
class Server:
    """One detached server on the bridge: what it is, the command that runs it, where it listens, where it is noted."""

    name: str
    argv: tuple[str, ...]
    address: tuple[str, int]
    folder: Path

    @property
    def log(self) -> Path:
        """The file that has what the server says."""
        return self.folder / "log" / f"{self.name}.log"

    @property
    def _record(self) -> Path:
        return self.folder / "run" / f"{self.name}.server"

    def runs(self) -> bool:
        """Whether the server runs."""
        process = Process.load(self._record)
        return process is not None and process.alive()

    def start(self) -> None:
        """Start the server where it does not run; it may take a moment until it listens."""
        if not self.runs():
            self.stop()  # what a server that died left: a child that still listens
            gate = start_gated(self.argv, self.log)
            try:
                gate.wait_at_gate().save(self._record)
                gate.release()
            finally:
                gate.close()

    def stop(self) -> None:
        """Stop the server with all its children, where it runs."""
        process = Process.load(self._record)
        if process:
            process.kill_group()
        self._record.unlink(missing_ok=True)

    def listens(self) -> bool:
        """Whether a connection is accepted."""
        try:
            socket.create_connection(self.address, timeout=1).close()
        except OSError:
            return False
        return True


def git_server(folder: Path, network: Network, repositories: Path) -> Server:
    """Return the git daemon of the lab in `folder`; it hands out what lies in `repositories` and takes no pushes."""
    argv = (
        *("git", "daemon", "--reuseaddr", "--export-all", "--informative-errors"),
        *(f"--base-path={repositories}", f"--listen={network.host}", str(repositories)),
    )
    return Server("git", argv, (str(network.host), 9418), folder)


def mirror_server(folder: Path, network: Network, files: Path) -> Server:
    """Return the HTTP server of the lab in `folder` for the mirror folder `files`."""
    # -I and -S: no site packages, so it is there within a moment.
    argv = (sys.executable, "-IS", str(_FILESERVER), str(network.host), str(MIRROR_PORT), str(files))
    return Server("mirror", argv, (str(network.host), MIRROR_PORT), folder)


def wait_for(servers: Iterable[Server]) -> None:
    """Wait until every one of `servers` listens.

    Raises:
        CouplerError: one does not; it quotes the server's log.
    """
    deadline = time.monotonic() + _START_SECONDS
    for server in servers:
        wait_until(lambda server=server: server.listens() or not server.runs(), deadline)  # type: ignore[misc]
        if not server.listens():
            host, port = server.address
            lines = server.log.read_text(errors="replace").splitlines()[-3:]
            raise CouplerError(
                f"the lab's {server.name} server does not listen on {host}:{port}",
                why="\n".join(lines) or None,
                log=str(server.log),
            )
