"""What every local balancer needs of its machine: files put in place whole, programs run, ports looked at."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.registrator.balancers import BalancerError

if TYPE_CHECKING:
    from collections.abc import Sequence

_RUN_SECONDS = 30.0


def taken(address: str, port: int) -> str | None:
    """Return why nobody could listen there now (`*`: on every IPv4 address); None if somebody could."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("" if address == "*" else address, port))
    except OSError as error:
        return f"cannot listen on {address}:{port}: {error.strerror}"
    return None


def replace_file(path: Path, text: str, mode: int = 0o644) -> None:
    """Put a file in place at once and for good, unless it is so already: a reader sees the old text or the new one.

    Raises BalancerError where it cannot be written.
    """
    try:
        if path.exists() and path.read_text(errors="replace") == text and path.stat().st_mode & 0o777 == mode:
            return
        _replace(path, text, mode)
    except OSError as error:
        next_step = "does its folder exist, and may the registrator write there?"
        raise BalancerError(f"{path} cannot be written", error.strerror, next_step) from error


def _replace(path: Path, text: str, mode: int) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:200]}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


async def run(argv: Sequence[str]) -> tuple[int, str]:
    """Run a program; return its exit code and what it said. Where it hangs, it is killed and counts as failed."""
    with tempfile.TemporaryFile() as output:  # a daemon keeps its standard error open: a pipe would never end
        try:
            process = await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
            )
        except OSError as error:
            return 1, f"{argv[0]}: {error.strerror}"
        try:
            code = await asyncio.wait_for(process.wait(), _RUN_SECONDS)
        except TimeoutError:
            code = 1
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        output.seek(0)
        return code, output.read().decode("utf-8", "replace").strip()
