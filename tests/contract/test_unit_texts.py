"""The rules about the text of units against `systemd-analyze verify`: what it refuses, and the lines that it names."""

import re
import subprocess
from pathlib import Path

import pytest

from coupler.cloudinit import check
from coupler.errors import Severity

SERVICE = "[Service]\nExecStart=/bin/true\n"
REFUSED = {
    "header.service": "[Unit\n[Service]\nExecStart=/bin/true\n",
    "no-program.service": "[Service]\nType=simple\n",
    "two-programs.service": f"{SERVICE}ExecStart=/bin/true\n",
    "restart.service": f"{SERVICE}Type=oneshot\nRestart=always\n",
    "relative.service": "[Service]\nExecStart=-./true\n",
    "bus.service": f"{SERVICE}Type=dbus\n",
    "never.timer": "[Timer]\nUnit=getty.target\n",
    "nothing.path": "[Path]\nMakeDirectory=yes\n",
    "deaf.socket": "[Socket]\nAccept=no\n",
    "mnt-a.mount": "[Mount]\nWhat=tmpfs\nWhere=/mnt/b\n",
}
TAKEN = {
    "plain.service": SERVICE,
    "reset.service": f"{SERVICE}ExecStart=\nExecStart=/bin/true --again\n",
    "retry.service": f"{SERVICE}Type=oneshot\nRestart=on-failure\n",
    "long.service": "[Service]\nExecStart=/bin/echo one \\\n# a comment in between\n  two\n",
    "before.service": f"Description=x\n{SERVICE}",
    "line.service": f"{SERVICE}true\n",
    "value.service": f"{SERVICE}Type=one-shot\nRestart=sometimes\n",
    "key.service": f"{SERVICE}Exec=/bin/true\n[Unit]\nRestart=no\n",
    "section.service": f"{SERVICE}[Services]\nType=oneshot\n[X-Ours]\nAnything=1\n",
    "own.service": f"{SERVICE}X-Coupler-Restart-On=/etc/x\n",
}
UNNAMED = {"unit-text", "missing-unit"}
"""systemd names no line for most of what makes it refuse a unit, and looks for other units only when it starts one."""


def _systemd(folder: Path, name: str) -> tuple[bool, set[int]]:
    """Return (whether systemd takes a unit, the numbers of the lines that it complains of)."""
    command = ["systemd-analyze", "verify", "--man=no", str(folder / name)]
    verdict = subprocess.run(command, check=False, capture_output=True, text=True)
    lines = re.findall(rf"/{re.escape(name)}:(\d+): ", verdict.stderr)
    return verdict.returncode == 0, {int(line) for line in lines}


@pytest.mark.parametrize(("name", "text"), [*REFUSED.items(), *TAKEN.items()], ids=[*REFUSED, *TAKEN])
def test_verdict_is_that_of_systemd(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    taken, lines = _systemd(tmp_path, name)
    assert taken is (name in TAKEN)
    content = "".join(f"        {line}\n" for line in text.splitlines())
    document = f"#cloud-config\ncoreos:\n  units:\n    - name: {name}\n      content: |\n{content}"
    found = check(document, "user-data")
    assert any(finding.severity is Severity.ERROR for finding in found) is not taken
    assert {finding.location.line - 5 for finding in found if finding.code not in UNNAMED} == (
        lines if taken else set()
    )
