"""The stand-in for flanneld, of the versions that keep leases in etcd's v3 API: a subnet, and vxlan to all the others.

It leases as flannel's subnet/etcd/local_manager.go does: the subnet that etcd has for its address, else the one of its
file, else a free one. What it does not have is IPv6, other backends, and watches: it looks every second.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.standins import golang
from tests.standins.etcd import Credentials, Etcd, b64

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

TTL = 24 * 3600  # seconds
DEVICE = "flannel.1"
OVERHEAD = 50  # bytes of a packet that vxlan takes
_CHOICE = 100  # of so many free subnets one is taken
_PAUSE = 1.0  # seconds


@dataclass(frozen=True)
class Lease:
    """A node's subnet, its address, and its end of the tunnel."""

    subnet: IPv4Network
    public: str
    mac: str


class Leases:
    """The leases in etcd."""

    def __init__(self, etcd: Etcd, prefix: str) -> None:
        self._etcd, self._prefix = etcd, prefix

    def config(self) -> dict[str, Any] | None:
        """Return the configuration of the network, None as long as there is none. Raises OSError."""
        key = f"{self._prefix}/config"
        found = [value for name, value, _ in self._etcd.range(key) if name == key]
        config: dict[str, Any] | None = json.loads(found[0]) if found else None
        return config

    def all(self) -> list[Lease]:
        """Return all leases. Raises OSError."""
        prefix = f"{self._prefix}/subnets/"
        return [_lease(key.removeprefix(prefix), json.loads(value)) for key, value, _ in self._etcd.range(prefix)]

    def put(self, lease: Lease, *, new: bool) -> bool:
        """Write a lease for a day; a new one only if its subnet is free. Raises OSError."""
        key = f"{self._prefix}/subnets/{str(lease.subnet).replace('/', '-')}"
        data = {"VNI": 1, "VtepMAC": lease.mac}
        value = {"PublicIP": lease.public, "PublicIPv6": None, "BackendType": "vxlan", "BackendData": data}
        ends = self._etcd.v3("lease/grant", {"TTL": TTL})["ID"]
        put = {"key": b64(key), "value": b64(json.dumps(value, separators=(",", ":"))), "lease": ends}
        free = [{"key": b64(key), "target": "VERSION", "version": "0"}] if new else []
        answer = self._etcd.v3("kv/txn", {"compare": free, "success": [{"requestPut": put}]})
        return bool(answer.get("succeeded"))


def _lease(name: str, value: dict[str, Any]) -> Lease:
    return Lease(
        IPv4Network(name.replace("-", "/")), value["PublicIP"], value.get("BackendData", {}).get("VtepMAC", "")
    )


def main(words: Sequence[str], version: str, known: Mapping[str, bool], up: Callable[[], None]) -> None:
    """Be flanneld until the lease is taken away."""
    try:
        given, _ = golang.parse(words, known)
    except golang.UnknownOptionError as error:
        golang.say(f"flag provided but not defined: -{error}")
        sys.exit(0)  # as the real one does after its usage
    options = golang.with_environment(given, "FLANNELD", known)
    if "version" in options:
        golang.say(f"v{version}")
        return
    files = (options.get(f"etcd-{file}", "") for file in ("cafile", "certfile", "keyfile"))
    try:
        etcd = Etcd(options["etcd-endpoints"].split(","), Credentials(*files))
    except OSError as error:
        golang.say(f"Failed to create SubnetManager: {error}")
        sys.exit(1)
    leases = Leases(etcd, options.get("etcd-prefix", "/coreos.com/network"))
    config = _awaited(leases.config, "Couldn't fetch network config")
    if config["Backend"]["Type"] != "vxlan":
        golang.say(f"this stand-in has no backend {config['Backend']['Type']}")
        sys.exit(1)
    interface, mtu = _interface(options["iface"])
    public, file = options.get("public-ip", options["iface"]), Path(options["subnet-file"])
    mac = _device(interface, options["iface"], mtu - OVERHEAD)
    lease = _awaited(lambda: acquire(leases, config, public, mac, file), "Couldn't acquire a lease")
    _ip("address", "flush", "dev", DEVICE)
    _ip("address", "add", f"{lease.subnet[0]}/32", "dev", DEVICE)
    masquerade = options.get("ip-masq") == "true"
    _rules(IPv4Network(config["Network"]), lease.subnet, masquerade=masquerade)
    _write(file, config["Network"], lease.subnet, mtu - OVERHEAD, masquerade=masquerade)
    up()
    margin = 60 * int(options.get("subnet-lease-renew-margin", "60"))
    _follow(leases, lease, TTL - margin)


def acquire(leases: Leases, config: Mapping[str, Any], public: str, mac: str, file: Path) -> Lease | None:
    """Return this machine's lease, None if another one was faster. Raises OSError."""
    every = leases.all()
    possible = list(_subnets(config))
    mine = next((lease.subnet for lease in every if lease.public == public and lease.subnet in possible), None)
    if mine:
        golang.say(f"Found lease ({mine}) for current IP ({public}), reusing")
        lease = Lease(mine, public, mac)
        return lease if leases.put(lease, new=False) else None
    taken = {lease.subnet for lease in every}
    subnet = _previous(file)
    if subnet in possible and subnet not in taken:
        golang.say(f"Found previously leased subnet ({subnet}), reusing")
    else:
        free = [subnet for subnet in possible if subnet not in taken]
        if not free:
            golang.say("out of subnets")
            sys.exit(1)
        subnet = random.choice(free[:_CHOICE])
    lease = Lease(subnet, public, mac)
    if not leases.put(lease, new=True):
        return None
    golang.say(f"Allocated lease (ip: {subnet}) to current node ({public})")
    return lease


def _subnets(config: Mapping[str, Any]) -> Iterator[IPv4Network]:
    """Yield the subnets of the network; the first is nobody's."""
    subnets = IPv4Network(config["Network"]).subnets(new_prefix=config.get("SubnetLen", 24))
    next(subnets)
    return subnets


def _previous(file: Path) -> IPv4Network | None:
    try:
        lines = dict(line.partition("=")[::2] for line in file.read_text(encoding="utf-8").splitlines())
        return IPv4Network(lines["FLANNEL_SUBNET"], strict=False)
    except (OSError, KeyError, ValueError):
        return None


def _awaited(what: Callable[[], Any], complaint: str) -> Any:
    while True:
        try:
            found = what()
        except OSError as error:
            golang.say(f"{complaint}: {error}")
        else:
            if found:
                return found
            golang.say(f"{complaint}: not there")
        time.sleep(_PAUSE)


def _interface(address: str) -> tuple[str, int]:
    """Return the interface with this address, and its MTU."""
    for entry in json.loads(_ip("-json", "address", "show")):
        if any(info["local"] == address for info in entry["addr_info"]):
            return entry["ifname"], entry["mtu"]
    golang.say(f"Could not find valid interface matching {address}: No interface with given IP found")
    sys.exit(1)


def _device(interface: str, local: str, mtu: int) -> str:
    """Have the tunnel's interface; return its hardware address. One that is there stays."""
    add = ["link", "add", DEVICE, "mtu", str(mtu), "type", "vxlan", "id", "1", "dev", interface, "local", local]
    subprocess.run(["ip", *add, "dstport", "8472", "nolearning"], check=False, capture_output=True)
    _ip("link", "set", DEVICE, "up")
    mac: str = json.loads(_ip("-json", "link", "show", "dev", DEVICE))[0]["address"]
    return mac


def _rules(network: IPv4Network, subnet: IPv4Network, *, masquerade: bool) -> None:
    """Have the rules that flannel writes (its network/iptables.go), once."""
    forward = [["-s", str(network), "-j", "ACCEPT"], ["-d", str(network), "-j", "ACCEPT"]]
    inside, outside = ["-s", str(network)], ["!", "-s", str(network)]
    masks = [
        [*inside, "-d", str(network), "-j", "RETURN"],
        [*inside, "!", "-d", "224.0.0.0/4", "-j", "MASQUERADE", "--random-fully"],
        [*outside, "-d", str(subnet), "-j", "RETURN"],
        [*outside, "-d", str(network), "-j", "MASQUERADE", "--random-fully"],
    ]
    rules = [("filter", "FORWARD", rule) for rule in forward]
    rules += [("nat", "POSTROUTING", rule) for rule in masks if masquerade]
    for table, chain, rule in rules:
        comment = ["-m", "comment", "--comment", "flanneld masq" if table == "nat" else "flanneld forward"]
        for verb in ("-C", "-A"):
            call = ["iptables", "-w", "-t", table, verb, chain, *comment, *rule]
            if subprocess.run(call, check=False, capture_output=True).returncode == 0:
                break


def _write(file: Path, network: str, subnet: IPv4Network, mtu: int, *, masquerade: bool) -> None:
    lines = (
        f"FLANNEL_NETWORK={network}",
        f"FLANNEL_SUBNET={subnet[1]}/{subnet.prefixlen}",
        f"FLANNEL_MTU={mtu}",
        f"FLANNEL_IPMASQ={str(masquerade).lower()}",
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}")
    draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    draft.replace(file)


def _follow(leases: Leases, own: Lease, renewal: float) -> None:
    """Lead to the others' subnets, and renew the own lease after so many seconds, until it is gone."""
    begun, known = time.monotonic(), set[Lease]()
    while True:
        try:
            every = set(leases.all())
            if own not in every:
                golang.say("Lease has been revoked. Shutting down daemon.")
                return
            for lease in known - every:
                _ip("route", "del", str(lease.subnet), "dev", DEVICE)
            for lease in every - known - {own}:
                _lead_to(lease)
            known = every - {own}
            if time.monotonic() - begun > renewal:
                leases.put(own, new=False)
                begun = time.monotonic()
        except OSError as error:
            golang.say(f"leases: {error}")
        time.sleep(_PAUSE)


def _lead_to(lease: Lease) -> None:
    first = str(lease.subnet[0])
    golang.say(f"adding subnet: {lease.subnet} PublicIP: {IPv4Address(lease.public)} VtepMAC: {lease.mac}")
    _ip("neigh", "replace", first, "lladdr", lease.mac, "dev", DEVICE)
    subprocess.run(["bridge", "fdb", "replace", lease.mac, "dev", DEVICE, "dst", lease.public], check=False)
    _ip("route", "replace", str(lease.subnet), "via", first, "dev", DEVICE, "onlink")


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        golang.say(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
