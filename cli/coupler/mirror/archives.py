"""Archives of container images, as `docker save`, podman, skopeo, nerdctl and ctr write them.

Two layouts: docker's, with a manifest.json (github.com/moby/moby, image/spec/v1.2.md), and OCI's, with an index.json
(github.com/opencontainers/image-spec, image-layout.md), also both in one file. As containerd does, the second is read
where both are there. What goes into the mirror is a plain tar, every file of which has been read once, whose images are
called what the CRI calls them: with registry and tag.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import tarfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from coupler.errors import CouplerError, UsageError
from coupler.model.images import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = "io.containerd.image.name"
"""containerd's annotation for the whole name of an image."""
_TAG = "org.opencontainers.image.ref.name"
"""OCI's annotation, which some write the whole name into, and others the tag alone."""
_SMALL = 4 << 20
"""Configurations and manifests are smaller; the layers of an image are not read into memory."""
_BLOCK = 1 << 20
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")


@dataclass(frozen=True)
class ImageArchive:
    """What an archive holds: references by architecture, and which of its files the mirror's copy has instead."""

    references: dict[str, tuple[str, ...]]
    instead: dict[str, bytes] = field(default_factory=dict)


def normalized(name: str) -> str:
    """Return the whole name of an image: `busybox` is `docker.io/library/busybox:latest`.

    Source: github.com/distribution/reference, normalize.go.
    """
    host, slash, rest = name.partition("/")
    if not slash or not (re.search("[.:]", host) or host == "localhost"):
        host, rest = "docker.io", name
    host = "docker.io" if host == "index.docker.io" else host
    if host == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    whole = f"{host}/{rest}"
    return whole if "@" in rest or ":" in rest.rpartition("/")[2] else f"{whole}:latest"


def examine(file: Path, name: str | None = None) -> ImageArchive:
    """Return what an archive of images holds; `name` is what to call the one that it holds.

    Raises:
        UsageError: there is no such file, or no name can be given.
        CouplerError: it is no archive of images, has no name for them, or is not all there.
    """
    if not file.is_file():
        raise UsageError(f"there is no file {file}", next_step="docker save NAME:TAG -o FILE writes one")
    if name and not REFERENCE.fullmatch(name):
        raise UsageError(f"'{name}' is not the name of an image", next_step="write --name registry.example.org/app:1.0")
    try:
        contents = _read(file)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise CouplerError(
            f"{file} is no archive that can be read to its end", why=str(error), next_step="save or download it again"
        ) from error
    if "oci-layout" in contents.small and "index.json" in contents.small:
        return _oci(file, contents, name)
    if "manifest.json" in contents.small:
        return _docker(file, contents, name)
    raise CouplerError(
        f"{file} is no archive of images",
        why="it has neither a manifest.json, as docker save writes it, nor an index.json of OCI",
        next_step="docker save NAME:TAG -o FILE, or skopeo copy docker://NAME:TAG oci-archive:FILE:NAME:TAG",
    )


def copy(file: Path, archive: ImageArchive, target: BinaryIO) -> None:
    """Write the mirror's copy of an examined archive: a plain tar."""
    with tarfile.open(file) as source, tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as plain:
        for member in source:
            instead = archive.instead.get(_path(member))
            if instead is not None:
                member.size = len(instead)
                plain.addfile(member, io.BytesIO(instead))
            else:
                plain.addfile(member, source.extractfile(member) if member.isfile() else None)


@dataclass
class _Contents:
    """The files of an archive: their names, and the content of the small ones."""

    names: set[str] = field(default_factory=set)
    small: dict[str, bytes] = field(default_factory=dict)

    def json(self, name: str) -> Any:
        """Return a small file's JSON. Raises CouplerError."""
        try:
            return json.loads(self.small[name])
        except (KeyError, ValueError) as error:
            raise CouplerError(
                f"the archive's {name} is missing or broken", why=str(error), next_step="save it again"
            ) from error


def _path(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")


def _read(file: Path) -> _Contents:
    """Read every file of an archive, and hold those that are named after their SHA-256 to it."""
    contents = _Contents()
    with tarfile.open(file) as archive:
        for member in archive:
            path = _path(member)
            if member.issym() or member.islnk():
                contents.names.add(path)
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is None:
                continue
            digest, kept, left = hashlib.sha256(), [], member.size
            while block := stream.read(_BLOCK):
                digest.update(block)
                left -= len(block)
                if member.size <= _SMALL:
                    kept.append(block)
            named = _BLOB.fullmatch(path)
            if left or (named and named[1] != digest.hexdigest()):
                raise tarfile.ReadError(f"{path} is not all there")
            contents.names.add(path)
            if member.size <= _SMALL:
                contents.small[path] = b"".join(kept)
    return contents


def _docker(file: Path, contents: _Contents, name: str | None) -> ImageArchive:
    entries = contents.json("manifest.json")
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise CouplerError(f"the manifest.json of {file} is no list of images")
    references: dict[str, list[str]] = {}
    _one_to_name(file, len(entries), name)
    for entry in entries:
        lost = [layer for layer in (entry.get("Config", ""), *entry.get("Layers", ())) if layer not in contents.names]
        if lost:
            raise CouplerError(f"{file} is a half file", why=f"it lacks {lost[0]}", next_step="save it again")
        tags = [name] if name else entry.get("RepoTags") or []
        arch = str(contents.json(entry["Config"]).get("architecture") or "amd64")
        references.setdefault(arch, []).extend(normalized(tag) for tag in tags)
    instead = {"manifest.json": json.dumps([{**entries[0], "RepoTags": [name]}]).encode()} if name else {}
    return _named(file, references, instead)


def _oci(file: Path, contents: _Contents, name: str | None) -> ImageArchive:
    index = contents.json("index.json")
    entries = [entry for entry in index.get("manifests", ()) if isinstance(entry, dict)]
    _one_to_name(file, len(entries), name)
    references: dict[str, list[str]] = {}
    changed = []
    for entry in entries:
        noted = entry.get("annotations") or {}
        called = name or noted.get(_NAME) or noted.get(_TAG) or ""
        if not (name or _NAME in noted or re.search("[/:@]", called)):
            called = ""  # a tag alone
        whole = normalized(called) if called else ""
        for arch in _architectures(file, contents, entry):
            references.setdefault(arch, []).extend([whole] if whole else [])
        changed.append({**entry, "annotations": {**noted, _NAME: whole}} if whole else entry)
    index["manifests"] = changed
    return _named(file, references, {"index.json": json.dumps(index).encode()})


def _architectures(file: Path, contents: _Contents, entry: dict[str, Any]) -> Iterator[str]:
    """Yield the architectures that a descriptor's image is there for, whole."""
    place = _blob(entry)
    if place not in contents.names:
        raise CouplerError(f"{file} is a half file", why=f"it lacks {place}", next_step="save it again")
    manifest = contents.json(place)
    if "manifests" in manifest:
        there = [inner for inner in manifest["manifests"] if _blob(inner) in contents.names]
        for inner in there:
            yield from _architectures(file, contents, inner)
        return
    lost = [
        _blob(part) for part in (manifest["config"], *manifest.get("layers", ())) if _blob(part) not in contents.names
    ]
    if lost:
        raise CouplerError(f"{file} is a half file", why=f"it lacks {lost[0]}", next_step="save it again")
    arch = contents.json(_blob(manifest["config"])).get("architecture")
    if arch and arch != "unknown":  # an attestation has none
        yield str(arch)


def _blob(descriptor: dict[str, Any]) -> str:
    return f"blobs/{str(descriptor.get('digest', '')).replace(':', '/', 1)}"


def _one_to_name(file: Path, number: int, name: str | None) -> None:
    if name and number != 1:
        raise UsageError(f"{file} holds {number} images, and --name names one", next_step="save that one alone")


def _named(file: Path, references: dict[str, list[str]], instead: dict[str, bytes]) -> ImageArchive:
    found = {arch: tuple(dict.fromkeys(names)) for arch, names in references.items() if names}
    if not found:
        raise CouplerError(
            f"{file} does not say what its image is called",
            why="it was saved by its id, or without a tag",
            next_step="add --name NAME:TAG, or save it by its name: docker save NAME:TAG -o FILE",
        )
    bad = next((name for names in found.values() for name in names if not REFERENCE.fullmatch(name)), None)
    if bad:
        raise CouplerError(f"{file} calls its image '{bad}', which is no name", next_step="add --name NAME:TAG")
    return ImageArchive(found, instead)


def file_name(reference: str, arch: str) -> str:
    """Return what the archive of an image is called in the mirror."""
    return f"{re.sub('[^A-Za-z0-9.-]+', '_', reference)}_{arch}.tar"
