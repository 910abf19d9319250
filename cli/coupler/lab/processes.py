"""Processes that outlive this one: started detached, written down before they do anything, found again by record.

A process waits at a gate until its record is on disk. Whatever kills the command line before that closes the gate's
pipe, and the process ends without having begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.errors import CouplerError
from coupler.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_GATE = ["sh", "-c", 'echo && read -r _ && exec "$@" </dev/null >&2', "gate"]
_STATE, _GROUP, _STARTED = 0, 2, 19
"""Indices into what follows the name in /proc/PID/stat (proc_pid_stat(5): fields 3, 5 and 22)."""


@dataclass(frozen=True)
class Process:
    """One process for all time: a process id alone is used again, and after a boot of the host so is its start time.

    `started` is in clock ticks since the boot `boot`.
    """

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the running process `pid`.

        Raises:
            ProcessLookupError: there is none.
        """
        stat = _stat(pid)
        if stat is None:
            raise ProcessLookupError(pid)
        return cls(pid, int(stat[_STARTED]), _boot_id())

    @classmethod
    def load(cls, record: Path) -> Process | None:
        """Return the process that was written to `record`; None where nothing usable stands there."""
        try:
            return cls(**json.loads(record.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def save(self, record: Path) -> None:
        """Write the process to `record`, whole or not at all."""
        write_whole(record, json.dumps(asdict(self)))

    def alive(self) -> bool:
        """Whether this very process still runs."""
        stat = _stat(self.pid)
        if stat is None or int(stat[_STARTED]) != self.started or self.boot != _boot_id():
            return False
        if stat[_STATE] == "Z":
            _reap(self.pid)
            return False
        return True

    def child(self) -> Process | None:
        """Return the first child of this process, None while there is none."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            return Process.of(int(children[0])) if children else None
        except (FileNotFoundError, ProcessLookupError):
            return None

    def kill_group(self) -> None:
        """Kill this process and the group that it leads, with SIGKILL, and wait until all have ended.

        A leader that has ended may have left members; as long as there are any, its id is not given to anybody else.

        Raises:
            CouplerError: one of them has not ended after 10 s.
        """
        leader = _stat(self.pid)
        if self.boot != _boot_id() or (leader is not None and int(leader[_STARTED]) != self.started):
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
            if not wait_until(lambda: not _group_lives(self.pid), time.monotonic() + 10):
                raise CouplerError(f"process group {self.pid} does not end", why="it was sent SIGKILL 10 s ago")
            _reap(self.pid)


@dataclass(frozen=True)
class Gated:
    """A process that has been started and waits at its gate."""

    pid: int
    _to: int
    _from: int

    def wait_at_gate(self) -> Process:
        """Return the process once it stands at the gate, so in the namespaces that its prefix makes.

        Raises:
            CouplerError: it ended before.
        """
        if not os.read(self._from, 1):
            raise CouplerError(f"process {self.pid} ended before it had begun")
        return Process.of(self.pid)

    def release(self) -> None:
        """Let the process begin. One that has ended meanwhile is found out where its work is missed."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._to, b"\n")
        self.close()

    def close(self) -> None:
        """Close the pipes; a process still at its gate ends."""
        for descriptor in (self._to, self._from):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def start_gated(
    argv: Sequence[str], log: Path, *, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Gated:
    """Start `argv` detached, in a session of its own, stopped at a gate that stands behind `prefix`.

    `prefix` is a command such as `unshare --net` that goes on as the command behind it under the same process id.
    Standard output and error go to `log`, once the gate is open.
    """
    command = [*prefix, *_GATE, *argv]
    gate_in, to_gate = os.pipe()
    from_gate, gate_out = os.pipe()
    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        pid = os.posix_spawnp(
            command[0],
            command,
            {**os.environ, **(environment or {})},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, gate_in, 0),
                (os.POSIX_SPAWN_DUP2, gate_out, 1),
                (os.POSIX_SPAWN_DUP2, errors, 2),
            ],
            setsid=True,
        )
    finally:
        for descriptor in (gate_in, gate_out, errors):
            os.close(descriptor)
    return Gated(pid, to_gate, from_gate)


def wait_until(condition: Callable[[], bool], deadline: float) -> bool:
    """Look every 10 ms whether `condition` holds, until the monotonic time `deadline`; return whether it did."""
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _group_lives(group: int) -> bool:
    """Whether a process of the group has not ended; one that only waits for its parent's notice has."""
    stats = (_stat(int(entry.name)) for entry in Path("/proc").glob("[0-9]*"))
    return any(stat is not None and int(stat[_GROUP]) == group and stat[_STATE] not in "ZX" for stat in stats)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
