"""The file system of a node, and the interface to everything else on it.

A node is the running machine (`live.Machine`) or a scratch root in a folder (`scratch.ScratchRoot`). Paths given to
its methods are the node's own. Errors are worded as the real programs word them.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coupler.cloudinit.golang import directory_of, join_path, quote, to_bytes

_MAX_LINKS = 40
MAX_NAME, MAX_PATH = 255, 4096
"""Bytes of a file's name, and of a path with the NUL at its end, that Linux takes."""

_NULL = "/dev/null"
_INT32 = range(-(2**31), 2**31)
_GO_SPECIAL_BITS = {23: stat.S_ISUID, 22: stat.S_ISGID, 20: stat.S_ISVTX}


class NodeError(Exception):
    """Something on the node failed, and with it the rest of the document; the text is the real program's."""


@dataclass(frozen=True)
class Outcome:
    """How a helper program ended."""

    exit_code: int
    output: str = ""


class Node(Protocol):
    """What applying a document needs of a node."""

    files: Files

    def hostname(self) -> str:
        """Return the host's name as the kernel has it."""

    def has_user(self, name: str) -> bool:
        """Return whether there is a user of that name."""

    def call(self, argv: list[str], stdin: str = "") -> Outcome:
        """Run a helper program."""

    def fetch(self, url: str) -> bytes:
        """Return what a URL serves. Raises NodeError."""

    def enable(self, unit: str, *, runtime: bool) -> None:
        """Enable a unit file. Raises NodeError."""

    def daemon_reload(self) -> None:
        """Make systemd read its unit files again. Raises NodeError."""

    def job(self, command: str, unit: str) -> str:
        """Run a unit command, wait, return the job's result. Raises NodeError where systemd refuses the call."""

    def transient(self, unit: str, description: str, argv: list[str]) -> None:
        """Start a transient service. Raises NodeError."""


class Files:
    """Files below a root. In a root other than / symbolic links are followed as they would be there: never out of it.

    `durable` syncs a file to disk before it takes its place. `read_only` are folders that refuse changes, as the
    kernel of a real node would.
    """

    def __init__(self, root: Path, *, durable: bool, read_only: tuple[str, ...] = ()) -> None:
        self.root = root
        self.durable = durable
        self.read_only = read_only

    def real(self, path: str, *, follow: bool = True) -> Path:
        """Return the place of a node's path on this machine; `follow` decides about a link at its very end."""
        return self.root / self.resolve(path, follow=follow).lstrip("/")

    def resolve(self, path: str, *, follow: bool = True) -> str:
        """Return a node's path without symbolic links. Raises NodeError for one that no file system takes."""
        _refuse_impossible(path)
        if self.root == Path("/"):
            return path
        pending = [part for part in path.split("/") if part]
        done: list[str] = []
        links = 0
        while pending:
            part = pending.pop(0)
            if part in (".", ".."):
                del done[len(done) - (part == "..") :]
                continue
            place = self.root.joinpath(*done, part)
            if (follow or pending) and place.is_symlink() and (links := links + 1) <= _MAX_LINKS:
                target = str(place.readlink())
                done = [] if target.startswith("/") else done
                pending = [piece for piece in target.split("/") if piece] + pending
            else:
                done.append(part)
        return "/" + "/".join(done)

    def read(self, path: str) -> bytes:
        """Return a file's bytes. Raises FileNotFoundError, NodeError for any other problem."""
        try:
            return self.real(path).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise NodeError(_problem("open", path, error)) from error

    def exists(self, path: str) -> bool:
        """Return whether something is there, at the end of any links."""
        return self.resolve(path) == _NULL or self.real(path).exists()

    def is_link_or_file(self, path: str) -> bool:
        """Return whether something is there, a dangling link included."""
        place = self.real(path, follow=False)
        return place.is_symlink() or place.exists()

    def is_null_or_empty(self, path: str) -> bool:
        """Return whether a path leads to an empty file or to a device such as /dev/null."""
        if self.resolve(path) == _NULL:
            return True
        mode = self.real(path).stat()
        return (stat.S_ISREG(mode.st_mode) and mode.st_size == 0) or stat.S_ISCHR(mode.st_mode)

    def make_directory(self, path: str) -> None:
        """Make a directory and its parents with mode 0755 if it is not there. Raises NodeError."""
        place = self.real(path)
        if place.exists() and not place.is_dir():
            raise NodeError(f"{path} is not a directory")
        missing = [path]
        while not self.real(missing[-1]).is_dir():
            missing.append(directory_of(missing[-1]))
        for folder in reversed(missing[:-1]):
            self._refuse_read_only("mkdir", folder)
            try:
                self.real(folder, follow=False).mkdir(mode=0o755)
            except OSError as error:
                reason = "not a directory" if self.real(folder).is_file() else _reason(error)
                raise NodeError(f"mkdir {folder}: {reason}") from error

    def temporary(self, folder: str, prefix: str) -> str:
        """Make an empty file of a new name and mode 0600 in a folder and return its path. Raises NodeError."""
        path = join_path(folder, f"{prefix}{secrets.randbelow(10**9):09}")
        self._refuse_read_only("open", path)
        try:
            os.close(os.open(self.real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            raise NodeError(_problem("open", path, error)) from error
        return path

    def fill(self, path: str, content: bytes, mode: int) -> None:
        """Write an existing file's bytes and mode. Raises NodeError."""
        try:
            with self.real(path).open("wb") as file:
                file.write(content)
                if self.durable:
                    file.flush()
                    os.fsync(file.fileno())
            self.real(path).chmod(mode)
        except OSError as error:
            raise NodeError(_problem("write", path, error)) from error

    def rename(self, source: str, target: str) -> None:
        """Move a file over another; the target's own link is replaced, not followed. Raises NodeError."""
        place = self.real(target, follow=False)
        try:
            if place.is_dir() and not place.is_symlink():
                raise FileExistsError(17, "File exists")
            self.real(source).rename(place)
        except OSError as error:
            raise NodeError(f"rename {source} {target}: {_reason(error)}") from error

    def remove(self, path: str) -> None:
        """Remove a file, a link, or an empty directory. Raises NodeError."""
        place = self.real(path, follow=False)
        try:
            if place.is_dir() and not place.is_symlink():
                place.rmdir()
            else:
                place.unlink()
        except OSError as error:
            raise NodeError(_problem("remove", path, error)) from error

    def link(self, target: str, path: str, *, force: bool = False) -> None:
        """Make a symbolic link at `path`, with its parents; `force` replaces a link that is there. Raises NodeError."""
        self.make_directory(directory_of(path))
        place = self.real(path, follow=False)
        try:
            if force and place.is_symlink():
                place.unlink()
            place.symlink_to(target)
        except OSError as error:
            raise NodeError(f"symlink {target} {path}: {_reason(error)}") from error

    def _refuse_read_only(self, verb: str, path: str) -> None:
        place = self.resolve(path)
        if any(place == folder or place.startswith(f"{folder}/") for folder in self.read_only):
            raise NodeError(f"{verb} {path}: read-only file system")


def _refuse_impossible(path: str) -> None:
    """Raise NodeError for a path that would not even get as far as the file system."""
    if "\0" in path:
        raise NodeError(f"open {path}: invalid argument")
    if len(to_bytes(path)) >= MAX_PATH or any(len(to_bytes(name)) > MAX_NAME for name in path.split("/")):
        raise NodeError(f"open {path}: file name too long")


def parse_mode(permissions: str) -> int:
    """Return the mode of octal text, 0644 for none.

    The real program takes the number for one of Go's own modes. The usual special bits (04000 …) mean nothing there and
    are lost; those that do mean something stand higher, where only an absurd or negative number has them. Raises
    NodeError for text that is no octal number of 32 bits, `0o644` and blanks included.
    """
    if not permissions:
        return 0o644
    digits = permissions[1:] if permissions[0] in "+-" else permissions
    if not digits or set(digits) - set("01234567") or int(permissions, 8) not in _INT32:
        raise NodeError(f"Unable to parse file permissions {quote(permissions)} as integer")
    number = int(permissions, 8)
    return number & 0o777 | sum(bit for shift, bit in _GO_SPECIAL_BITS.items() if number >> shift & 1)


def _problem(verb: str, path: str, error: OSError) -> str:
    return f"{verb} {path}: {_reason(error)}"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
