"""The lab's network: a bridge of its own on this host, one subnet, one cable for each machine.

All names follow from the number of the subnet: bridge `coupler-7`, cable to .11 `coupler-7-11`. A cable is a veth pair
whose far end, `host0`, lies in the machine's network namespace and goes away with it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.errors import CouplerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

LABS = IPv4Network("10.213.0.0/16")
"""Every lab gets a /24 of this."""

FIRST_HOST = 11
"""The last part of the first machine's address. The host has .1."""


@dataclass(frozen=True)
class Network:
    """The network of one lab: 10.213.`number`.0/24."""

    number: int

    @classmethod
    def holding(cls, address: IPv4Address) -> Network | None:
        """Return the lab network that `address` belongs to, None where it belongs to none."""
        return cls(address.packed[2]) if address in LABS and address.packed[3] not in {0, 1, 255} else None

    @property
    def subnet(self) -> IPv4Network:
        """The addresses."""
        return IPv4Network((int(LABS.network_address) + (self.number << 8), 24))

    @property
    def host(self) -> IPv4Address:
        """The host's own address on the bridge."""
        return self.subnet[1]

    @property
    def bridge(self) -> str:
        """The interface name of the bridge."""
        return f"coupler-{self.number}"

    def cable(self, address: IPv4Address) -> str:
        """Return the interface name of the host's end of the cable to the machine at `address`."""
        return f"{self.bridge}-{address.packed[3]}"

    def owner(self) -> str | None:
        """Return whose bridge is there: what was given to `raise_bridge`; None where there is none."""
        try:
            return Path("/sys/class/net", self.bridge, "ifalias").read_text().strip()
        except FileNotFoundError:
            return None

    def raise_bridge(self, owner: str) -> None:
        """Make the bridge of the lab `owner` where it lacks; whoever makes a bridge first has the network.

        Its MAC is fixed: a bridge without one takes that of whatever port comes or goes.

        Raises:
            UsageError: the bridge is there and somebody else's.
        """
        if self.owner() is None:
            ip_batch(
                f"link add {self.bridge} address {stable_mac(self.bridge)} up type bridge forward_delay 0",
                f'link set {self.bridge} alias "{owner}"',
                f"address add {self.host}/{self.subnet.prefixlen} dev {self.bridge}",
            )
            self._filter("--insert")
        elif self.owner() != owner:
            raise UsageError(
                f"the subnet {self.subnet} is in use",
                why=f"bridge {self.bridge} belongs to {self.owner() or 'somebody else'}",
                next_step="take another N in the addresses 10.213.N.x, or take that lab down",
            )

    def connect(self, machines: Iterable[tuple[IPv4Address, str, int]]) -> None:
        """Lay cables to machines, each given as address, MAC, and id of a process in its network namespace."""
        cables = [(self.cable(address), mac, pid) for address, mac, pid in machines]
        # What a machine killed a moment ago leaves until the kernel has cleared its namespace away.
        _delete_links(cable for cable, _, _ in cables if interface_exists(cable))
        ip_batch(
            *(
                f"link add {cable} master {self.bridge} up type veth peer name host0 address {mac} netns {pid}"
                for cable, mac, pid in cables
            )
        )

    def remove(self, owner: str) -> None:
        """Take the bridge of the lab `owner` and every cable away."""
        if self.owner() != owner:
            return
        names = [path.name for path in Path("/sys/class/net").glob(f"{self.bridge}*")]
        self._filter("--delete")
        own = [name for name in names if name == self.bridge or name.startswith(f"{self.bridge}-")]
        _delete_links(sorted(own, reverse=True))

    def _filter(self, action: str) -> None:
        """Let the host's packet filter pass what machines send each other, where it looks at frames on a bridge.

        Docker turns that look on for all bridges (net.bridge.bridge-nf-call-iptables) and drops what it does not know.
        """
        look = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
        if look.exists() and look.read_text().strip() == "1" and shutil.which("iptables"):
            rule = ["FORWARD", "--in-interface", self.bridge, "--out-interface", self.bridge, "--jump", "ACCEPT"]
            subprocess.run(["iptables", "--wait", action, *rule], capture_output=True, check=False)


def interface_exists(name: str) -> bool:
    """Whether this host has the network interface `name`."""
    return Path("/sys/class/net", name).exists()


def interface_is_up(name: str) -> bool:
    """Whether the interface `name` is there and switched on (IFF_UP of netdevice(7))."""
    try:
        return bool(int(Path("/sys/class/net", name, "flags").read_text(), 16) & 1)
    except FileNotFoundError:
        return False


def stable_mac(seed: str) -> str:
    """Return a locally administered unicast MAC that depends on `seed` alone.

    With random ones the host keeps stale neighbours, and a machine's boot seems to take half a minute.
    """
    digest = hashlib.sha256(seed.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def ip_batch(*lines: str) -> None:
    """Run `ip` once for all `lines`.

    Raises:
        CouplerError: a line failed.
    """
    done = _ip(*lines)
    if done.returncode:
        raise CouplerError("the lab's network could not be set up", why=done.stderr.strip())


def _delete_links(names: Iterable[str]) -> None:
    """Delete interfaces. A cable may vanish by itself between the look and the deed, so a miss is no failure."""
    _ip(*(f"link delete {name}" for name in names), options=("-force",))


def _ip(*lines: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    argv = ["ip", *options, "-batch", "-"]
    return subprocess.run(argv, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)


def take_network(owner: str, taken: Collection[Network]) -> Network:
    """Return the first lab network that nobody has, neither a lab (`taken`) nor a route of this host; raise its bridge.

    Raises:
        CouplerError: there is none left.
    """
    routes = routed_networks()
    for network in map(Network, range(1, 255)):
        if network not in taken and not any(clashes(network, route) for route in routes):
            network.raise_bridge(owner)
            return network
    raise CouplerError(
        f"no subnet of {LABS} is free for a lab",
        why="every one belongs to a lab or is routed elsewhere on this host",
        next_step="cluster lab down --forget in the folders of labs that you do not need any more",
    )


def clashes(network: Network, route: IPv4Network) -> bool:
    """Whether `route` is somebody's who uses the lab network for something else.

    A route wider than all labs together (a default route, a company's 10.0.0.0/8) is no clash: ours is more specific.
    """
    return route.overlaps(network.subnet) and route.prefixlen >= LABS.prefixlen


def routed_networks() -> list[IPv4Network]:
    """Return the destinations of this host's routes, local addresses included."""
    done = subprocess.run(
        ["ip", "-json", "-4", "route", "show", "table", "all"], capture_output=True, text=True, check=True
    )
    return [
        IPv4Network(route["dst"], strict=False)
        for route in json.loads(done.stdout or "[]")
        if route["dst"] != "default" and route.get("type") not in {"broadcast", "multicast"}
    ]


def any_lab_is_up() -> bool:
    """Whether this host has a bridge of any lab, of any user."""
    return any(Path("/sys/class/net").glob("coupler-*"))
