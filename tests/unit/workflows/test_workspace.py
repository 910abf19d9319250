"""The folder beside cluster.yaml."""

import pytest

from coupler.errors import CouplerError
from coupler.workflows.workspace import Workspace, write


def test_workspace_is_private_and_out_of_gits_sight(tmp_path):
    workspace = Workspace.beside(tmp_path / "cluster.yaml")
    workspace.prepare()
    assert workspace.root.stat().st_mode & 0o777 == 0o700
    assert (workspace.root / ".gitignore").read_text() == "*\n"


def test_one_command_at_a_time(tmp_path):
    workspace = Workspace.beside(tmp_path / "cluster.yaml")
    with workspace.scratch(), pytest.raises(CouplerError, match="another `cluster` command"), workspace.scratch():
        pass


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    workspace = Workspace.beside(tmp_path / "cluster.yaml")
    workspace.prepare()
    left = workspace.root / "run-left"
    (left / "bundles").mkdir(parents=True)
    with workspace.scratch() as folder:
        assert not left.exists()
    assert not folder.exists()


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write(path, b"old", 0o600)
    with pytest.raises(TypeError):
        write(path, "no bytes", 0o600)  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
