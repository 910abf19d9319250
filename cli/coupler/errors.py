"""What can go wrong, said once and in full.

An error has what happened (with host, file and line), why, and what to do next. It is raised where its cause is
known and turned into text and an exit code in `__main__` alone. This module imports nothing of the project: it is
also part of the programs that run on nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import lru_cache


class ExitCode(IntEnum):
    """Exit codes of `cluster`; the same for every verb, but that 1 means 'differs' where it compares, as in diff(1)."""

    DONE = 0
    FAILED = 1
    DIFFERS = 1
    USAGE = 2
    CONFIGURATION = 3
    UNREACHABLE = 4
    HOST_FAILED = 5
    INTERRUPTED = 130


class Severity(StrEnum):
    """How bad a finding is: an error stops the work, a warning explains a risk."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Location:
    """A place in a text file. Lines and columns count from 1; line 0 means 'the file as a whole'."""

    file: str
    line: int = 0
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Edit:
    """A change of a text: what replaces its characters from `start` up to, not including, `end` (from 0)."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    `code` is stable and kebab-case (tests and fixtures are named after it), `excerpt` holds the numbered source
    lines up to and including the one in question, `hint` the way out where one can be computed, `fix` the edits of
    the file that mend it where a program can.
    """

    code: str
    severity: Severity
    message: str
    location: Location
    excerpt: tuple[tuple[int, str], ...] = ()
    hint: str | None = None
    fix: tuple[Edit, ...] = ()

    def text(self) -> str:
        """Return the finding as a person reads it: place, cause, context with a caret, way out."""
        column = self.location.column - 1
        left = max(0, column - _MAX_SHOWN // 2)
        lines = [f"{self.location}: {self.severity}: {self.message} [{self.code}]"]
        lines += [f"{number:>5} | {source[left : left + _MAX_SHOWN]}" for number, source in self.excerpt]
        if self.excerpt and self.excerpt[-1][0] == self.location.line:
            before = self.excerpt[-1][1][left:column]
            lines.append(f"      | {''.join(c if c == _TAB else ' ' for c in before.ljust(column - left))}^")
        if self.hint:
            lines.append(f"      = {self.hint}")
        return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in "\n".join(lines))


_MAX_SHOWN, _TAB = 200, "\t"


def excerpt_of(text: str, line: int, context: int = 2) -> tuple[tuple[int, str], ...]:
    """Return line number `line` (from 1) of `text` with up to `context` lines before it, numbered."""
    lines = _lines_of(text)
    return tuple((number, lines[number - 1]) for number in range(max(1, line - context), min(line, len(lines)) + 1))


@lru_cache(maxsize=2)
def _lines_of(text: str) -> list[str]:
    return text.splitlines()  # of a large text with many findings, once


@dataclass
class CouplerError(Exception):
    """Something went wrong that a person can act on.

    `what` happened, `why`, what to do `next_step`, on which `host`, and the `log` that has the rest.
    """

    what: str
    why: str | None = None
    next_step: str | None = None
    host: str | None = None
    log: str | None = None
    findings: tuple[Finding, ...] = field(default=())

    exit_code = ExitCode.FAILED

    def __str__(self) -> str:
        return f"{self.host}: {self.what}" if self.host else self.what

    @property
    def summary(self) -> str:
        """Return what happened and why, in one line."""
        return f"{self.what}: {self.why}" if self.why else self.what


class UsageError(CouplerError):
    """The command line asks for something that cannot be."""

    exit_code = ExitCode.USAGE


class ConfigurationError(CouplerError):
    """cluster.yaml, or a file that it names, is wrong; `findings` say where."""

    exit_code = ExitCode.CONFIGURATION


class UnreachableError(CouplerError):
    """A host, or the git repository, does not answer."""

    exit_code = ExitCode.UNREACHABLE


class HostFailedError(CouplerError):
    """A host answered, and the work on it failed."""

    exit_code = ExitCode.HOST_FAILED
