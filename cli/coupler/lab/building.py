"""What is built once and kept: under a hash of all that goes into it, whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.errors import CouplerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Tell = Callable[[str], None]
"""Takes one line that says what is being done."""

_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--")
_SOURCES = Path(__file__).resolve().parents[2]


def contents(folder: Path, pattern: str) -> Iterator[bytes]:
    """Yield name and content of each file in `folder` and below that matches, in the order of their names."""
    for path in sorted(folder.rglob(pattern)):
        if path.is_file():
            yield str(path.relative_to(folder)).encode()
            yield path.read_bytes()


def versions(*distributions: str) -> Iterator[bytes]:
    """Yield the version of Python and of each of the installed distributions."""
    yield sys.version.encode()
    for distribution in distributions:
        try:
            yield version(distribution).encode()
        except PackageNotFoundError:
            yield b"missing"


def hash_of(parts: Iterable[bytes]) -> str:
    """Return a short name for a sequence of parts."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


@contextmanager
def building(cache: Path) -> Iterator[None]:
    """Hold the right to build; whatever an interrupted build left is cleared away first."""
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in cache.glob(".build-*"):
            shutil.rmtree(leftover)
        yield


def build(target: Path, fill: Callable[[Path, Path], None]) -> None:
    """Let `fill` fill a folder and give it its name at the end; the log of a build that failed is kept."""
    log = target.parent / f"{target.name}.log"
    draft = Path(tempfile.mkdtemp(prefix=".build-", dir=target.parent))
    try:
        draft.chmod(0o755)
        fill(draft, log)
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    log.unlink(missing_ok=True)


def freeze(name: str, entry: str, folder: Path, log: Path, *, without: Sequence[str] = ()) -> None:
    """Build a program that needs no Python into `folder`/`name`, by PyInstaller. `entry` is its main module's text.

    The same sources make the same bytes. `without` are modules that libraries would use if they were there.
    """
    with tempfile.TemporaryDirectory(dir=folder) as work:
        script = Path(work, f"{name}.py")
        script.write_text(entry)
        run(
            [
                *("env", "SOURCE_DATE_EPOCH=0", "PYTHONHASHSEED=0"),
                *(sys.executable, "-m", "PyInstaller", "--onedir", "--noconfirm", "--strip", "--log-level=WARN"),
                *(f"--name={name}", f"--paths={_SOURCES}", f"--distpath={folder}"),
                *(f"--exclude-module={module}" for module in without),
                *(f"--workpath={work}/work", f"--specpath={work}", str(script)),
            ],
            log,
        )


def run(argv: list[str], log: Path) -> None:
    """Run a build. Root does so in namespaces of its own: nothing outlives this process, or stays mounted."""
    isolated = ["setpriv", "--pdeathsig=KILL", *(_NAMESPACES if os.geteuid() == 0 else ()), *argv]
    with log.open("wb") as stream:
        code = subprocess.run(isolated, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, check=False).returncode
    if code:
        lines = log.read_text(errors="replace").splitlines()
        raise CouplerError(
            "a build for the lab failed",
            why="\n".join(lines[-5:]) or f"the build ended with status {code}",
            next_step="cluster doctor shows what this machine lacks; then run the same command again",
            log=str(log),
        )
