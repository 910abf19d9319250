"""The configuration file of `registrator hold-address`: the same format as the registrator's own."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING

from coupler.registrator.settings import EtcdSettings, Reader, read

if TYPE_CHECKING:
    from pathlib import Path

    import yaml

SHORTEST_LEASE = 2
"""etcd grants no shorter lease with its default timers: one and a half elections."""


@dataclass(frozen=True, slots=True)
class AddressSettings:
    """The address, and when this machine may have it.

    `accepts` lists where the balancer must take connections, `ready` the URL that answers 200 while it is in step.
    `interface` is the one whose network the address lies in, if it is not named. `ttl`: for how many seconds a machine
    that died is waited for; `patience`: how long one that is out of step keeps the address, or waits for a better one.
    `listen` serves the state, `election` names the key in etcd.
    """

    address: str
    etcd: EtcdSettings
    accepts: tuple[str, ...]
    ready: str | None = None
    interface: str | None = None
    listen: str = "127.0.0.1:9103"
    election: str | None = None
    ttl: int = 5
    patience: float = 10.0

    @property
    def key(self) -> str:
        """The key by which etcd elects the machine that has the address."""
        return self.election or f"coupler/address/{self.address}"


def load(path: Path) -> AddressSettings:
    """Return what a configuration file says. Raises ConfigurationError with every finding."""
    settings: AddressSettings = read(AddressSettings, path, _check)
    return settings


def _check(settings: AddressSettings, reader: Reader, node: yaml.Node) -> None:
    try:
        IPv4Address(settings.address)
    except AddressValueError:
        reader.find("address", f"`{settings.address}` is no IPv4 address", node.start_mark, "write it as in 10.0.0.100")
    if settings.ttl < SHORTEST_LEASE:
        reader.find("ttl", f"`ttl` is shorter than {SHORTEST_LEASE} seconds", node.start_mark)
    for place in settings.accepts:
        if not place.rpartition(":")[2].isdigit():
            reader.find("accepts", f"`{place}` is not HOST:PORT", node.start_mark)
    if not settings.accepts:
        reader.find("accepts", "`accepts` names no place", node.start_mark, "name one, as in 127.0.0.1:80")
