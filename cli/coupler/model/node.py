"""The nodes: rows of cluster.yaml, and the machines that they stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from coupler.model.access import Ssh, User
from coupler.model.fields import Host, LabelKey, LabelValue, Mac, Port, Taint, address_of, line_of, name_of
from coupler.model.network import PodSubnet
from coupler.model.problem import problem
from coupler.model.section import Section

MAX_NODES = 10_000
"""More nodes are a slip in a range; Kubernetes itself is tested to 5,000."""
_RANGE = re.compile(r"([^\[\]]*)\[([0-9]{1,6})-([0-9]{1,6})\]([^\[\]]*)")


class Role(StrEnum):
    """What a node does: run the control plane, run pods, be a member of etcd, run the load balancer."""

    CONTROL = "control"
    WORKER = "worker"
    ETCD = "etcd"
    LB = "lb"


@dataclass(frozen=True)
class Node:
    """One machine. `ssh_…` say how it is reached; `row` is its index in the list `nodes` of cluster.yaml.

    `taints` and `pod_subnet` are what its row asks for, None where it says nothing: see `Cluster.taints_of` and
    `Cluster.pod_subnet_of`.
    """

    name: str
    address: IPv4Address
    mac: str | None
    roles: tuple[Role, ...]
    labels: Mapping[str, str]
    taints: tuple[str, ...] | None
    pod_subnet: IPv4Network | None
    ssh_address: str
    ssh_port: int
    ssh_user: str
    row: int


def _name_range(value: object) -> str:
    text = line_of(value)
    span = _RANGE.fullmatch(text)
    if not span:
        return name_of(text)
    first, last = int(span[2]), int(span[3])
    if last < first:
        raise problem("invalid-range", f"the range of `{text}` runs backwards", f"write `[{span[3]}-{span[2]}]`")
    if last - first >= MAX_NODES:
        raise problem("invalid-range", f"`{text}` is a range of more than {MAX_NODES:,} nodes")
    name_of(f"{span[1]}{last:0{len(span[2])}}{span[4]}")
    return text


def _address_range(value: object) -> str:
    text = line_of(value)
    first, dash, last = text.replace(" ", "").partition("-")
    if dash and address_of(last) < address_of(first):
        raise problem("invalid-range", f"the range `{text}` runs backwards", f"write `{last}-{first}`")
    address_of(first)
    return first + dash + last


def _roles(value: tuple[Role, ...]) -> tuple[Role, ...]:
    if not value:
        raise problem("no-roles", "the node has no role", "give it at least one of control, worker, etcd, lb")
    return tuple(role for role in Role if role in value)


NameRange: TypeAlias = Annotated[str, BeforeValidator(_name_range)]
AddressRange: TypeAlias = Annotated[str, BeforeValidator(_address_range)]


class NodeSsh(Section):
    """How this node is reached, where that differs from the rest."""

    address: Host | None = Field(default=None, description="The host name or address for SSH; without it, `address`.")
    port: Port | None = Field(default=None, description="The port of sshd; without it, the one in `ssh`.")
    user: User | None = Field(default=None, description="The user; without it, the one in `ssh`.")


class NodeRow(Section):
    """A node, or a range of nodes that are alike."""

    name: NameRange = Field(description="The host name, `node-1`, or a range, `node-[01-50]`.")
    address: AddressRange = Field(description="The IPv4 address, or for a range `10.0.0.11-10.0.0.60`.")
    mac: Mac | None = Field(default=None, description="The MAC address by which the node finds its own row.")
    roles: Annotated[tuple[Role, ...], AfterValidator(_roles)] = Field(
        default=(Role.WORKER,), description="Any of control, worker, etcd and lb."
    )
    labels: Mapping[LabelKey, LabelValue] = Field(
        default_factory=dict, description="Labels of the node in Kubernetes, and its metadata in fleet."
    )
    taints: tuple[Taint, ...] | None = Field(
        default=None,
        description="Taints in Kubernetes, as `KEY=VALUE:EFFECT`; without the key, a node that is no worker has its "
        "role's.",
    )
    pod_subnet: PodSubnet | None = Field(
        default=None,
        description="The node's /24 of the pods' network where `network.static_routes` makes it; without the key, the "
        "one at the place of its address.",
    )
    ssh: NodeSsh = Field(default_factory=NodeSsh, description="How this node is reached, where that differs.")

    @model_validator(mode="after")
    def _range_fits(self) -> Self:
        names, addresses = self.size, self._last_address() - self._first_address() + 1
        if names != addresses:
            message = f"`name` stands for {_nodes(names)}, `address` for {_nodes(addresses)}"
            address = "one address" if names == 1 else "a range of addresses: `FIRST-LAST`"
            raise problem("range-mismatch", message, f"give {_nodes(names)} {address}")
        single = {"mac": self.mac, "ssh.address": self.ssh.address, "pod_subnet": self.pod_subnet}
        own = next((key for key, value in single.items() if value), None)
        if names > 1 and own:
            raise problem("range-mismatch", f"one `{own}` cannot belong to {names} nodes", "write them one by one")
        return self

    @property
    def size(self) -> int:
        """How many machines this row stands for."""
        span = _RANGE.fullmatch(self.name)
        return int(span[3]) - int(span[2]) + 1 if span else 1

    def expand(self, row: int, ssh: Ssh) -> Iterator[Node]:
        """Yield the machines of this row."""
        for name, address in zip(self._names(), self._addresses(), strict=True):
            yield Node(
                name=name,
                address=address,
                mac=self.mac,
                roles=self.roles,
                labels=self.labels,
                taints=self.taints,
                pod_subnet=self.pod_subnet,
                ssh_address=self.ssh.address or str(address),
                ssh_port=self.ssh.port or ssh.port,
                ssh_user=self.ssh.user or ssh.user,
                row=row,
            )

    def _names(self) -> Iterator[str]:
        span = _RANGE.fullmatch(self.name)
        if not span:
            return iter((self.name,))
        width = len(span[2])
        return (f"{span[1]}{number:0{width}}{span[4]}" for number in range(int(span[2]), int(span[3]) + 1))

    def _addresses(self) -> Iterator[IPv4Address]:
        return (IPv4Address(number) for number in range(self._first_address(), self._last_address() + 1))

    def _first_address(self) -> int:
        return int(IPv4Address(self.address.partition("-")[0]))

    def _last_address(self) -> int:
        return int(IPv4Address(self.address.rpartition("-")[2]))


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"
