"""Which machines a lab takes."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from coupler.errors import UsageError
from coupler.lab.admission import network_of, refuse_clashes, refuse_network
from coupler.lab.machine import Machine
from coupler.lab.network import Network
from coupler.lab.state import LabState

FREE = Network(253)


def machine(name: str, address: str, mac: str = "02:00:00:00:00:01") -> Machine:
    return Machine(name, IPv4Address(address), mac)


def test_addresses_outside_the_lab_are_named() -> None:
    with pytest.raises(UsageError) as caught:
        network_of([machine("a", "10.213.3.11"), machine("b", "192.168.0.4")])
    assert caught.value.why == "b has 192.168.0.4"


def test_machines_share_one_subnet() -> None:
    assert network_of([machine("a", "10.213.3.11"), machine("b", "10.213.3.12")]) == Network(3)
    with pytest.raises(UsageError) as caught:
        network_of([machine("a", "10.213.3.11"), machine("b", "10.213.4.12")])
    assert caught.value.why == "their addresses are in 10.213.3.0/24, 10.213.4.0/24"


def test_a_lab_needs_a_machine() -> None:
    with pytest.raises(UsageError):
        network_of([])


def test_the_network_of_another_lab_is_refused() -> None:
    refuse_network(FREE, LabState(), {"other": LabState(Network(4))})
    with pytest.raises(UsageError) as caught:
        refuse_network(FREE, LabState(), {"other": LabState(FREE)})
    assert "lab 'other'" in str(caught.value.why)


def test_a_lab_with_machines_does_not_move_to_another_network() -> None:
    there = LabState(Network(4), machines=(machine("a", "10.213.4.11"),))
    with pytest.raises(UsageError) as caught:
        refuse_network(FREE, there, {})
    assert caught.value.next_step == "cluster lab down"


def test_two_machines_with_one_address_are_refused() -> None:
    pair = {"a": machine("a", "10.213.3.11"), "b": machine("b", "10.213.3.11")}
    with pytest.raises(UsageError, match="a and b have the same address"):
        refuse_clashes(list(pair.values()), pair)


def test_a_machine_keeps_its_address_until_it_is_taken_down() -> None:
    with pytest.raises(UsageError, match="another address"):
        refuse_clashes([machine("a", "10.213.3.12")], {"a": machine("a", "10.213.3.11")})
