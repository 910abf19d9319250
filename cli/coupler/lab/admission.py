"""Which machines a lab takes: pure checks, made before anything is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.errors import UsageError
from coupler.lab.network import Network, clashes, routed_networks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Address

    from coupler.lab.machine import Machine
    from coupler.lab.state import LabState


def network_of(machines: Sequence[Machine]) -> Network:
    """Return the one lab network that all `machines` are in.

    Raises:
        UsageError: there is none.
    """
    networks = {machine.name: Network.holding(machine.address) for machine in machines}
    outside = [machine for machine in machines if networks[machine.name] is None]
    if outside or not machines:
        raise UsageError(
            "the lab can only boot machines whose addresses are the lab's: 10.213.N.2 to 10.213.N.254, one N for all",
            why=", ".join(f"{machine.name} has {machine.address}" for machine in outside) or "no machine is named",
            next_step="change the addresses in cluster.yaml, or run cluster lab up in a folder without a cluster.yaml",
        )
    numbers = sorted({network.number for network in networks.values() if network})
    if len(numbers) > 1:
        subnets = ", ".join(str(Network(number).subnet) for number in numbers)
        raise UsageError("the machines of a lab share one subnet", why=f"their addresses are in {subnets}")
    return Network(numbers[0])


def refuse_network(network: Network, own: LabState, others: Mapping[str, LabState]) -> None:
    """Refuse a change of the lab's network to `network` where that would hurt somebody.

    Raises:
        UsageError: the lab has machines in another one, another lab has it, or this host uses it for something else.
    """
    owner = next((name for name, state in others.items() if state.network == network), None)
    if own.machines and own.network:
        why = f"the lab has machines in {own.network.subnet}"
        next_step = "cluster lab down"
    elif owner:
        why = f"lab '{owner}' of this user has it"
        next_step = "take another N in the addresses 10.213.N.x, or cluster lab down --forget in that lab's folder"
    elif any(clashes(network, route) for route in routed_networks()):
        why = "this host has a route to it already (ip route show)"
        next_step = "take another N in the addresses 10.213.N.x"
    else:
        return
    raise UsageError(f"the lab cannot have the subnet {network.subnet}", why=why, next_step=next_step)


def refuse_clashes(asked: Sequence[Machine], kept: Mapping[str, Machine]) -> None:
    """Refuse machines that are not what the lab has under their name, or share an address with another.

    Raises:
        UsageError: so it is.
    """
    for machine in asked:
        there = kept[machine.name]
        if there != machine:
            raise UsageError(
                f"the lab has a machine '{machine.name}' already, with another address or MAC",
                why=f"{there.address} {there.mac}, not {machine.address} {machine.mac}",
                next_step="cluster lab down",
            )
    owners: dict[IPv4Address, str] = {}
    for machine in kept.values():
        other = owners.setdefault(machine.address, machine.name)
        if other != machine.name:
            raise UsageError(f"{other} and {machine.name} have the same address {machine.address}")
