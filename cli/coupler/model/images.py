"""Container images in a mirror's folder, and what their references look like.

The folder `images` of a mirror holds archives that containerd imports, and `INDEX`, which names them. A line of it:
SHA-256, file, architecture, and the references that the archive brings, blanks between them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = "images"
INDEX = "INDEX"
PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
"""The image of a pod's sandbox where nobody names another."""

_DOMAIN = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?/)?"
_NAME = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
REFERENCE = re.compile(rf"{_DOMAIN}{_NAME}(?:/{_NAME})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.ASCII)
"""A reference of an image, as in github.com/distribution/reference; a full match is one."""

_LINE = re.compile(r"([0-9a-f]{64}) +([^ /]+\.tar) +([a-z0-9-]+) +(\S+(?: +\S+)*)")


@dataclass(frozen=True)
class MirroredImage:
    """An archive in the folder `images` of a mirror: its SHA-256, and the references that it brings."""

    file: str
    sha256: str
    arch: str
    references: tuple[str, ...]

    @property
    def place(self) -> str:
        """The archive's path below the mirror's folder."""
        return f"{FOLDER}/{self.file}"

    def line(self) -> str:
        """Return the image's line in the index."""
        return " ".join((self.sha256, self.file, self.arch, *self.references))


def image_of(line: str) -> MirroredImage | None:
    """Return what a line of the index says, None where it is no such line."""
    entry = _LINE.fullmatch(line)
    if not entry or not all(REFERENCE.fullmatch(reference) for reference in entry[4].split()):
        return None
    return MirroredImage(entry[2], entry[1], entry[3], tuple(entry[4].split()))


def pause_among(images: Iterable[MirroredImage], arch: str) -> str | None:
    """Return the newest image of a sandbox among `images` for an architecture: its name ends in `pause`."""
    return newest_among(images, arch, "pause", f"pause-{arch}")


def newest_among(images: Iterable[MirroredImage], arch: str, *names: str) -> str | None:
    """Return the newest image for an architecture whose name, without registry and path, is one of `names`."""
    found = [
        reference
        for image in images
        if image.arch == arch
        for reference in image.references
        if _repository(reference).rpartition("/")[2] in names
    ]
    return max(found, key=_version, default=None)


def _repository(reference: str) -> str:
    name = reference.partition("@")[0]
    head, _, tail = name.rpartition(":")
    return name if "/" in tail or not head else head


def _version(reference: str) -> tuple[list[int], str]:
    tag = reference.partition("@")[0].removeprefix(_repository(reference))
    return [int(number) for number in re.findall(r"\d+", tag)], reference
