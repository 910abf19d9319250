"""What the lab's mirror has of its own: etcd and CNI plugins of Debian, the registrator, an image for pods' sandboxes.

They go into the folder that the lab serves, where that lacks them. A folder that cannot be written to is left as it is:
the lab then serves one of its own, which links to what is there.
"""

from __future__ import annotations

import filecmp
import shutil
from typing import TYPE_CHECKING, BinaryIO

from coupler import __version__
from coupler.errors import CouplerError
from coupler.files import write_whole
from coupler.lab import pause
from coupler.mirror.archives import file_name
from coupler.mirror.folder import Folder
from coupler.model.catalogue import component_of, whole_versions_in
from coupler.model.images import FOLDER, MirroredImage, pause_among

if TYPE_CHECKING:
    from pathlib import Path

    from coupler.lab.building import Tell
    from coupler.lab.image import Image

ARCHITECTURE = "amd64"
_ORIGIN = ".links-to"
"""In a folder of links: which folder they lead to."""


def origin_of(folder: Path) -> Path:
    """Return the folder that `folder` has links to, or itself."""
    note = folder / _ORIGIN
    return type(folder)(note.read_text(encoding="utf-8")) if note.is_file() else folder


def stocked(given: Path, spare: Path, image: Image, registrator: Path, tell: Tell) -> Path:
    """Return the folder that the lab serves, indexed and with all that the lab needs: `given`, or `spare` instead.

    Raises:
        CouplerError: neither can be written to.
    """
    try:
        stock(given, image, registrator)
    except CouplerError as error:
        if given == spare:
            raise
        tell(f"{error.summary}; the lab serves {spare} instead, which links to it")
        link(given, spare)
        stock(spare, image, registrator)
        return spare
    return given


def stock(folder: Path, image: Image, registrator: Path) -> None:
    """Index the mirror, and put into it what it lacks of the lab's own.

    A component that it has whole, in any version, is left alone; the registrator is always the one of this very code.

    Raises:
        CouplerError: the folder cannot be written to.
    """
    mirror = Folder(folder)
    mirror.index()
    checksums = mirror.checksums()
    for source in sorted(image.programs.glob("*/*/*")):
        version, name = source.parent.name, source.parent.parent.name
        place = f"{name}/{version}/{ARCHITECTURE}/{source.name}"
        if place not in checksums and not whole_versions_in(checksums, component_of(name), ARCHITECTURE):
            _put(mirror, source, place)
    place = f"registrator/{__version__}/{ARCHITECTURE}/{registrator.name}"
    target = folder / place
    if not (target.exists() and filecmp.cmp(registrator, target, shallow=False)):
        _put(mirror, registrator, place)
    if not pause_among(mirror.images(), ARCHITECTURE):
        file = file_name(pause.REFERENCE, ARCHITECTURE)
        _, digest = mirror.put(f"{FOLDER}/{file}", pause.write_image, 0o644)
        mirror.list_image([MirroredImage(file, digest, ARCHITECTURE, (pause.REFERENCE,))])


def link(given: Path, folder: Path) -> None:
    """Make `folder` a mirror that links to the files of another, and forget links to what is gone there."""
    origin, mirror = Folder(given), Folder(folder)
    with mirror.writing():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / _ORIGIN, str(given))
        for path in (*mirror.files().values(), *folder.glob("*/*/*/*"), *folder.glob(f"{FOLDER}/*.tar")):
            if path.is_symlink():
                path.unlink()
        files = origin.files() | {image.place: given / image.place for image in origin.images()}
        for place, path in files.items():
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.symlink_to(path)
    if origin.images():
        mirror.list_image(origin.images())


def _put(mirror: Folder, source: Path, place: str) -> None:
    with source.open("rb") as stream:

        def fill(target: BinaryIO) -> None:
            shutil.copyfileobj(stream, target, 1 << 20)

        _, digest = mirror.put(place, fill, source.stat().st_mode & 0o777)
    mirror.list_program(place, digest)
