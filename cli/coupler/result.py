"""What a command answers, and what a workflow tells while it works.

A verb returns one frozen `Result`; the human text and the JSON envelope both come from it. A workflow reports
through `Progress`, which `ui` implements for a terminal and for plain lines.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from coupler.errors import CouplerError, ExitCode, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ENVELOPE_VERSION = 1
"""Version of the JSON envelope. It grows when a field changes its meaning or goes away, not when one is added."""

Json = dict[str, Any]


class Result(Protocol):
    """The answer of one verb."""

    @property
    def exit_code(self) -> ExitCode:
        """How the process ends."""

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data, the `data` of the envelope."""

    def text(self) -> str:
        """Return the answer for a person, without a newline at the end."""


@dataclass(frozen=True)
class Text:
    """An answer that is one text for people and one object for programs."""

    body: str
    payload: Json
    exit_code: ExitCode = ExitCode.DONE

    def data(self) -> Json:
        """Return the object for programs."""
        return self.payload

    def text(self) -> str:
        """Return the text for people."""
        return self.body.rstrip("\n")


@dataclass(frozen=True)
class Verbatim(Text):
    """An answer that another program could have given: printed byte for byte, whatever `--output` says."""

    def text(self) -> str:
        """Return the text as it is."""
        return self.body


def envelope(verb: str, result: Result) -> Json:
    """Return the JSON envelope of a verb that answered."""
    return {
        "version": ENVELOPE_VERSION,
        "verb": verb,
        "ok": result.exit_code == ExitCode.DONE,
        "exit_code": int(result.exit_code),
        "data": result.data(),
        "error": None,
    }


def error_envelope(verb: str, error: CouplerError, exit_code: ExitCode) -> Json:
    """Return the JSON envelope of a verb that failed with `error`."""
    return {
        "version": ENVELOPE_VERSION,
        "verb": verb,
        "ok": False,
        "exit_code": int(exit_code),
        "data": None,
        "error": {
            "what": error.what,
            "why": error.why,
            "next_step": error.next_step,
            "host": error.host,
            "log": error.log,
            "findings": [finding_data(finding) for finding in error.findings],
        },
    }


def finding_data(finding: Finding) -> Json:
    """Return a finding as JSON-serialisable data."""
    return {
        "code": finding.code,
        "severity": str(finding.severity),
        "message": finding.message,
        "file": finding.location.file,
        "line": finding.location.line,
        "column": finding.location.column,
        "hint": finding.hint,
        "fixable": bool(finding.fix),
    }


class State(StrEnum):
    """What became of a step, or of one host in a step."""

    RUNNING = "running"
    OK = "ok"
    DONE = "done"
    UNCHANGED = "unchanged"
    PLANNED = "planned"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class HostOutcome:
    """What became of one host: the state, one line that says why, and what to do next where something failed."""

    host: str
    state: State
    text: str = ""
    next_step: str | None = None

    @property
    def failed(self) -> bool:
        """Whether this host needs a person."""
        return self.state in {State.FAILED, State.UNREACHABLE}

    def data(self) -> Json:
        """Return the outcome as JSON-serialisable data."""
        return {"host": self.host, "state": str(self.state), "text": self.text, "next_step": self.next_step}


@dataclass(frozen=True)
class StepOutcome:
    """What became of one step of a workflow."""

    title: str
    state: State
    text: str = ""
    hosts: tuple[HostOutcome, ...] = ()

    def data(self) -> Json:
        """Return the outcome as JSON-serialisable data."""
        return {
            "title": self.title,
            "state": str(self.state),
            "text": self.text,
            "hosts": [host.data() for host in self.hosts],
        }


class Progress(Protocol):
    """Where a workflow says what it is doing."""

    def step(self, number: int, total: int, title: str) -> None:
        """Step `number` of `total` begins."""

    def host(self, outcome: HostOutcome) -> None:
        """Tell the news of one host within the current step."""

    def finish(self, outcome: StepOutcome) -> None:
        """End the current step."""

    def note(self, text: str) -> None:
        """Say one line that belongs to no step."""


def overall(hosts: Iterable[HostOutcome]) -> State:
    """Return the state of a step from its hosts: the worst failure, else whether anything was or would be done."""
    states = {host.state for host in hosts}
    order = (State.FAILED, State.UNREACHABLE, State.DONE, State.PLANNED, State.UNCHANGED)
    return next((state for state in order if state in states), State.OK)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "") -> str:
    """Return rows as aligned columns under `head`, two blanks apart, without blanks at line ends."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        indent + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 node`, `3 nodes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def json_object(text: str) -> Json:
    """Return the JSON object that a program printed; an empty one where it printed anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
