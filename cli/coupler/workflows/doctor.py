"""`cluster doctor`: is everything here that the operator's machine needs?"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from coupler.errors import ExitCode
from coupler.lab import requirements
from coupler.result import Json, table

_SIGNING_GIT = (2, 34)
"""The first git that signs with SSH keys (git's release notes)."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what, for what, whether it is well, what was found, and how to mend it."""

    what: str
    needed_for: str
    ok: bool
    found: str
    mend: str | None


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was looked at."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> ExitCode:
        """Done where `cluster init` can work; the lab is extra."""
        return ExitCode.DONE if all(f.ok for f in self.findings if f.needed_for == "init") else ExitCode.FAILED

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {"findings": [vars(finding) for finding in self.findings]}

    def text(self) -> str:
        """Return a table, and the commands that mend what is missing."""
        rows = [
            ("ok" if finding.ok else "MISSING", finding.what, finding.needed_for, finding.found)
            for finding in self.findings
        ]
        mends = list(dict.fromkeys(finding.mend for finding in self.findings if not finding.ok and finding.mend))
        lines = [table(("", "WHAT", "FOR", "FOUND"), rows)]
        lines += ["", "mend it:", *(f"  {mend}" for mend in mends)] if mends else ["next: cluster new NAME"]
        return "\n".join(lines)


def doctor() -> Diagnosis:
    """Look at this machine. Changes nothing."""
    lab = [Finding(r.what, "lab", r.ok, r.found, r.mend) for r in requirements()]
    return Diagnosis((_python(), _git(), _program("ssh", "openssh-client"), _ansible(), *lab))


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python 3.11 or newer", "init", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _git() -> Finding:
    text = _output("git", "--version")
    numbers = tuple(int(part) for part in re.findall(r"\d+", text)[:2])
    return Finding("git 2.34 or newer", "init", numbers >= _SIGNING_GIT, text or "none", "apt-get install git")


def _program(name: str, package: str) -> Finding:
    path = shutil.which(name)
    return Finding(name, "init", path is not None, path or "none", f"apt-get install {package}")


def _ansible() -> Finding:
    try:
        found = version("ansible-core")
    except PackageNotFoundError:
        found = None
    return Finding("ansible-core", "init", found is not None, found or "none", "pipx install --force coupler")


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
