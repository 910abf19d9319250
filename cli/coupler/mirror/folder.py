"""A mirror's folder: NAME/VERSION/ARCH/FILE beside a SHA256SUMS that names every file, and `images` with its INDEX.

Nodes fetch what the two lists name, and take only bytes that have the listed checksum. So a file comes first, whole,
and its line after it: whenever a write ends, nobody is told of anything half. What begins with a dot is not there yet.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from coupler.errors import CouplerError
from coupler.files import write_whole
from coupler.mirror.programs import is_half
from coupler.model.files import SUMS, entry_of
from coupler.model.images import FOLDER, INDEX, MirroredImage, image_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Folder:
    """The folder of a mirror, which need not exist yet."""

    path: Path

    def checksums(self) -> dict[str, str]:
        """Return what SHA256SUMS says, path below the folder to checksum.

        Raises:
            CouplerError: a line of it is none.
        """
        sums = self.path / SUMS
        entries = {}
        for number, line in enumerate(_lines(sums), 1):
            entry = entry_of(line)
            if entry:
                entries[entry[0]] = entry[1]
            elif line:
                raise CouplerError(
                    f"{sums}, line {number}, is not `<sha256>  NAME/VERSION/ARCH/FILE`",
                    next_step=f"write it anew: cluster mirror verify --index --mirror {self.path}",
                )
        return entries

    def images(self) -> tuple[MirroredImage, ...]:
        """Return what the index of images says.

        Raises:
            CouplerError: a line of it is none.
        """
        index = self.path / FOLDER / INDEX
        images = []
        for number, line in enumerate(_lines(index), 1):
            image = image_of(line)
            if image:
                images.append(image)
            elif line:
                raise CouplerError(
                    f"{index}, line {number}, is not `<sha256> FILE.tar ARCH IMAGE…`",
                    next_step="delete the line and add the image anew: cluster mirror add-image",
                )
        return tuple(images)

    def files(self) -> dict[str, Path]:
        """Return the programs' files, path below the folder to path: what lies where programs lie, listed or not."""
        found = ((str(path.relative_to(self.path)), path) for path in self.path.glob("*/*/*/[!.]*") if path.is_file())
        return dict(sorted(found))

    def drafts(self) -> list[Path]:
        """Return what interrupted writes have left."""
        patterns = ("*/*/*/.*", f"{FOLDER}/.*")
        return sorted(path for pattern in patterns for path in self.path.glob(pattern) if path.is_file())

    def put(self, place: str, fill: Callable[[BinaryIO], None], mode: int) -> tuple[Path, str]:
        """Write the file at `place` whole or not at all, without listing it; return where it is, and its checksum.

        Raises:
            CouplerError: the folder cannot be written to.
        """
        target = self.path / place
        with self.writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            draft = Path(name)
            try:
                with os.fdopen(handle, "wb") as stream:
                    fill(stream)
                    stream.flush()
                    os.fchmod(stream.fileno(), mode)
                    os.fsync(stream.fileno())
                digest = sha256_of(draft)
                draft.replace(target)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise
        return target, digest

    def list_program(self, place: str, digest: str) -> None:
        """Write into SHA256SUMS which checksum the file at `place` has."""
        with self.writing(), self._locked():
            self._write_sums({**self.checksums(), place: digest})

    def list_image(self, images: Iterable[MirroredImage]) -> None:
        """Write images into their index; what has the same references gives them up, and goes if it has no others."""
        news = list(images)
        with self.writing(), self._locked():
            taken = {(image.arch, reference) for image in news for reference in image.references}
            kept = []
            for image in self.images():
                left = tuple(reference for reference in image.references if (image.arch, reference) not in taken)
                if left and image.file not in {new.file for new in news}:
                    kept.append(MirroredImage(image.file, image.sha256, image.arch, left))
            lines = sorted(image.line() + "\n" for image in (*kept, *news))
            before = {image.file for image in self.images()}
            write_whole(self.path / FOLDER / INDEX, "".join(lines))
            for file in before - {image.file for image in (*kept, *news)}:
                (self.path / FOLDER / file).unlink(missing_ok=True)

    def index(self) -> dict[str, str]:
        """Bring SHA256SUMS up to date: hash the files that it lacks or that are newer, drop those that are gone.

        What is visibly half is left out. Returns what was new, path below the folder to checksum.
        """
        with self.writing(), self._locked():
            sums = self.path / SUMS
            known = {entry[0]: entry[1] for line in _lines(sums) if (entry := entry_of(line))}
            written = sums.stat().st_mtime if sums.exists() else 0.0
            fresh = {}
            for name, path in self.files().items():
                if name in known and path.stat().st_mtime <= written:
                    fresh[name] = known[name]
                elif not is_half(path):
                    fresh[name] = sha256_of(path)
            if fresh != known or not sums.exists():
                self._write_sums(fresh)
            return {name: digest for name, digest in fresh.items() if known.get(name) != digest}

    def _write_sums(self, checksums: dict[str, str]) -> None:
        lines = (f"{digest}  {name}\n" for name, digest in sorted(checksums.items()))
        write_whole(self.path / SUMS, "".join(lines))

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turn what the file system refuses into an error that says so."""
        try:
            yield
        except OSError as error:
            raise CouplerError(
                f"the mirror folder {self.path} cannot be written to",
                why=str(error),
                next_step="give another one with --mirror, or make room and rights there",
            ) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one command at a time change the lists."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
