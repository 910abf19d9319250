"""The terminal: answers on standard output, progress and errors on standard error.

Off a terminal there is no colour and no animation; `NO_COLOR` is honoured. Rich is loaded only where something is
animated.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

from coupler.result import (
    HostOutcome,
    Progress,
    Result,
    State,
    StepOutcome,
    Verbatim,
    envelope,
    error_envelope,
)

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

    from coupler.errors import CouplerError, ExitCode

_MARK = {
    State.RUNNING: "…",
    State.OK: "✔",
    State.DONE: "✔",
    State.UNCHANGED: "=",
    State.PLANNED: "→",
    State.FAILED: "✘",
    State.UNREACHABLE: "✘",
    State.SKIPPED: "-",
}
_COLOUR = {
    State.OK: "32",
    State.DONE: "32",
    State.UNCHANGED: "2",
    State.PLANNED: "36",
    State.FAILED: "31",
    State.UNREACHABLE: "31",
    State.SKIPPED: "2",
}


def print_line(text: str) -> None:
    """Print one line of an answer."""
    sys.stdout.write(text.encode("utf-8", "replace").decode() + "\n")
    sys.stdout.flush()


def print_result(verb: str, result: Result, *, as_json: bool) -> None:
    """Print what a verb answers, for a person or as the JSON envelope."""
    if isinstance(result, Verbatim):
        sys.stdout.buffer.write(result.text().encode("utf-8", "surrogateescape"))
        sys.stdout.flush()
        return
    print_line(json.dumps(envelope(verb, result), indent=2) if as_json else result.text())


def print_error(verb: str, error: CouplerError, code: ExitCode, *, as_json: bool) -> None:
    """Print an error: as text on standard error, or as the JSON envelope on standard output."""
    if as_json:
        print_line(json.dumps(error_envelope(verb, error, code), indent=2))
        return
    lines = [finding.text() for finding in error.findings]
    lines.append(_paint("31;1", "error: ", sys.stderr) + str(error))
    lines += [f"  {label}: {text}" for label, text in _details(error) if text]
    sys.stderr.write("\n".join(lines).encode("utf-8", "replace").decode() + "\n")


def progress() -> Progress:
    """Return the display for this standard error: live on a terminal, plain lines elsewhere."""
    return LiveProgress() if _is_terminal(sys.stderr) else PlainProgress(sys.stderr)


def _details(error: CouplerError) -> list[tuple[str, str | None]]:
    return [("why", error.why), ("next", error.next_step), ("log", error.log)]


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _paint(code: str, text: str, stream: TextIO) -> str:
    coloured = _is_terminal(stream) and not os.environ.get("NO_COLOR")
    return f"\033[{code}m{text}\033[0m" if coloured else text


class PlainProgress:
    """One line for each piece of news: `[3/8] publish · node-1: done: text`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._prefix = ""
        self._started = 0.0

    def step(self, number: int, total: int, title: str) -> None:
        """Step `number` of `total` begins."""
        self._prefix = f"[{number}/{total}] {title}"
        self._started = time.monotonic()
        self._write(f"{self._prefix} …")

    def host(self, outcome: HostOutcome) -> None:
        """Tell the news of one host; that it was asked is none."""
        if outcome.state is State.RUNNING and not outcome.text:
            return
        self._write(f"{self._prefix} · {outcome.host}: {outcome.state}" + _tail(outcome.text))

    def finish(self, outcome: StepOutcome) -> None:
        """End the current step."""
        seconds = time.monotonic() - self._started
        self._write(f"{self._prefix}: {outcome.state}{_tail(outcome.text)} ({seconds:.1f} s)")

    def note(self, text: str) -> None:
        """Say one line that belongs to no step."""
        self._write(text)

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class LiveProgress:
    """The finished steps stay as lines; under them the current step with its hosts moves."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._title = ""
        self._started = 0.0
        self._hosts: dict[str, HostOutcome] = {}

    def step(self, number: int, total: int, title: str) -> None:
        """Step `number` of `total` begins."""
        from rich.live import Live

        self._title = f"[{number}/{total}] {title}"
        self._started = time.monotonic()
        self._hosts = {}
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=10, transient=True)
        self._live.start()

    def host(self, outcome: HostOutcome) -> None:
        """Tell the news of one host."""
        self._hosts[outcome.host] = outcome

    def finish(self, outcome: StepOutcome) -> None:
        """End the current step."""
        self._stop()
        seconds = time.monotonic() - self._started
        self._line(outcome.state, f"{self._title}{_tail(outcome.text)} ({seconds:.1f} s)")
        for host in outcome.hosts:
            if host.failed:
                self._line(host.state, f"    {host.host}: {host.state}{_tail(host.text)}")

    def note(self, text: str) -> None:
        """Say one line that belongs to no step."""
        self._console.print(text, markup=False)

    def _stop(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def _line(self, state: State, text: str) -> None:
        sys.stderr.write(_paint(_COLOUR.get(state, "0"), f"{_MARK[state]} ", sys.stderr) + text + "\n")

    def _render(self) -> Group:
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.text import Text

        busy = [host for host in self._hosts.values() if host.state is State.RUNNING]
        settled = len(self._hosts) - len(busy)
        elapsed = time.monotonic() - self._started
        head = f"{self._title}  {settled}/{len(self._hosts)} hosts" if self._hosts else self._title
        shown = [*busy, *(host for host in self._hosts.values() if host.failed)][: self._console.height - 4]
        rows = [Text(f"    {_MARK[host.state]} {host.host}{_tail(host.text)}") for host in shown]
        return Group(Spinner("dots", Text(f"{head}  {elapsed:.0f} s")), *rows)


def _tail(text: str) -> str:
    return f": {text}" if text else ""
