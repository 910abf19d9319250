"""A cloud-config that anybody wrote: read it, say what is wrong with it, mend it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from coupler.cloudinit import check_data
from coupler.cloudinit.fix import Fixed, UnfixableError, fix
from coupler.cloudinit.golang import to_bytes, to_text
from coupler.cloudinit.grammar import Lineage
from coupler.cloudinit.verdict import validate_data
from coupler.errors import ConfigurationError, CouplerError, ExitCode, Finding, Severity, UsageError
from coupler.result import Json, Result, Text, Verbatim, count, finding_data
from coupler.workflows.workspace import write

STANDARD_INPUT = Path("-")

_USER_DATA = (b"#cloud-config", b"#!", b"\x1f\x8b")
_CLUSTER_FILE = re.compile(rb"^version[ \t]*:", re.MULTILINE)
_CONTEXT = 3
_NO_NEWLINE = "\n\\ No newline at end of file\n"


@dataclass(frozen=True)
class UserData:
    """User-data, where it comes from, and the program that it is for."""

    path: Path
    data: bytes
    lineage: Lineage = Lineage.FLATCAR

    @property
    def name(self) -> str:
        """Return the name for findings and messages."""
        return "<stdin>" if self.path == STANDARD_INPUT else str(self.path)

    def is_cluster_file(self) -> bool:
        """Return whether this is a cluster.yaml: a `version:` at the margin, and no first line of user-data."""
        return not self.data.startswith(_USER_DATA) and _CLUSTER_FILE.search(self.data) is not None


def read(path: Path, lineage: Lineage = Lineage.FLATCAR) -> UserData:
    """Return the bytes of a file, of standard input for `-`.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return UserData(path, sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes(), lineage)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"cannot read {path}: {why}", next_step="name a file, or - for standard input") from error


def examine(user_data: UserData) -> Result:
    """Return everything that is to be said about user-data; exit code 3 where an error is among it."""
    found = check_data(user_data.data, user_data.name, user_data.lineage)
    fixable = sum(bool(finding.fix) for finding in found)
    summary = f"{user_data.name}: {_counted(found)}" + (f"; --fix mends {fixable} of them" if fixable else "")
    lines = [*(finding.text() for finding in found), summary]
    if fixable:
        lines.append(f"next: cluster check --as {user_data.lineage} --fix {_word(user_data)}")
    elif found:
        lines.append(f"next: cluster check --explain {_worst(found).code}")
    payload = {**_about(user_data), "findings": [finding_data(finding) for finding in found]}
    return Text("\n".join(lines), payload, _exit_code(found))


def exact(user_data: UserData) -> Result:
    """Return the lines and the exit code of the lineage's own `-validate`, and nothing else."""
    lines, exit_code = validate_data(user_data.data, user_data.lineage)
    body = "".join(f"{line}\n" for line in lines)
    return Verbatim(body, {**_about(user_data), "lines": lines}, ExitCode(exit_code))


def mend(user_data: UserData) -> Result:
    """Rewrite a file with all findings mended that can be, and return the difference and what is left.

    Standard input is not written to: the answer is the mended document.

    Raises:
        ConfigurationError: there is nothing that could be mended in it, since it cannot be read.
        CouplerError: the file cannot be written.
    """
    text = to_text(user_data.data)
    try:
        fixed = fix(text, user_data.name, user_data.lineage)
    except UnfixableError as error:
        raise _unfixable(user_data, str(error)) from error
    if user_data.path == STANDARD_INPUT:
        return Verbatim(fixed.text, {}, _exit_code(fixed.left))
    if fixed.text != text:
        _rewrite(user_data.path.resolve(), to_bytes(fixed.text))
    difference = _difference(text, fixed.text, user_data.name)
    payload = {
        **_about(user_data),
        "changed": fixed.text != text,
        "diff": difference,
        "fixed": [finding_data(finding) for finding in fixed.mended],
        "findings": [finding_data(finding) for finding in fixed.left],
    }
    return Text(difference + _summary(user_data, fixed), payload, _exit_code(fixed.left))


def _about(user_data: UserData) -> Json:
    return {"file": user_data.name, "as": str(user_data.lineage)}


def _summary(user_data: UserData, fixed: Fixed) -> str:
    mended = f"mended {count(len(fixed.mended), 'finding')}" if fixed.mended else "there was nothing to mend"
    left = [finding.text() for finding in fixed.left]
    return "\n".join([*left, f"{user_data.name}: {mended}; left: {_counted(fixed.left)}"])


def _counted(found: list[Finding] | tuple[Finding, ...]) -> str:
    """Return how many findings there are of each severity, the worst first."""
    numbers = Counter(finding.severity for finding in found)
    known = [count(numbers[severity], severity) for severity in Severity if numbers[severity]]
    return ", ".join(known) or "nothing is wrong"


def _worst(found: list[Finding]) -> Finding:
    return min(found, key=lambda finding: list(Severity).index(finding.severity))


def _exit_code(found: list[Finding] | tuple[Finding, ...]) -> ExitCode:
    wrong = any(finding.severity is Severity.ERROR for finding in found)
    return ExitCode.CONFIGURATION if wrong else ExitCode.DONE


def _word(user_data: UserData) -> str:
    return shlex.quote(str(user_data.path))


def _unfixable(user_data: UserData, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{user_data.name} cannot be mended by a program",
        why=why,
        next_step=f"correct that by hand: cluster check --as {user_data.lineage} {_word(user_data)}",
        findings=tuple(check_data(user_data.data, user_data.name, user_data.lineage)),
    )


def _rewrite(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; its mode stays, and its owner where this process may give files away."""
    try:
        status = path.stat()
        write(path, data, status.st_mode & 0o7777)
        with suppress(PermissionError):
            os.chown(path, status.st_uid, status.st_gid)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        next_step = "make the file and its folder writable, or use --fix with - and a redirection"
        raise CouplerError(f"cannot write {path}: {why}", next_step=next_step) from error


def _difference(old: str, new: str, name: str) -> str:
    """Return a unified diff that ends with a newline, empty where nothing differs.

    A fix changes lines and never their number, so they are compared one by one: difflib takes minutes for what has
    thousands of equal lines.
    """
    pairs = list(zip(_lines(old), _lines(new), strict=True))
    changed = [index for index, (before, after) in enumerate(pairs) if before != after]
    hunks: list[list[int]] = []
    for index in changed:
        if hunks and index - hunks[-1][1] <= 2 * _CONTEXT:
            hunks[-1][1] = index
        else:
            hunks.append([index, index])
    spans = [(max(0, first - _CONTEXT), min(len(pairs), last + _CONTEXT + 1)) for first, last in hunks]
    head = f"--- {name}\n+++ {name}\n" if changed else ""
    return head + "".join(_hunk(pairs[start:end], start) for start, end in spans)


def _hunk(pairs: list[tuple[str, str]], start: int) -> str:
    where = f"{start + 1},{len(pairs)}"
    text = [f"@@ -{where} +{where} @@\n"]
    for same, run in groupby(pairs, lambda pair: pair[0] == pair[1]):
        lines = list(run)
        if same:
            text += [f" {before}" for before, _ in lines]
        else:
            text += [*(f"-{before}" for before, _ in lines), *(f"+{after}" for _, after in lines)]
    return "".join(text)


def _lines(text: str) -> list[str]:
    *whole, rest = text.split("\n")
    return [*(f"{line}\n" for line in whole), *([rest + _NO_NEWLINE] if rest else [])]
