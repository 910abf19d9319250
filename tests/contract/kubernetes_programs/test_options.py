"""The options and the files that Coupler gives the programs of Kubernetes, told to the real programs."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.contract.kubernetes_programs.programs import Release, releases
from tests.contract.kubernetes_programs.site import cluster_of, given

from coupler.model.releases import CHANGES, EVERY, FIELDS, changes_of
from coupler.model.rules.kubernetes import SECTIONS
from coupler.render.kubernetes import kubelet_configuration

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("release", releases())
def test_a_program_takes_every_option_that_it_is_given(tmp_path: Path, release: Release) -> None:
    cluster = cluster_of(tmp_path, release.version)
    for name, program in release.programs.items():
        assert [option for option in given(cluster, name) if not takes(program, f"--{option}")] == [], name


@pytest.mark.parametrize("release", releases())
def test_the_table_is_true(release: Release) -> None:
    for name, program in release.programs.items():
        for change in CHANGES:
            for option in change.options if change.program == name else ():
                if option.startswith("--"):
                    assert takes(program, option) == change.takes(release.minor), (name, option)


def takes(program: Path, option: str) -> bool:
    """Return whether a program takes an option: it looks at all of them before it shows its help."""
    done = subprocess.run([program, f"{option}=0", "--help"], capture_output=True, text=True, check=False, timeout=30)
    return "unknown flag" not in done.stdout + done.stderr


@pytest.mark.parametrize("release", releases("kubelet"))
def test_a_kubelet_takes_its_configuration(tmp_path: Path, release: Release) -> None:
    configuration = kubelet_configuration(cluster_of(tmp_path, release.version))
    said = complaints(release, tmp_path, configuration)
    assert "no such file or directory" in said
    assert "strict decod" not in said
    fields = {field for field in FIELDS if all(change.takes(release.minor) for change in changes_of("kubelet", field))}
    assert "strict decod" not in complaints(release, tmp_path, configuration | dict.fromkeys(fields - {*configuration}))
    for field in sorted(FIELDS - fields) or ["noSuchField"]:
        assert "strict decod" in complaints(release, tmp_path, configuration | {field: None}), field


def complaints(release: Release, folder: Path, configuration: dict[str, object]) -> str:
    """Return what a kubelet says that reads and validates its configuration, and then finds no certificates."""
    (folder / "kubelet.yaml").write_text(json.dumps(configuration))
    argv = [release.programs["kubelet"], f"--config={folder}/kubelet.yaml", f"--kubeconfig={folder}/none"]
    argv += [f"--root-dir={folder}/root", f"--cert-dir={folder}/pki"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode != 0
    return done.stderr


def test_every_program_has_a_section() -> None:
    assert set(SECTIONS) == {change.program for change in CHANGES if change.program != EVERY} | {"kube-proxy"}
