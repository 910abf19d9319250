"""Names, addresses and clashes of lab networks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from coupler.lab.network import Network, clashes, stable_mac


def test_interface_names_fit_into_fifteen_bytes() -> None:
    widest = Network(254)
    assert len(widest.cable(IPv4Address("10.213.254.254"))) == 15


def test_a_network_is_known_by_its_addresses() -> None:
    network = Network(7)
    assert (str(network.subnet), str(network.host)) == ("10.213.7.0/24", "10.213.7.1")
    assert Network.holding(IPv4Address("10.213.7.11")) == network


@pytest.mark.parametrize("address", ["10.213.7.0", "10.213.7.1", "10.213.7.255", "10.0.0.11", "10.214.0.11"])
def test_addresses_that_no_machine_can_have(address: str) -> None:
    assert Network.holding(IPv4Address(address)) is None


@pytest.mark.parametrize(
    ("route", "clash"),
    [
        ("10.213.7.0/24", True),
        ("10.213.7.40/32", True),
        ("10.213.0.0/16", True),
        ("10.213.8.0/24", False),
        ("10.0.0.0/8", False),
        ("0.0.0.0/0", False),
    ],
)
def test_a_route_clashes_when_it_is_for_lab_addresses_and_not_a_wide_one(route: str, clash: bool) -> None:
    assert clashes(Network(7), IPv4Network(route)) is clash


def test_macs_are_stable_local_and_unicast() -> None:
    mac = stable_mac("demo/node-1")
    assert mac == stable_mac("demo/node-1") != stable_mac("demo/node-2")
    assert int(mac[:2], 16) & 0b11 == 0b10
