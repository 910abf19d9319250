"""The lab's mirror folder: NAME/VERSION/ARCH/FILE beside a SHA256SUMS that names every file.

It is shared by all labs and kept by `down`: a program that somebody puts there is served from the next `up` on.
"""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING

from coupler.lab.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from coupler.lab.image import Image

ARCHITECTURE = "amd64"
_SUMS = "SHA256SUMS"


def seed(folder: Path, image: Image) -> None:
    """Put the etcd and etcdctl that came with the image into the mirror folder."""
    for program in ("etcd", "etcdctl"):
        target = folder / program / image.etcd_version / ARCHITECTURE / program
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{program}.new")
            shutil.copy2(image.etcd_folder / program, draft)
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
