"""Where a machine's processes are accounted: the one place that knows the host's control groups.

Two kinds of host:

- **systemd is process 1 and cgroup version 2 is in charge** (a laptop): systemd owns the tree, so it is asked for a
  scope with `Delegate=yes`, and the machine lives below that scope.
- **everything else** (cgroup version 1, a mixture, or a container without systemd): the machine gets a group of its
  own in every hierarchy, below the group this process is in.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Placement:
    """Where one machine goes: the command that its supervisor starts behind, and its group in each hierarchy."""

    prefix: tuple[str, ...]
    groups: tuple[Path, ...]


def place(unit: str) -> Placement:
    """Return the placement of the machine that is called `unit` on this host."""
    if _systemd_delegates():
        scope = f"{unit}.scope"
        prefix = (
            *("systemd-run", "--scope", "--quiet", "--collect"),
            *(f"--unit={scope}", "--slice=machine.slice", "--property=Delegate=yes"),
        )
        return Placement(prefix, (_ROOT / "machine.slice" / scope,))
    return Placement((), tuple(group / unit for group in own_groups()))


def own_groups(
    groups: str | None = None,
    mounts: str | None = None,
) -> tuple[Path, ...]:
    """Return the folder of this process's group in each mounted hierarchy.

    `groups` and `mounts` are the texts of /proc/self/cgroup and /proc/self/mountinfo (cgroups(7), proc(5)).
    """
    groups = Path("/proc/self/cgroup").read_text() if groups is None else groups
    mounts = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    hierarchies = _mounted(mounts)
    found = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        for mount, root, options in hierarchies:
            if set(controllers.split(",")) <= options:
                found.append(mount / os.path.relpath(path, root))
                break
    return tuple(found)


def kill(groups: Iterable[Path]) -> None:
    """Kill every process in `groups` and below with SIGKILL, then remove the groups.

    Raises:
        OSError: a group still has processes after 10 s.
    """
    deadline = time.monotonic() + 10
    for group in groups:
        while not _emptied(group):
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "processes do not end", str(group))
            time.sleep(0.005)


def describe() -> str:
    """Return what this host has, in words for `doctor`; empty where it has no control groups."""
    if _systemd_delegates():
        return "version 2, delegated by systemd"
    options = [options for _, _, options in _mounted(Path("/proc/self/mountinfo").read_text())]
    versions = dict.fromkeys("version 2" if option == {""} else "version 1" for option in options)
    return f"{' and '.join(versions)}, not delegated by systemd" if versions else ""


def _systemd_delegates() -> bool:
    """Whether systemd is process 1 (sd_booted(3)) and version 2 is mounted alone."""
    return Path("/run/systemd/system").is_dir() and (_ROOT / "cgroup.controllers").exists()


def _mounted(mounts: str) -> list[tuple[Path, str, set[str]]]:
    """Return mount point, mounted root and options of each hierarchy; version 2 has the empty option, as its group."""
    found = []
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind in {"cgroup", "cgroup2"}:
            found.append((Path(mount), root, {""} if kind == "cgroup2" else set(options.split(","))))
    return found


def _emptied(group: Path) -> bool:
    """Kill what is in `group`, remove the folders that are empty, and return whether that was all."""
    for folder, _, _ in os.walk(group, topdown=False):
        try:
            for pid in Path(folder, "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            Path(folder).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
