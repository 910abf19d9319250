"""The registrator as a program for machines without Python: built, unpacked somewhere, run with nothing around it."""

from __future__ import annotations

import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from platformdirs import user_cache_path
from PyInstaller.archive.readers import CArchiveReader

from coupler.lab.registrator import ensure_registrator

if TYPE_CHECKING:
    from pathlib import Path

FOREIGN = {"ansible", "typer", "jinja2", "paramiko", "pydantic", "pydantic_core", "rich", "hypothesis"}


@pytest.fixture(scope="module")
def program(lab_host: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, where its archive was unpacked as a node does it."""
    archive = ensure_registrator(user_cache_path("coupler") / "lab")
    folder = tmp_path_factory.mktemp("program")
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(folder), "--no-same-owner"], check=True)
    return folder / "registrator"


def alone(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run a program with an empty environment: no PATH, so no Python to be found."""
    return subprocess.run(["env", "-i", *argv], capture_output=True, text=True, check=False, timeout=60)


def test_it_runs_with_nothing_around_it(program: Path) -> None:
    done = alone(str(program), "--help")
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout
    assert "drain" in done.stdout


def test_it_reads_its_configuration_with_the_libraries_inside(program: Path, tmp_path: Path) -> None:
    """Every balancer and source is loaded before a service is made of the file."""
    file = tmp_path / "registrator.yaml"
    file.write_text(
        "sources: {announcements: {etcd: {endpoints: ['http://127.0.0.1:1']}}}\n"
        f"balancers: {{haproxy: {{socket: '{tmp_path}/none.sock', config: '{tmp_path}/none/coupler.cfg'}}}}\n"
        "listen: nowhere\n"
    )
    done = alone(str(program), "run", "--config", str(file))
    assert done.returncode == 1
    assert "'nowhere' is no address to listen on" in done.stderr


@pytest.mark.parametrize("before", [(), ("LD_LIBRARY_PATH=/of/the/machine",)])
def test_what_it_runs_has_the_libraries_of_the_machine(program: Path, tmp_path: Path, before: tuple[str, ...]) -> None:
    seen, ip, file = tmp_path / "seen", tmp_path / "ip", tmp_path / "address.yaml"
    ip.write_text(f"#!/bin/sh\necho \"libraries: $LD_LIBRARY_PATH\" > {seen}\necho '[]'\n")
    ip.chmod(0o755)
    file.write_text("{address: 10.213.0.9, accepts: ['127.0.0.1:1'], etcd: {endpoints: ['http://127.0.0.1:1']}}\n")
    done = alone(f"PATH={tmp_path}", *before, str(program), "hold-address", "--config", str(file), "--release")
    assert done.returncode == 0, done.stderr
    assert seen.read_text().strip() == f"libraries: {''.join(before).partition('=')[2]}".strip()


def test_only_what_it_needs_is_inside(program: Path) -> None:
    modules = set(CArchiveReader(str(program)).open_embedded_archive("PYZ.pyz").toc)
    files = {path.name.partition(".")[0] for path in program.parent.rglob("*")}
    assert {"aiohttp", "coupler.errors", "coupler.registrator.service"} <= modules
    assert FOREIGN & ({name.partition(".")[0] for name in modules} | files) == set()
    assert [name for name in modules if name.startswith("coupler.") and not _is_of_a_node(name)] == []


def _is_of_a_node(module: str) -> bool:
    return module == "coupler.errors" or module.startswith("coupler.registrator")


def test_the_archive_says_nothing_of_who_built_it(lab_host: None) -> None:
    with tarfile.open(ensure_registrator(user_cache_path("coupler") / "lab")) as archive:
        entries = archive.getmembers()
    assert entries
    assert {(entry.uid, entry.gid, entry.uname, entry.mtime) for entry in entries} == {(0, 0, "", 0)}
