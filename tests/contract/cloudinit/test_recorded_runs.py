"""Our applier against what the real ones did, for every recorded document and both lineages.

Applied into a scratch root with the base state of the recordings; compared are exit code, standard output, log, the
unit operations in order, the helper calls, and every file, directory, link, mode and owner that changed.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from recordings import VARIABLES, Case, build_node, cases, difference, normalized, snapshot

from coupler.cloudinit.__main__ import main

NOT_APPLIED = {"204-user-import-github-users": "keys come from the network: the real programs were not run either"}

_NO_SCRIPT = "the recorded tree has what the script itself left, or systemd's unit of it; a scratch root runs no script"
BEYOND_A_SCRATCH_ROOT = {
    "016-script-bash-coreos": _NO_SCRIPT,
    "016-script-bash-flatcar": _NO_SCRIPT,
    "018-script-crlf-coreos": _NO_SCRIPT,
    "018-script-crlf-flatcar": _NO_SCRIPT,
    "019-script-exit-3-coreos": _NO_SCRIPT,
    "019-script-exit-3-flatcar": _NO_SCRIPT,
    "025-multipart-config-and-script-flatcar": _NO_SCRIPT,
}
"""Cases whose recorded tree cannot be had without running something; everything else about them is compared."""

_VALIDATION = re.compile(r"line \d+: |Failed while validating")


def _runs() -> list[Case]:
    return [case for case in cases() if case.name not in NOT_APPLIED]


def _trees() -> list[Any]:
    reasons = {case: BEYOND_A_SCRATCH_ROOT.get(str(case)) for case in _runs()}
    return [
        pytest.param(case, marks=[pytest.mark.xfail(reason=reason, strict=True)] if reason else [])
        for case, reason in reasons.items()
    ]


def _apply(case: Case, root: Path) -> dict[str, Any]:
    before = snapshot(root)
    operations = root.parent / "operations.json"
    exit_code = main(
        ["--as", case.lineage, f"--from-file={case.path}", "--root", str(root), "--operations", str(operations)]
    )
    record = normalized(json.loads(operations.read_text()))
    assert record["exit"] == exit_code
    return {**record, "tree": difference(before, snapshot(root))}


@pytest.fixture
def root(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root: files get the owners that a document gives them")
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "root"
    folder.mkdir()
    build_node(folder, case.record["setup"])
    return folder


def _comparable_calls(calls: list[dict[str, Any]]) -> list[Any]:
    """Return calls with the keys of one call as a set: their order is random in the real program."""
    return [(call["argv"], frozenset(call.get("stdin", "").splitlines())) for call in calls]


@pytest.mark.parametrize("case", _runs(), ids=str)
def test_run_is_that_of_the_real_program(case: Case, root: Path) -> None:
    done, recorded = _apply(case, root), case.run
    assert done["exit"] == recorded["exit"]
    assert done["stdout"] == recorded["stdout"]
    assert done["units"] == case.outcome("units")
    assert _comparable_calls(done["calls"]) == _comparable_calls(recorded["calls"])
    logs = [[line for line in log if not _VALIDATION.match(line)] for log in (done["log"], recorded["log"])]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("case", _trees(), ids=str)
def test_tree_is_that_of_the_real_program(case: Case, root: Path) -> None:
    assert _apply(case, root)["tree"] == case.outcome("tree")
