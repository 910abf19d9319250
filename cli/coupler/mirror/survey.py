"""What a mirror has of what a cluster needs, and whether all that it lists is as it was listed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coupler.mirror.folder import Folder, sha256_of
from coupler.mirror.programs import is_half
from coupler.model.catalogue import IMAGE, source_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coupler.model import Artifact, Cluster
    from coupler.model.catalogue import Source


class Have(StrEnum):
    """How a mirror has a program."""

    VERIFIED = "verified"
    """Its checksum is the one that is known to be upstream's."""
    OWN = "own checksum"
    """It is listed, with a checksum that only the mirror knows."""
    UNLISTED = "not listed"
    """The file is there, and SHA256SUMS does not name it: no node takes it."""
    ELSEWHERE = "own URL"
    """cluster.yaml names another URL for it, so nodes do not ask the mirror."""
    MISSING = "missing"


@dataclass(frozen=True)
class Entry:
    """A program that a cluster needs, or a file that a mirror has: how, where, and its size in bytes."""

    name: str
    version: str
    have: Have
    place: str | None = None
    size: int | None = None
    source: Source | None = None
    sha256: str | None = None
    """The checksum that the file must have, None where none is known."""


def needs(folder: Folder, cluster: Cluster) -> tuple[Entry, ...]:
    """Return what the cluster needs, and how the mirror has it, in the order of the catalogue."""
    checksums, files = folder.checksums(), folder.files()
    arch = str(cluster.os.arch)
    artifacts = (*cluster.artifacts_needed, *(a for a in cluster.balancing_artifacts if a.member != IMAGE))
    return tuple(_entry(cluster, artifact, arch, checksums, files) for artifact in artifacts)


def _entry(cluster: Cluster, artifact: Artifact, arch: str, checksums: dict[str, str], files: dict[str, Path]) -> Entry:
    override = cluster.artifacts.get(artifact.name)
    if override and override.url:
        return Entry(artifact.name, artifact.version, Have.ELSEWHERE)
    source = source_of(artifact.name, artifact.version, arch)
    known = (override.sha256 if override else None) or source.sha256
    listed = source.within({place for place in checksums if place in files})
    place = listed or source.within(files)
    if not place:
        return Entry(artifact.name, artifact.version, Have.MISSING, None, None, source, known)
    have = Have.UNLISTED if not listed else Have.VERIFIED if checksums[listed] == known else Have.OWN
    return Entry(artifact.name, artifact.version, have, place, files[place].stat().st_size, source, known)


def others(folder: Folder, needed: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Return what the mirror has and the cluster does not need."""
    checksums, taken = folder.checksums(), {entry.place for entry in needed}
    entries = []
    for place, path in folder.files().items():
        name, version, arch, _ = place.split("/")
        if place not in taken:
            have = Have.OWN if place in checksums else Have.UNLISTED
            entries.append(Entry(f"{name} ({arch})", version, have, place, path.stat().st_size))
    return tuple(entries)


class Verdict(StrEnum):
    """What came of looking at a file of the mirror."""

    GOOD = "good"
    CORRUPT = "corrupt"
    HALF = "half"
    GONE = "gone"
    UNLISTED = "not listed"
    LEFTOVER = "leftover"


@dataclass(frozen=True)
class Verified:
    """A file of the mirror, and what came of looking at it."""

    place: str
    verdict: Verdict
    text: str = ""


def verify(folder: Folder) -> tuple[Verified, ...]:
    """Read every file that the mirror lists or has, and hold it to the lists."""
    listed = {**folder.checksums(), **{image.place: image.sha256 for image in folder.images()}}
    with ThreadPoolExecutor(2) as pool:
        looked = tuple(pool.map(lambda item: _look(folder.path, *item), sorted(listed.items())))
    return (*looked, *_unlisted(folder, listed))


def _look(root: Path, place: str, digest: str) -> Verified:
    path = root / place
    if not path.is_file():
        return Verified(place, Verdict.GONE, "it is listed, and there is no such file")
    if sha256_of(path) == digest:
        return Verified(place, Verdict.GOOD)
    if is_half(path):
        return Verified(place, Verdict.HALF, f"its {path.stat().st_size} bytes are not all of it")
    return Verified(place, Verdict.CORRUPT, f"its SHA-256 is not the listed one, {digest}")


def _unlisted(folder: Folder, listed: dict[str, str]) -> Iterator[Verified]:
    for place, path in folder.files().items():
        if place not in listed:
            half = " and it is a half file" if is_half(path) else ""
            yield Verified(place, Verdict.UNLISTED, f"SHA256SUMS does not name it: no node takes it{half}")
    for path in sorted((folder.path / "images").glob("[!.]*.tar*")):
        place = str(path.relative_to(folder.path))
        if place not in listed:
            yield Verified(place, Verdict.UNLISTED, f"no image of the index: cluster mirror add-image {path}")
    for path in folder.drafts():
        what = "a download that broke off; pull goes on with it" if path.name.endswith(".part") else "of a broken add"
        yield Verified(str(path.relative_to(folder.path)), Verdict.LEFTOVER, what)
