"""A node knows what a document may change before it does: coupler-apply finds every file that the engine writes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from coupler.cloudinit.golang import clean_path
from coupler.cloudinit.grammar import Lineage
from coupler.cloudinit.operations import MaskUnit, WriteDropIn, WriteFile, WriteHosts, WriteUnit, WriteUpdateConf
from coupler.cloudinit.plan import UPDATE_CONF, plan_config
from coupler.cloudinit.session import UnreadableError, read_config

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cloud-config" / "scripts" / "coupler-apply"
OURS = sorted((ROOT / "tests" / "golden" / "documents").glob("*.yaml"))
RECORDED = sorted((ROOT / "tests" / "fixtures" / "cloudinit").rglob("user-data"))

NOT_FOUND = {
    "047-yaml-flow-style": "a list in flow style that goes over several lines",
    "137-path-missing": "a file without a path, which no node can write",
}


def found(document: Path) -> set[str]:
    done = subprocess.run(["sh", str(SCRIPT), "paths", str(document)], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


def written(document: Path) -> set[str]:
    """Return the paths that applying the document writes; none where it is not a cloud-config that can be read."""
    paths = set()
    try:
        config = read_config(document.read_bytes().decode(), Lineage.FLATCAR)
    except (UnreadableError, UnicodeDecodeError):
        return set()
    for operation in plan_config(config, Lineage.FLATCAR, {}):
        match operation:
            case WriteFile(path=path) | WriteUnit(path=path) | WriteDropIn(path=path) | MaskUnit(path=path):
                paths.add(clean_path(f"/{path}"))
            case WriteHosts():
                paths.add("/etc/hosts")
            case WriteUpdateConf():
                paths.add(UPDATE_CONF)
            case _:
                pass
    return paths


@pytest.mark.parametrize("document", OURS, ids=lambda path: path.name)
def test_every_file_of_our_documents_is_found(document: Path) -> None:
    wanted = written(document)
    assert "/opt/bin/coupler-pull" in wanted
    assert wanted <= found(document)


@pytest.mark.parametrize("document", RECORDED, ids=lambda path: path.parent.name)
def test_every_file_of_a_recorded_document_is_found(document: Path) -> None:
    assert bool(written(document) - found(document)) == (document.parent.name in NOT_FOUND)
