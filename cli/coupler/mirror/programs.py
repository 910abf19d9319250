"""What a file is: a program for which architecture, a script, an archive; and whether it is all there.

Read from its first bytes: ELF (System V ABI, chapter 4; machine numbers from its registry), `#!`, and the marks of tar
and of compression.
"""

from __future__ import annotations

import gzip
import lzma
import struct
import tarfile
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from coupler.errors import CouplerError, UsageError
from coupler.model.catalogue import WHOLE, Source, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Members: TypeAlias = dict[str, tarfile.TarInfo]
"""The files in an archive, by their paths."""

_MACHINES = {62: "amd64", 183: "arm64", 3: "386", 40: "arm", 21: "ppc64le", 22: "s390x", 243: "riscv64"}
_PROGRAM_TYPES = (2, 3)
"""ET_EXEC and ET_DYN: a program, or one that may lie anywhere."""
_HEADER, _TAR_MARK = 64, 257
_SHOWN = 8
_BLOCK = 1 << 20


class Kind(StrEnum):
    """What a file is."""

    PROGRAM = "program"
    SCRIPT = "script"
    ARCHIVE = "archive"
    OTHER = "other"


@dataclass(frozen=True)
class Look:
    """What the first bytes of a file say: its kind, and of a program the architecture and how long it must be."""

    kind: Kind
    arch: str | None = None
    least: int = 1
    gzipped: bool = False


def look_at(stream: BinaryIO) -> Look:
    """Return what the beginning of a file says of it. Leaves the stream somewhere."""
    head = stream.read(_TAR_MARK + 5)
    if head.startswith(b"\x7fELF"):
        return _elf(head, stream)
    if head.startswith(b"#!"):
        return Look(Kind.SCRIPT)
    packed = head.startswith((b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh"))
    if packed or head[_TAR_MARK:].startswith(b"ustar"):
        return Look(Kind.ARCHIVE, gzipped=head.startswith(b"\x1f\x8b"))
    return Look(Kind.OTHER)


def _elf(head: bytes, stream: BinaryIO) -> Look:
    if len(head) < _HEADER or head[4:6] not in {b"\x02\x01", b"\x01\x01", b"\x02\x02", b"\x01\x02"}:
        return Look(Kind.PROGRAM, least=_HEADER)
    order = "<" if head[5] == 1 else ">"
    kind, machine = struct.unpack_from(f"{order}HH", head, 16)
    arch = _MACHINES.get(machine, f"machine {machine}")
    if kind not in _PROGRAM_TYPES:
        return Look(Kind.OTHER, arch)
    if head[4] == 1:  # 32 bits: none of ours
        return Look(Kind.PROGRAM, arch)
    headers, sections = struct.unpack_from(f"{order}QQ", head, 32)
    size, count, section_size, section_count = struct.unpack_from(f"{order}HHHH", head, 54)
    least = max(_HEADER, headers + size * count, sections + section_size * section_count)
    stream.seek(headers)
    table = stream.read(size * count)
    if len(table) == size * count:
        segments = (struct.unpack_from(f"{order}Q16xQ", table, index * size + 8) for index in range(count))
        least = max(least, *(offset + length for offset, length in segments), 0)
    return Look(Kind.PROGRAM, arch, least)


def is_half(path: Path) -> bool:
    """Whether a file visibly lacks its end: an empty file, a program that is too short, or a broken .gz."""
    with path.open("rb") as stream:
        look = look_at(stream)
        if path.stat().st_size < look.least:
            return True
        if look.gzipped:
            try:
                with gzip.open(path) as whole:
                    while whole.read(_BLOCK):
                        pass
            except (EOFError, OSError, zlib.error):
                return True
    return False


@dataclass(frozen=True)
class Addition:
    """A file that may go into the mirror: where, and what writes it there."""

    source: Source
    place: str
    mode: int
    fill: Callable[[BinaryIO], None]
    note: str | None = None


@dataclass(frozen=True)
class Offer:
    """A local file that is to become the program `name` of a mirror.

    `arch` is what the user says of it, `expected` the architecture of the cluster's nodes; either may be None.
    """

    name: str
    file: Path
    version: str
    arch: str | None = None
    expected: str | None = None

    def examine(self) -> Addition:
        """Return how it goes into the mirror. An archive stays one where nodes can unpack it.

        Raises:
            UsageError: there is no such file.
            CouplerError: it is not that program, not all there, or for another architecture.
        """
        if not self.file.is_file():
            raise UsageError(
                f"there is no file {self.file}", next_step="give the path of the program or of its archive"
            )
        with self.file.open("rb") as stream:
            look = look_at(stream)
        if is_half(self.file):
            raise CouplerError(
                f"{self.file} is a half file",
                why=f"its {self.file.stat().st_size} bytes are not all of it",
                next_step="download it again",
            )
        if look.kind is Kind.ARCHIVE:
            return self._archive(look)
        if look.kind is Kind.OTHER:
            raise CouplerError(
                f"{self.file} is no program",
                why="it is neither an ELF executable, nor a script that begins with #!, nor an archive",
                next_step="give the program itself, or the .tar.gz that its project publishes",
            )
        source = self._source(look)
        if source.member == WHOLE:
            raise CouplerError(
                f"{self.name} is an archive of programs, and {self.file} is one program",
                next_step=f"give the archive: {source.file}",
            )
        return Addition(source, source.bare_place, 0o755, self._copy)

    def _archive(self, look: Look) -> Addition:
        try:
            with tarfile.open(self.file) as archive:
                members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}
                if source_of(self.name, self.version, "amd64").member == WHOLE:
                    return self._all_of(look, archive, members)
                return self._part_of(look, archive, members)
        except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise CouplerError(f"{self.file} is no archive that can be read", why=str(error)) from error

    def _all_of(self, look: Look, archive: tarfile.TarFile, members: Members) -> Addition:
        inside = [found for member in members.values() if (found := _inside(archive, member)).kind is Kind.PROGRAM]
        _demand(inside, f"{self.file} holds no program", members)
        if not look.gzipped:
            raise CouplerError(
                f"{self.file} is not compressed by gzip, as nodes unpack it", next_step="pack it as .tar.gz"
            )
        source = self._source(inside[0])
        return Addition(source, source.place, 0o644, self._copy)

    def _part_of(self, look: Look, archive: tarfile.TarFile, members: Members) -> Addition:
        named = [path for path in members if path.rpartition("/")[2] == self.name]
        _demand(named, f"{self.file} does not hold {self.name}", members)
        source = self._source(_inside(archive, members[named[0]]))
        if source.member in members and look.gzipped:
            return Addition(source, source.place, 0o644, self._copy)
        if len(named) > 1:
            raise CouplerError(f"{self.file} holds {self.name} {len(named)} times", why=", ".join(named))

        def extract(target: BinaryIO) -> None:
            with tarfile.open(self.file) as again:
                stream = again.extractfile(named[0] if named[0] in again.getnames() else f"./{named[0]}")
                while stream and (block := stream.read(_BLOCK)):
                    target.write(block)

        return Addition(source, source.bare_place, 0o755, extract, f"taken out of the archive: {named[0]}")

    def _source(self, look: Look) -> Source:
        wanted = self.arch or self.expected or look.arch or "amd64"
        if look.arch and look.arch != wanted:
            other = "--arch says" if self.arch else "the cluster's nodes are"
            raise CouplerError(
                f"{self.file} is for {look.arch}, and {other} {wanted}",
                why="its ELF header says so",
                next_step=f"get the build for {wanted}" + ("" if self.arch else f", or add --arch {look.arch}"),
            )
        return source_of(self.name, self.version, wanted)

    def _copy(self, target: BinaryIO) -> None:
        with self.file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                target.write(block)


def _inside(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Look:
    stream = archive.extractfile(member)
    return look_at(cast("BinaryIO", stream)) if stream else Look(Kind.OTHER)


def _demand(found: Sequence[object], what: str, members: Members) -> None:
    if not found:
        more = "" if len(members) <= _SHOWN else f" and {len(members) - _SHOWN} more"
        raise CouplerError(what, why=f"it holds {', '.join(sorted(members)[:_SHOWN]) or 'no file'}{more}")
