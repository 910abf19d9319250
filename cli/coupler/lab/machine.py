"""One lab machine: its disk, its supervisor, and ways to reach into it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.errors import HostFailedError
from coupler.files import write_whole
from coupler.lab import cgroups
from coupler.lab.keys import ensure_key_pair
from coupler.lab.network import interface_is_up
from coupler.lab.processes import Gated, Process, start_gated, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address

    from coupler.lab.network import Network

_SUPERVISOR = Path(__file__).resolve().parent / "scripts" / "supervise.sh"
_CORE = 500
"""User and group id of `core`, as on Container Linux."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin"


_LOGGED_IN = """\
for profile in /etc/profile.d/*.sh; do [ ! -r "$profile" ] || . "$profile"; done
exec "$@"
"""
"""What a command of root's gets beside a path: what a login sets, such as where etcdctl finds the cluster."""


class Power(StrEnum):
    """How a machine is: running, running with its cable pulled out, or off."""

    RUNNING = "running"
    CUT = "cut"
    OFF = "off"


@dataclass(frozen=True)
class Machine:
    """A machine as a person asks for it: host name, address in the lab's subnet, MAC of its network interface."""

    name: str
    address: IPv4Address
    mac: str


class Guest:
    """A machine within its lab: where its files are and how to boot it, find it and reach into it."""

    def __init__(self, lab_name: str, lab_folder: Path, network: Network, machine: Machine) -> None:
        self.machine = machine
        self.disk = lab_folder / "machines" / machine.name
        self.cable = network.cable(machine.address)
        self.console = self.disk / "console.log"
        self._network = network
        self._unit = f"coupler-lab-{lab_name}-{machine.name}"
        self._seed = f"{lab_name}/{machine.name}"
        self._record = lab_folder / "run" / f"{machine.name}.machine"
        self._host_key = lab_folder / "host-keys" / machine.name

    def make_disk(self, authorized_key: str) -> None:
        """Make the machine's disk where it lacks: empty but for what only this machine has."""
        upper = self.disk / "upper"
        if upper.is_dir():
            return
        draft = self.disk / "upper.new"
        shutil.rmtree(draft, ignore_errors=True)
        for name in ("work", "root", "containers", "containerd"):
            (self.disk / name).mkdir(parents=True, exist_ok=True)
        home = draft / "home" / "core"
        keys = home / ".ssh" / "authorized_keys.d"
        for folder in (draft / "etc" / "ssh", keys):
            folder.mkdir(parents=True)
        (draft / "etc" / "hostname").write_text(f"{self.machine.name}\n")
        (draft / "etc" / "machine-id").write_text(f"{uuid.uuid5(uuid.NAMESPACE_URL, f'coupler:{self._seed}').hex}\n")
        ensure_key_pair(self._host_key, self.machine.name)
        write_whole(draft / "etc" / "ssh" / "ssh_host_ed25519_key", self._host_key.read_bytes(), 0o600)
        for path in (keys / "coupler-lab", home / ".ssh" / "authorized_keys"):
            path.write_text(f"{authorized_key}\n")
            path.chmod(0o600)
        for private in (home, home / ".ssh", keys):
            private.chmod(0o700)
        for path in (home, *home.rglob("*")):
            os.chown(path, _CORE, _CORE)
        draft.rename(upper)

    def known_hosts_line(self) -> str:
        """Return the machine's line for a known_hosts file (sshd(8))."""
        kind, key = ensure_key_pair(self._host_key, self.machine.name).split()[:2]
        return f"{self.machine.address},{self.machine.name} {kind} {key}"

    def spawn(self, layers: Sequence[Path]) -> Gated:
        """Start the machine's supervisor and leave it at its gate, in network and mount namespaces of its own."""
        placement = cgroups.place(self._unit)
        network = self._network
        environment = {
            "MACHINE": self._unit,
            "NODE": self.machine.name,
            "LOWER": ":".join(map(str, layers)),
            "DISK": str(self.disk),
            "ADDRESS": f"{self.machine.address}/{network.subnet.prefixlen}",
            "GATEWAY": str(network.host),
            "GROUPS_OF_MACHINE": " ".join(map(str, placement.groups)),
        }
        (self.disk / "groups").write_text(environment["GROUPS_OF_MACHINE"])
        prefix = (*placement.prefix, "unshare", "--net", "--mount", "--propagation=slave", "--")
        return start_gated(["sh", str(_SUPERVISOR)], self.console, prefix=prefix, environment=environment)

    def record(self, supervisor: Process) -> None:
        """Write down which process supervises the machine."""
        supervisor.save(self._record)

    def supervisor(self) -> Process | None:
        """Return the running supervisor, None where the machine is off."""
        process = Process.load(self._record)
        return process if process and process.alive() else None

    def leader(self) -> Process | None:
        """Return the machine's process 1 as this host sees it, None where the machine is off."""
        supervisor = self.supervisor()
        nspawn = supervisor.child() if supervisor else None
        return nspawn.child() if nspawn else None

    def settled(self) -> bool:
        """Return whether the machine runs, once that is sure.

        A supervisor without a machine is between two boots, or its command line was killed before it opened the gate.
        """
        wait_until(lambda: self.leader() is not None or self.supervisor() is None, time.monotonic() + 10)
        return self.leader() is not None

    def power(self) -> Power:
        """Return how the machine is."""
        if self.supervisor() is None:
            return Power.OFF
        return Power.RUNNING if interface_is_up(self.cable) else Power.CUT

    def answers(self) -> bool:
        """Whether the machine runs and its sshd says its name."""
        # Asked before the machine has its address, the host would wait a whole second before it asks again.
        if self.leader() is None:
            return False
        try:
            with socket.create_connection((str(self.machine.address), 22), timeout=1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def kill(self) -> None:
        """Switch the machine off as a power cut does, and clear away what it leaves outside its disk."""
        supervisor = self.supervisor()
        if supervisor:
            supervisor.kill_group()
        groups = self.disk / "groups"
        if groups.exists():
            cgroups.kill(map(Path, groups.read_text().split()))
        self._record.unlink(missing_ok=True)

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` as root inside the machine.

        Raises:
            HostFailedError: the machine is off.
        """
        leader = self.leader()
        if leader is None:
            name = self.machine.name
            raise HostFailedError("the machine is off", host=name, next_step=f"cluster lab start {name}")
        inside = ["nsenter", f"--target={leader.pid}", *("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")]
        clean = ["env", "-i", f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8"]
        return [*inside, "--", *clean, "sh", "-c", _LOGGED_IN, "sh", *argv]

    def run(self, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run `argv` as root inside the machine and return what became of it."""
        return subprocess.run(self.command(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    def last_words(self) -> str:
        """Return the end of the machine's console, for an error message."""
        try:
            return "\n".join(self.console.read_text(errors="replace").splitlines()[-5:])
        except FileNotFoundError:
            return ""
