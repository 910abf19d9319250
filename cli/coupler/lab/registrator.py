"""The registrator as a program for machines without Python: `registrator.tar.gz`, the program and its libraries.

A folder, not one file: a single file is two processes, of which systemd watches the one that does nothing, and it
unpacks itself at every start. `python -m coupler.lab.registrator FOLDER` leaves the archive in FOLDER.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from coupler.lab.building import Tell, build, building, contents, freeze, hash_of, versions

if TYPE_CHECKING:
    from collections.abc import Iterator

ARCHIVE = "registrator.tar.gz"
_ENTRY = "import sys\nfrom coupler.registrator.__main__ import main\nsys.exit(main())\n"
_LIBRARIES = ("PyInstaller", "aiohttp", "cryptography", "orjson", "prometheus-client", "PyNaCl", "PyYAML")
_NOT_USED = ("pydantic", "pydantic_core", "hypothesis", "pytest", "aiohttp.pytest_plugin", "readline", "curses")
"""What libraries of ours would import where it is installed, for uses that are not ours."""


def ensure_registrator(cache: Path, tell: Tell = lambda _: None) -> Path:
    """Return the archive, built into the folder `cache` where it is not there yet.

    Raises:
        CouplerError: the build failed; it names the log.
    """
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"registrator-{hash_of(_recipe())}"
    if not target.is_dir():
        with building(cache):
            if not target.is_dir():
                tell("building the registrator: once for each version of it, some ten seconds")
                build(target, _fill)
    os.utime(target)  # it is used now
    return target / ARCHIVE


def _recipe() -> Iterator[bytes]:
    package = Path(__file__).resolve().parents[1]
    yield from versions(*_LIBRARIES)
    for module in ("lab/building.py", "lab/registrator.py", "errors.py"):
        yield (package / module).read_bytes()
    yield from contents(package / "registrator", "*.py")


def _fill(draft: Path, log: Path) -> None:
    freeze("registrator", _ENTRY, draft, log, without=_NOT_USED)
    with (
        (draft / ARCHIVE).open("wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for path in sorted((draft / "registrator").rglob("*")):
            archive.add(path, str(path.relative_to(draft / "registrator")), recursive=False, filter=_plain)
    shutil.rmtree(draft / "registrator")


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who built it and when: the same sources make the same archive."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ensure_registrator(user_cache_path("coupler") / "lab"), folder / ARCHIVE)
