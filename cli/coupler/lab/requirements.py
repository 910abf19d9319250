"""What the lab needs of this host, looked at without changing anything."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_state_path

from coupler.errors import CouplerError
from coupler.lab import cgroups

_PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "mksquashfs": "squashfs-tools",
    "git": "git",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "strip": "binutils",
    "dpkg-deb": "dpkg",
}
"""Programs, and the Debian package of each."""

_MODULES = ("PyInstaller", "aiohttp", "orjson", "prometheus_client")
"""What builds the machines' coreos-cloudinit and registrator, and what the registrator is built of."""


@dataclass(frozen=True)
class Requirement:
    """One thing the lab needs: whether it is there, what was found, and the command that mends it."""

    what: str
    ok: bool
    found: str
    mend: str | None = None


def requirements() -> list[Requirement]:
    """Look at everything that the lab needs of this host."""
    return [
        Requirement("root", os.geteuid() == 0, f"user id {os.geteuid()}", "run the command with sudo"),
        *(_program(program, package) for program, package in _PROGRAMS.items()),
        *(_module(name) for name in _MODULES),
        *(_file_system(kind) for kind in ("overlay", "squashfs")),
        _disk(),
        _control_groups(),
    ]


def demand() -> None:
    """Refuse to go on where something is missing.

    Raises:
        CouplerError: it names all that is missing and how to mend it.
    """
    missing = [requirement for requirement in requirements() if not requirement.ok]
    if missing:
        mends = dict.fromkeys(requirement.mend for requirement in missing if requirement.mend)
        raise CouplerError(
            "this host cannot run the lab",
            why="; ".join(f"{requirement.what}: {requirement.found}" for requirement in missing),
            next_step="; ".join(mends),
        )


def _program(program: str, package: str) -> Requirement:
    path = shutil.which(program)
    return Requirement(program, path is not None, path or "not found", f"apt-get install {package}")


def _module(name: str) -> Requirement:
    there = importlib.util.find_spec(name) is not None
    return Requirement(name, there, "there" if there else "not found", "pip install 'coupler[lab]'")


def _file_system(kind: str) -> Requirement:
    # A module that is not loaded yet is not listed, so a miss is asked about once more, loading it.
    if not _listed(kind) and os.geteuid() == 0 and shutil.which("modprobe"):
        subprocess.run(["modprobe", kind], capture_output=True, check=False)
    there = _listed(kind)
    found = "the kernel has it" if there else "the kernel does not have it"
    return Requirement(f"file system {kind}", there, found, f"modprobe {kind}")


def _listed(kind: str) -> bool:
    return kind in Path("/proc/filesystems").read_text().split()


def _disk() -> Requirement:
    folder = user_state_path("coupler")
    kind = _kind_at(folder)
    ok = kind not in {"overlay", "nfs", "nfs4", "fuse.sshfs", "9p", "vfat"}
    mend = "set XDG_STATE_HOME to a folder on ext4, xfs or btrfs"
    return Requirement("a file system for the machines' disks", ok, f"{kind} at {folder}", mend)


def _kind_at(folder: Path) -> str:
    """Return the type of the file system that holds `folder`, or will: the longest mount point above it."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount = before.split()[4]
        if folder.is_relative_to(mount) and len(mount) >= len(best):
            best, kind = mount, after.split()[0]
    return kind


def _control_groups() -> Requirement:
    found = cgroups.describe()
    return Requirement("control groups", bool(found), found or "not mounted", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")
