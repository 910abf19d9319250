"""docs/preview.md: every command of its consoles prints what the page says; `…` stands for lines left out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import coupler
from coupler.model import load_cluster
from coupler.render import render_document
from coupler.workflows.steps.publish import repository_of
from coupler.workflows.workspace import Workspace

DOCS = (Path(__file__).parents[3] / "docs" / "preview.md").read_text()
COMMIT = re.compile(r"\b[0-9a-f]{12}\b")


def commands():
    """The commands of the page in order, each with what it prints."""
    for block in re.findall(r"^```console\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def pattern(output):
    lines = [
        r"(?:.*\n)*?" if line.strip() == "…" else re.escape(COMMIT.sub("COMMIT", line)) + "\n"
        for line in output.splitlines()
    ]
    return "".join(lines)


@pytest.fixture
def folder(tmp_path):
    [example] = re.findall(r"^```yaml\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    (tmp_path / "cluster.yaml").write_text(example)
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "demo.git"], check=True)
    loaded = load_cluster(tmp_path / "cluster.yaml")
    repository = repository_of(loaded.cluster, Workspace.beside(loaded.path))
    repository.push(repository.commit({"cloud-config.yaml": render_document(loaded.cluster)}, "a commit", None))
    program = tmp_path / "bin" / "cluster"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m coupler "$@"\n')
    program.chmod(0o755)
    return tmp_path


def test_consoles_are_true(folder):
    variables = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(coupler.__file__).parents[1]),
    }
    found = list(commands())
    assert len(found) == 7
    for command, output in found:
        done = subprocess.run(
            ["sh", "-c", command], cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
        assert done.stderr == "", command
        printed = COMMIT.sub("COMMIT", done.stdout)
        assert re.fullmatch(pattern(output), printed), f"{command}\n{printed}"
