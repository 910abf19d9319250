"""Real programs of Kubernetes, in a folder laid out like a mirror: `COUPLER_PROGRAMS=DIR`, NAME/VERSION/ARCH/NAME."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coupler.model.rules.kubernetes import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = os.environ.get("COUPLER_PROGRAMS", "")
WITHOUT = "no real programs of Kubernetes: set COUPLER_PROGRAMS to a folder with NAME/VERSION/ARCH/NAME"


@dataclass(frozen=True)
class Release:
    """The programs of one version that are there."""

    version: str
    programs: Mapping[str, Path]

    @property
    def minor(self) -> int:
        """The minor version."""
        return int(self.version.split(".")[1])

    def __str__(self) -> str:
        return self.version


def releases(*needed: str) -> list[object]:
    """Return, as pytest parameters, the releases that have all programs of `needed`; a skipped one without any."""
    found: dict[str, dict[str, Path]] = {}
    for name in SECTIONS if FOLDER else ():
        for path in sorted(Path(FOLDER).glob(f"{name}/*/*/{name}")):
            found.setdefault(path.parents[1].name, {})[name] = path
    have = [Release(version, programs) for version, programs in found.items() if programs.keys() >= set(needed)]
    if have:
        return [pytest.param(release, id=release.version) for release in have]
    return [pytest.param(None, marks=pytest.mark.skip(reason=WITHOUT))]
