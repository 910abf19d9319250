"""The lab: machines with systemd and sshd on one bridge of this host, a git server and a mirror beside them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from platformdirs import user_cache_path, user_data_path, user_state_path

from coupler.errors import UsageError
from coupler.files import write_whole
from coupler.lab import kernel, mirror
from coupler.lab.admission import network_of, refuse_clashes, refuse_network
from coupler.lab.boot import await_all, boot, each
from coupler.lab.image import Image, ensure_image, keep_image, mount_root, unmount_root
from coupler.lab.keys import ensure_key_pair
from coupler.lab.machine import Guest, Machine, Power
from coupler.lab.network import (
    FIRST_HOST,
    Network,
    any_lab_is_up,
    ip_batch,
    stable_mac,
    take_network,
)
from coupler.lab.registrator import ensure_registrator
from coupler.lab.requirements import demand
from coupler.lab.servers import MIRROR_PORT, Server, git_server, mirror_server, wait_for
from coupler.lab.state import LabState, all_labs, locked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network
    from pathlib import Path

    from coupler.lab.building import Tell


def shared_mirror() -> Path:
    """Return the folder that the mirror of a lab serves where no other is given; all labs of this user share it."""
    return user_data_path("coupler") / "mirror"


@dataclass(frozen=True)
class MachineStatus:
    """One machine and how it is: running, running with its cable cut, or off."""

    machine: Machine
    power: Power


@dataclass(frozen=True)
class LabStatus:
    """What is there of a lab."""

    name: str
    subnet: IPv4Network | None
    machines: tuple[MachineStatus, ...]
    servers: Mapping[str, bool]


class Lab:
    """One lab of this user, by name. Making the object does nothing yet.

    The key pair, host keys, subnet and git repository of a lab stay until `down(forget=True)`: a machine that is made
    anew is the same machine with an empty disk. `mirror_folder` is what the mirror serves, by default a folder that all
    labs share; from `image` on it has what the lab needs, and is a folder of links where the one given is read-only.
    """

    def __init__(self, name: str, mirror_folder: Path | None = None) -> None:
        self.name = name
        self._labs = user_state_path("coupler") / "lab"
        self._cache = user_cache_path("coupler") / "lab"
        self.folder = self._labs / name
        self.mirror_folder = mirror_folder or shared_mirror()
        self.private_key = self.folder / "id_ed25519"
        self.known_hosts = self.folder / "known_hosts"
        self.repository_path = self.folder / "git" / f"{name}.git"

    # What it is

    @property
    def network(self) -> Network:
        """The lab's network; the first look at it takes a free one and keeps it."""
        network = self._state.network
        if network is None:
            with locked(self._labs):
                taken = {state.network for state in all_labs(self._labs).values() if state.network}
                network = take_network(self._owner, taken)
                self._save(replace(self._state, network=network))
        return network

    @property
    def subnet(self) -> IPv4Network:
        """The lab's addresses, a /24."""
        return self.network.subnet

    @property
    def repository_url(self) -> str:
        """The git repository as machines reach it. The host pushes to `repository_path`."""
        return f"git://{self.network.host}/{self.repository_path.name}"

    @property
    def mirror_url(self) -> str:
        """The mirror as machines reach it."""
        return f"http://{self.network.host}:{MIRROR_PORT}"

    @property
    def public_key(self) -> str:
        """The one-line public half of `private_key`, which logs in on every machine; the pair is made at first."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return ensure_key_pair(self.private_key, f"coupler-lab-{self.name}")

    def plan(self, count: int) -> tuple[Machine, ...]:
        """Return `count` machines for this lab, node-1 and on, at .11 and on."""
        if not 1 <= count <= self.subnet.num_addresses - FIRST_HOST - 1:
            raise UsageError(f"a lab has 1 to {self.subnet.num_addresses - FIRST_HOST - 1} machines, not {count}")
        addresses = [self.subnet[FIRST_HOST + number] for number in range(count)]
        return tuple(self.machine(f"node-{number}", address) for number, address in enumerate(addresses, 1))

    def machine(self, name: str, address: IPv4Address, mac: str | None = None) -> Machine:
        """Return a machine of this lab; its MAC follows from the names where none is given."""
        return Machine(name, address, mac or stable_mac(f"{self.name}/{name}"))

    def image(self, tell: Tell = lambda _: None) -> Image:
        """Return the image of this lab's machines, built at first; etcd and registrator in the mirror come with it."""
        demand()
        image = self._state.image
        if image is None or not (image.root.is_file() and image.applier.is_dir()):
            image = ensure_image(self._cache, tell)
        registrator = ensure_registrator(self._cache, tell)
        given = mirror.origin_of(self.mirror_folder)
        self.mirror_folder = mirror.stocked(given, self.folder / "mirror", image, registrator, tell)
        return image

    def claim(self, folder: Path) -> None:
        """Make this the lab of the cluster.yaml in `folder`: another cluster of the same name must not take it over.

        Raises:
            UsageError: it is the lab of a cluster.yaml that is still there, in another folder.
        """
        with locked(self._labs):
            state = self._state
            if state.home not in {None, folder} and (state.home / "cluster.yaml").exists():
                raise UsageError(
                    f"there is a lab '{self.name}' already",
                    why=f"it belongs to the cluster.yaml in {state.home}",
                    next_step=f"give this cluster another name, or run cluster lab down --forget in {state.home}",
                )
            self._save(replace(state, home=folder))

    # Up and down

    def up(self, machines: Sequence[Machine], tell: Tell = lambda _: None) -> tuple[Machine, ...]:
        """Boot those of `machines` that are off, and what they need, and wait until sshd answers on all of them.

        Returns the machines that were booted; none where everything was there. Machines of the lab that are not named
        stay as they are.

        Raises:
            UsageError: an address is outside the lab's subnet, or clashes with a machine that the lab has.
            CouplerError: this host lacks something, or a machine does not come up.
        """
        image = self.image(tell)
        with locked(self.folder):
            self._settle(machines, image)
            keep_image(self._cache, image)
            with locked(self._labs):
                self.network.raise_bridge(self._owner)
                kernel.raise_limits()
            self._make_folders()
            servers = self._servers()
            for server in servers:
                server.start()
            booted = self._boot(machines, image)
            wait_for(servers)
        return booted

    def start(self, *names: str) -> tuple[Machine, ...]:
        """Switch the named machines on and wait for them; return those that were off."""
        return self.up([guest.machine for guest in self._named(names)])

    def kill(self, *names: str) -> None:
        """Switch the named machines off at once, as a power cut does."""
        with locked(self.folder):
            each(self._named(names), Guest.kill)

    def replace(self, *names: str) -> None:
        """Put new machines in the place of the named ones: what was on their disks is lost. They are booted."""
        guests = self._named(names)
        with locked(self.folder):
            each(guests, Guest.kill)
            for guest in guests:
                if guest.disk.exists():
                    shutil.rmtree(guest.disk)
        self.start(*names)

    def reboot(self, *names: str) -> None:
        """Reboot the named machines, all at the same time, and wait until sshd answers again."""
        guests = self._named(names)
        before = {guest.machine.name: guest.leader() for guest in guests}
        for guest in guests:
            guest.run(["systemctl", "reboot"])
        await_all(guests, lambda guest: guest.leader() not in {None, before[guest.machine.name]} and guest.answers())

    def cut(self, *names: str) -> None:
        """Pull the network cables of the named machines: they keep their addresses and hear nobody."""
        self._set_cables(names, "down")

    def heal(self, *names: str) -> None:
        """Put the network cables of the named machines in again."""
        self._set_cables(names, "up")

    def stop_git(self) -> None:
        """Stop the git server; `start_git` or the next `up` starts it again."""
        git_server(self.folder, self.network, self.repository_path.parent).stop()

    def start_git(self) -> None:
        """Start the git server where it does not run."""
        server = git_server(self.folder, self.network, self.repository_path.parent)
        server.start()
        wait_for([server])

    def command(self, name: str, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` as root in machine `name`, past the network."""
        return self._named([name])[0].command(argv)

    def exec(self, name: str, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run `argv` as root in machine `name`, past the network, and return its exit code and output."""
        return self._named([name])[0].run(argv)

    def ssh_command(self, name: str, argv: Sequence[str] = ()) -> list[str]:
        """Return the ssh command to user `core` on machine `name`, with its host key verified."""
        address = self._named([name])[0].machine.address
        options = [f"UserKnownHostsFile={self.known_hosts}", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"]
        flags = [flag for option in options for flag in ("-o", option)]
        return ["ssh", "-F", "none", *flags, "-i", str(self.private_key), f"core@{address}", *argv]

    def down(self, *, forget: bool = False) -> bool:
        """Switch everything off and delete the machines' disks; return whether there was anything.

        Works on whatever a crash or a reboot of the host has left. With `forget` the keys, the subnet and the git
        repository go too.
        """
        if not self.folder.exists():
            return False
        with locked(self.folder):
            state = self._state
            there = bool(state.machines) or (state.network is not None and state.network.owner() == self._owner)
            each([self._guest(machine) for machine in state.machines], Guest.kill)
            if state.network:
                for server in self._servers():
                    server.stop()
                state.network.remove(self._owner)
            unmount_root(self._root)
            for leftover in ("machines", "run", "root", "log"):
                if (self.folder / leftover).exists():
                    shutil.rmtree(self.folder / leftover)
            self._save(replace(state, image=None, machines=()))
        with locked(self._labs):
            if forget:
                shutil.rmtree(self.folder)
            if not any_lab_is_up():
                kernel.restore_limits()
        return there

    def status(self) -> LabStatus:
        """Return what is there of the lab now."""
        state = self._state
        return LabStatus(
            name=self.name,
            subnet=state.network.subnet if state.network else None,
            machines=tuple(MachineStatus(machine, self._guest(machine).power()) for machine in state.machines),
            servers={server.name: server.runs() for server in self._servers()} if state.network else {},
        )

    # How

    @property
    def _state(self) -> LabState:
        return LabState.load(self.folder / "lab.json")

    def _save(self, state: LabState) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state.save(self.folder / "lab.json")

    @property
    def _owner(self) -> str:
        """How the bridge says whose it is: labs of other users and other state folders share this host's network."""
        return str(self.folder)

    @property
    def _root(self) -> Path:
        """Where the root is mounted that the disks of all machines lie over."""
        return self.folder / "root"

    def _servers(self) -> tuple[Server, Server]:
        return (
            git_server(self.folder, self.network, self.repository_path.parent),
            mirror_server(self.folder, self.network, self.mirror_folder),
        )

    def _guest(self, machine: Machine) -> Guest:
        return Guest(self.name, self.folder, self.network, machine)

    def _named(self, names: Iterable[str]) -> list[Guest]:
        known = {machine.name: machine for machine in self._state.machines}
        for name in names:
            if name not in known:
                raise UsageError(
                    f"lab '{self.name}' has no machine '{name}'",
                    why=f"it has {', '.join(known) or 'none: it is down'}",
                    next_step="cluster lab status" if known else "cluster lab up",
                )
        return [self._guest(known[name]) for name in names]

    def _set_cables(self, names: Iterable[str], position: str) -> None:
        guests = self._named(names)
        off = [guest.machine.name for guest in guests if guest.power() is Power.OFF]
        if off:
            raise UsageError(f"{', '.join(off)}: the machine is off", next_step=f"cluster lab start {' '.join(off)}")
        ip_batch(*(f"link set {guest.cable} {position}" for guest in guests))

    def _settle(self, machines: Sequence[Machine], image: Image) -> None:
        """Check `machines` against the lab, take the network their addresses ask for, and write everything down."""
        network = network_of(machines)
        with locked(self._labs):
            labs = all_labs(self._labs)
            own = labs.pop(self.name, LabState())
            if network != own.network:
                refuse_network(network, own, labs)
            kept = {machine.name: machine for machine in own.machines}
            kept.update({machine.name: kept.get(machine.name, machine) for machine in machines})
            refuse_clashes(machines, kept)
            self._save(replace(own, network=network, image=image, machines=tuple(kept.values())))

    def _make_folders(self) -> None:
        for name in ("run", "log", "root", "host-keys", "git"):
            (self.folder / name).mkdir(exist_ok=True)
        if not (self.repository_path / "HEAD").exists():
            argv = ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(self.repository_path)]
            subprocess.run(argv, check=True, capture_output=True)

    def _boot(self, machines: Sequence[Machine], image: Image) -> tuple[Machine, ...]:
        """Boot those of `machines` that are off and return them; wait for all whose cable is in."""
        guests = [self._guest(machine) for machine in self._state.machines]
        asked = [guest for guest in guests if guest.machine in machines]
        off = [guest for guest, running in zip(asked, each(asked, Guest.settled), strict=True) if not running]
        if off:
            mount_root(image, self._root)
        for guest in off:
            guest.kill()
            guest.make_disk(self.public_key)
        write_whole(self.known_hosts, "".join(f"{guest.known_hosts_line()}\n" for guest in guests))
        boot(off, [image.applier, self._root], self.network)
        await_all([guest for guest in asked if guest.power() is not Power.CUT], Guest.answers)
        return tuple(guest.machine for guest in off)
