"""HAProxy's runtime API over one connection that stays open.

Source: https://docs.haproxy.org/2.6/management.html#9.3. In interactive mode each command's answer ends with a prompt,
and several commands share a line. A process that was replaced by a reload goes on answering connections that it has,
so every exchange ends by asking whether the process is stopping.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.registrator.balancers import BalancerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PROMPT = b"> "
_LONGEST_LINE = 12_000  # bytes; HAProxy reads a line into one buffer of 16,384
_IDLE_SECONDS = 86_400
_DEADLINE = 10.0


class ReplacedError(BalancerError):
    """Another process answers than before: what was said to the old one was said in vain."""


@dataclass(frozen=True, slots=True)
class Process:
    """The process that answered: its pid, when it started, its version, and whether it is on its way out."""

    pid: int
    started: str
    version: str
    stopping: bool

    @classmethod
    def parse(cls, answer: str) -> Process:
        """Return what an answer to `show info` says."""
        pid, started, version, stopping = (_value(answer, name) for name in _SHOWN)
        return cls(int(pid or 0), started, version, stopping not in {"", "0"})

    @property
    def release(self) -> tuple[int, int]:
        """Return the first two numbers of the version."""
        found = _RELEASE.match(self.version)
        return (int(found[1]), int(found[2])) if found else (0, 0)


_SHOWN = ("Pid", "Start_time_sec", "Version", "Stopping")
_RELEASE = re.compile(r"(\d+)\.(\d+)")


def _value(answer: str, name: str) -> str:
    _, found, rest = f"\n{answer}".partition(f"\n{name}: ")
    return rest.partition("\n")[0] if found else ""


class RuntimeSocket:
    """A connection to HAProxy's stats socket, made when it is first used, and again when it was lost."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._process: Process | None = None
        self._one_at_a_time = asyncio.Lock()

    async def ask(self, commands: Sequence[str]) -> list[str]:
        """Return the answers to `commands`, in order. A payload (`<<`) has a line to itself.

        Raises BalancerError where HAProxy does not answer, and ReplacedError where the process is not the one that
        answered before, or is being replaced: after it, `process` says who answers now.
        """
        if not commands:
            return []
        answers = await self._exchange([*commands, "show info"])
        process = Process.parse(answers[-1])
        if process.stopping or process != (self._process or process):
            self.forget()
            self._process = None
            raise ReplacedError(f"HAProxy behind {self.path} was replaced meanwhile", "its successor is asked next")
        self._process = process
        return answers[:-1]

    async def process(self) -> Process:
        """Return who answers now: a process that is stopping is left, and its successor asked."""
        process = Process.parse((await self._exchange(["show info"]))[0])
        if process.stopping:
            self.forget()
            process = Process.parse((await self._exchange(["show info"]))[0])
        self._process = process
        return process

    def forget(self) -> None:
        """Close the connection; the next question makes a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, commands: Sequence[str]) -> list[str]:
        try:
            async with self._one_at_a_time, asyncio.timeout(_DEADLINE):
                return await self._speak(commands)
        except (OSError, EOFError, TimeoutError) as error:
            self.forget()
            raise BalancerError(
                f"HAProxy does not answer on {self.path}",
                str(error) or type(error).__name__,
                "is HAProxy running, with `stats socket PATH level admin expose-fd listeners`?",
            ) from error
        except BaseException:
            self.forget()  # an exchange that was cut short would leave its answers to the next one
            raise

    async def _speak(self, commands: Sequence[str]) -> list[str]:
        if self._streams is None or self._streams[0].at_eof():
            self.forget()
            self._streams = await asyncio.open_unix_connection(self.path, limit=2**26)
            await self._line("prompt", 1)
            await self._line(f"set timeout cli {_IDLE_SECONDS}", 1)
        answers: list[str] = []
        for line, count in _lines(commands):
            answers += await self._line(line, count)
        return answers

    async def _line(self, line: str, count: int) -> list[str]:
        if self._streams is None:
            raise EOFError("not connected")
        reader, writer = self._streams
        writer.write(line.encode() + b"\n")
        await writer.drain()
        return [(await _answer(reader)).decode("utf-8", "replace").strip() for _ in range(count)]


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Return one answer without its prompt: a prompt stands at the beginning of a line, or behind a payload's `+ `."""
    answer = b""
    while not answer.endswith(b"\n" + _PROMPT):
        answer += await reader.readuntil(_PROMPT)
    return answer[: -len(_PROMPT)]


def _lines(commands: Sequence[str]) -> list[tuple[str, int]]:
    """Return `commands` packed into lines, each with the number of answers that it brings."""
    lines: list[tuple[str, int]] = []
    for command in commands:
        joined = f"{lines[-1][0]}; {command}" if lines else command
        alone = "<<" in command or not lines or "<<" in lines[-1][0]
        if alone or len(joined) > _LONGEST_LINE:
            lines.append((command, 1))
        else:
            lines[-1] = (joined, lines[-1][1] + 1)
    return lines
