"""Bad days of cluster.yaml: what is wrong is said with file, line and column, and never with a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import coupler

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = [("check",), ("render",), ("init",), ("init", "--dry-run"), ("status",), ("nodes",), ("lab", "status")]

THREE_TYPOS = """\
version: 1
name: typos
git:
  repositry: git://10.0.0.5/demo.git
  allowed_signers: ["ops@example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"]
etcd:
  election_timeout: soon
nodes:
  - name: node-1
    address: 10.0.0.311
    roles: [control]
"""

UNREADABLE = {
    "tab": ("version: 1\n\tname: x\n", "cluster.yaml:2:1"),
    "unclosed quote": ('version: 1\nname: "demo\n', "cluster.yaml:2:7"),
    "unclosed bracket": ("version: 1\nnodes: [{name: a}\n", "cluster.yaml:"),
    "duplicate key": ("version: 1\nname: a\nname: b\n", "cluster.yaml:3:1"),
    "not a mapping": ("- version\n", "cluster.yaml: error: expected keys such as `name:`"),
    "empty": ("", "cluster.yaml"),
    "not text": ("\x00\x01", "cluster.yaml:1:1"),
}


def cluster(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "coupler", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(coupler.__file__).parents[1])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
def test_every_typo_is_told_with_its_place_and_nothing_is_done(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "cluster.yaml").write_text(THREE_TYPOS)
    done = cluster(tmp_path, arguments)
    assert done.returncode == 3
    assert done.stdout == ""
    for place in ("cluster.yaml:4:3: error: ", "cluster.yaml:7:21: error: ", "cluster.yaml:10:14: error: "):
        assert place in done.stderr
    assert "repository" in done.stderr.partition("cluster.yaml:7:21")[0]
    assert "    4 |   repositry: git://10.0.0.5/demo.git\n      |   ^\n" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.yaml"]


@pytest.mark.parametrize(("text", "place"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_yaml_is_told_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "cluster.yaml").write_text(text)
    done = cluster(tmp_path, ["init"])
    assert done.returncode == 3
    assert place in done.stderr
    assert ": error: " in done.stderr


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
def test_json_findings_have_file_line_and_column(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "cluster.yaml").write_text(THREE_TYPOS)
    done = cluster(tmp_path, [*arguments, "--output", "json"])
    assert done.returncode == 3
    envelope = json.loads(done.stdout)
    assert (envelope["ok"], envelope["exit_code"], envelope["data"]) == (False, 3, None)
    places = [(finding["line"], finding["column"]) for finding in envelope["error"]["findings"]]
    assert {(4, 3), (7, 21), (10, 14)} <= set(places)


@pytest.mark.parametrize("arguments", [("check",), ("render",), ("init",), ("status",), ("nodes",)], ids=" ".join)
def test_without_a_cluster_yaml_it_says_how_to_get_one(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = cluster(tmp_path, arguments)
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")
    assert "cluster.yaml" in done.stderr
    assert "\n  next: write one: cluster new NAME" in done.stderr


def test_a_file_that_does_not_exist_or_is_a_folder_is_told(tmp_path: Path) -> None:
    for name in ("missing.yaml", "."):
        done = cluster(tmp_path, ["init", "--file", name])
        assert done.returncode == 3, name
        assert "error: " in done.stderr
