"""The folder `.coupler` beside cluster.yaml: keys, certificates, known hosts, the copy of the repository, logs."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.errors import CouplerError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Workspace:
    """Paths below `.coupler`. Everything in it is private to the operator; nothing of it goes to git."""

    root: Path

    @classmethod
    def beside(cls, cluster_file: Path) -> Workspace:
        """Return the workspace of a cluster.yaml."""
        return cls(cluster_file.resolve().parent / ".coupler")

    @property
    def pki(self) -> Path:
        """Authorities, certificates and keys."""
        return self.root / "pki"

    @property
    def known_hosts(self) -> Path:
        """The host keys of the nodes, in OpenSSH's format."""
        return self.root / "known_hosts"

    @property
    def repository(self) -> Path:
        """The bare copy of the cluster's git repository."""
        return self.root / "repository.git"

    @property
    def log(self) -> Path:
        """What Ansible said in the last run, for when something went wrong."""
        return self.root / "ansible.log"

    def prepare(self) -> None:
        """Make the folder, for the operator alone, and out of git's sight."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.root.stat().st_mode & 0o077:
            self.root.chmod(0o700)
        ignore = self.root / ".gitignore"
        if not ignore.exists():
            write(ignore, b"*\n", mode=0o600)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a private folder for one run, gone afterwards. What an interrupted run left is removed as well."""
        self.prepare()
        with self._lock():
            for left in self.root.glob("run-*"):
                shutil.rmtree(left, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.root))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Let one command work at a time; the kernel frees the lock of a process that is gone."""
        with (self.root / "lock").open("a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CouplerError(
                    "another `cluster` command is at work on this cluster",
                    why=f"it holds {file.name}",
                    next_step="wait until it has ended",
                ) from None
            yield


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all, with its mode from the first moment; a crash leaves the old one."""
    _make_folder(path.parent)
    draft = path.with_name(f".{path.name}.new")  # always this name: the next run takes what a killed one has left
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        draft.chmod(mode)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, each for the operator alone."""
    for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def read(path: Path) -> bytes | None:
    """Return a file's content, or None where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
