"""The lab's mirror folder: NAME/VERSION/ARCH/FILE beside a SHA256SUMS that names every file.

It is shared by all labs and kept by `down`: a program that somebody puts there is served from the next `up` on.
"""

from __future__ import annotations

import filecmp
import hashlib
import shutil
from typing import TYPE_CHECKING

from coupler import __version__
from coupler.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from coupler.lab.image import Image

ARCHITECTURE = "amd64"
_SUMS = "SHA256SUMS"


def seed(folder: Path, image: Image, registrator: Path) -> None:
    """Put the programs that came with the image into the mirror folder, and the archive of the registrator.

    A program that is there stays; the registrator is always the one of this very code.
    """
    for source in image.programs.glob("*/*/*"):
        version, name = source.parent.name, source.parent.parent.name
        target = folder / name / version / ARCHITECTURE / source.name
        if not target.exists():
            _put(source, target)
    target = folder / "registrator" / __version__ / ARCHITECTURE / registrator.name
    if not (target.exists() and filecmp.cmp(registrator, target, shallow=False)):
        _put(registrator, target)


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, draft)  # as new as it is here: `index` goes by that
    shutil.copymode(source, draft)
    draft.replace(target)


def index(folder: Path) -> None:
    """Bring SHA256SUMS up to date: hash the files that it lacks or that are newer, drop those that are gone."""
    sums = folder / _SUMS
    known = dict(_read(sums))
    written = sums.stat().st_mtime if sums.exists() else 0.0
    found = {str(path.relative_to(folder)): path for path in folder.glob("*/*/*/[!.]*") if path.is_file()}
    fresh = {
        name: known[name] if name in known and path.stat().st_mtime <= written else _sha256(path)
        for name, path in sorted(found.items())
    }
    if fresh != known:
        write_whole(sums, "".join(f"{digest}  {name}\n" for name, digest in fresh.items()))


def _read(sums: Path) -> list[tuple[str, str]]:
    if not sums.exists():
        return []
    pairs = [line.split(maxsplit=1) for line in sums.read_text().splitlines() if line.strip()]
    return [(name.strip(), digest) for digest, name in pairs]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
