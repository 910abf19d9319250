"""Build the stand-ins for a mirror's folder: NAME/VERSION/amd64/NAME, each one file that a node can run.

Such a file is a script of the shell with the program and its libraries behind it: the first start unpacks them, and the
shell then becomes the program, so that the process is the one that systemd watches.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tarfile
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.lab.building import build, building, freeze, hash_of, versions

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FLAGS = ROOT / "tests/fixtures/flags"
ARCHITECTURE = "amd64"
_HEAD = """\
#!/bin/sh
# A stand-in of Coupler's tests for {name} {version}.
set -eu
folder=/var/lib/standins/{digest}
if [ ! -e "$folder/{name}" ]; then
    mkdir -p /var/lib/standins
    draft=$(mktemp -d /var/lib/standins/new.XXXXXX)
    tail -n +{lines} "$0" | tar -xzf - -C "$draft"
    ln -s standin "$draft/{name}"
    mv -T "$draft" "$folder"
fi
exec "$folder/{name}" "$@"
"""


def standins(cache: Path, kubernetes: str) -> dict[str, bytes]:
    """Return each stand-in by its place in a mirror, built where `cache` does not have it yet."""
    programs = options(kubernetes)
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"standins-{hash_of([*versions('PyInstaller'), entry(programs).encode(), *sources])}"
    if not target.is_dir():
        with building(cache):
            if not target.is_dir():
                build(target, lambda draft, log: _fill(entry(programs), draft, log))
    packed = _packed(target / "standin")
    return {
        f"{name}/{version}/{ARCHITECTURE}/{name}": _script(name, version, packed)
        for name, (version, _) in programs.items()
    }


def options(kubernetes: str) -> dict[str, tuple[str, list[str]]]:
    """Return of each program its version, of Kubernetes' this one, else the newest; and the lines of its options."""
    found = {path.parent.name: path for path in sorted(FLAGS.glob("*/*.txt"))}
    found |= {path.parent.name: path for path in FLAGS.glob(f"kube*/{kubernetes}.txt")}
    return {name: (path.stem, path.read_text().splitlines()) for name, path in sorted(found.items())}


def entry(programs: dict[str, tuple[str, list[str]]]) -> str:
    """Return the text of the stand-ins' main module."""
    return f"from tests.standins.program import main\nmain({programs!r})\n"


def runnable(folder: Path, name: str, kubernetes: str = "") -> Path:
    """Return a stand-in that runs on this machine, which has Python."""
    path = folder / name
    head = f"#!{sys.executable}\nimport sys\n\nsys.path.insert(0, {str(ROOT)!r})\n"
    path.write_text(head + entry(options(kubernetes)))
    path.chmod(0o755)
    return path


def _fill(entry: str, draft: Path, log: Path) -> None:
    with _importable():
        freeze("standin", entry, draft, log)


@contextmanager
def _importable() -> Iterator[None]:
    """Let a child import the tests."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _packed(folder: Path) -> bytes:
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        archive.add(folder, ".")
    return packed.getvalue()


def _script(name: str, version: str, packed: bytes) -> bytes:
    digest = hashlib.sha256(packed + name.encode()).hexdigest()[:16]
    head = _HEAD.format(name=name, version=version, digest=digest, lines=_HEAD.count("\n") + 1)
    return head.encode() + packed
