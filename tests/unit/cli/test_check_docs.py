"""docs/check.md: every command in it prints what stands there, and its table lists every code."""

import re
import subprocess
import sys
from pathlib import Path

from coupler.cloudinit import check_data
from coupler.cloudinit.explain import explanations

DOCS = (Path(__file__).parents[3] / "docs" / "check.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```console\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
ROWS = re.findall(r"^\| `([^`]+)` \| (\w+) \| (.*) \|$", DOCS, re.MULTILINE)


def _commands() -> list[tuple[list[str], str]]:
    """Return (words, output) of every command of the page, in order."""
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(EXAMPLES), re.MULTILINE)
    return [(command.split(), output) for command, output in commands]


def test_every_command_prints_what_the_page_says(tmp_path: Path) -> None:
    """The commands are run one after another, in one folder; `cat` of a file that is not there yet writes it."""
    assert {words[0] for words, _ in _commands()} == {"cat", "cluster"}
    for words, output in _commands():
        if words[0] == "cat" and not (tmp_path / words[1]).exists():
            (tmp_path / words[1]).write_text(output, encoding="utf-8")
        command = [sys.executable, "-m", "coupler", *words[1:]] if words[0] == "cluster" else words
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.stdout + result.stderr == output, words


def test_the_table_lists_every_code_with_its_severity() -> None:
    expected = []
    for code, explanation in sorted(explanations().items()):
        found = check_data(explanation.examples()[0], "user-data", explanation.lineage)
        severity = next(str(finding.severity) for finding in found if finding.code == code)
        expected.append((code, severity, explanation.title))
    assert expected == ROWS
