"""The address is held by exactly one machine, moves in good time, and clients are served again after each move."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from tests.contract.address.site import TTL, VIRTUAL, Client, Site, never_two
from tests.contract.traffic import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT_ONCE, AFTER_THE_LEASE = 8.0, TTL + 12.0
"""Seconds within which the address moves: where its holder gives it up, and where it can not."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Two machines that balance and stand for the address."""
    site = Site(tmp_path)
    try:
        site.start_etcd()
        for name in ("one", "two"):
            machine = site.add(name)
            machine.start_balancer()
            machine.start_holder()
        yield site
    finally:
        site.end()


def test_one_has_it_and_gives_it_up_when_it_is_stopped(site: Site) -> None:
    first = site.holder()
    never_two(site, TTL * 1.5)
    with Client(site) as client:
        client.served_by(first.name)
        assert first.stop("holder", signal.SIGTERM) == 0
        assert not first.has_address
        second = site.moved(first, AT_ONCE)
        client.served_by(second.name)
        assert client.longest_gap < AT_ONCE
        first.start_holder()
        eventually(lambda: first.state()["stands"] is True, "it does not stand again")
        never_two(site, TTL)
        assert second.has_address, "it moves back without need"
    assert first.state()["elected"] == second.state()["elected"]
    assert (first.state()["holds"], first.state()["stands"]) == (False, True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_the_kernel_ends_it_when_the_process_can_not(site: Site, number: signal.Signals) -> None:
    first = site.holder()
    with Client(site) as client:
        client.served_by(first.name)
        first.send("holder", number)
        second = site.moved(first, AFTER_THE_LEASE)
        client.served_by(second.name)
    if number is signal.SIGSTOP:
        first.send("holder", signal.SIGCONT)
    never_two(site, TTL)
    assert second.has_address


def test_it_leaves_a_balancer_that_takes_no_connections(site: Site) -> None:
    first = site.holder()
    with Client(site) as client:
        client.served_by(first.name)
        first.stop("balancer")
        second = site.moved(first, AT_ONCE)
        client.served_by(second.name)
    assert "takes no connection at 127.0.0.1:80" in str(first.state()["not_ready_because"])
    assert first.state()["stands"] is False
    first.start_balancer()
    eventually(lambda: first.state()["stands"] is True, "it does not stand again")
    assert second.has_address


def test_it_leaves_a_balancer_out_of_step_for_one_in_step_and_stays_where_there_is_none(site: Site) -> None:
    first = site.holder()
    [other] = [machine for machine in site.machines if machine is not first]
    first.ready.unlink()
    assert site.moved(first, 2 + AT_ONCE) is other
    other.ready.unlink()
    with Client(site) as client:
        client.served_by(other.name)
        time.sleep(7)
        never_two(site, TTL)
        last = site.holder()
        client.served_by(last.name)
    assert last.state()["not_ready_because"] == ["its registrator is not ready: haproxy is not in step"]


def test_it_leaves_a_machine_whose_cable_is_pulled(site: Site) -> None:
    first = site.holder()
    with Client(site) as client:
        client.served_by(first.name)
        site.hub.do(f"ip link set {first.port} down")
        second = site.moved(first, AFTER_THE_LEASE)
        client.served_by(second.name)
        site.hub.do(f"ip link set {first.port} up")
        never_two(site, TTL + 3)
        client.served_by(second.name)
    assert second.has_address


def test_a_machine_cut_off_behind_a_live_cable_yields_when_it_hears_its_successor(site: Site) -> None:
    first = site.holder()
    with Client(site) as client:
        client.served_by(first.name)
        site.hub.do(f"ip link set {first.port} nomaster")
        eventually(lambda: len(site.holders()) == 2, "nobody follows", AFTER_THE_LEASE)
        [second] = [machine for machine in site.machines if machine is not first]
        client.served_by(second.name)
        assert first.state()["tenure"] == "kept"
        site.hub.do(f"ip link set {first.port} master switch")
        assert site.moved(first, AT_ONCE) is second
        never_two(site, TTL)
        client.served_by(second.name)


def test_a_machine_that_etcd_alone_can_not_reach_yields_to_the_one_that_is_elected(site: Site) -> None:
    first = site.holder()
    with Client(site) as client:
        client.served_by(first.name)
        first.space.do("ip route add blackhole 10.77.0.1/32")
        second = site.moved(first, AFTER_THE_LEASE)
        client.served_by(second.name)
        never_two(site, TTL)
    assert second.state()["tenure"] == "elected"


def test_without_etcd_it_stays_and_is_served_and_one_has_it_when_etcd_is_back(site: Site) -> None:
    first = site.holder()
    with Client(site) as client:
        client.served_by(first.name)
        site.stop_etcd()
        eventually(lambda: first.state()["tenure"] == "kept", "it is not kept", AFTER_THE_LEASE)
        never_two(site, 2 * TTL)
        assert first.has_address
        assert client.failed == []
        site.start_etcd()
        eventually(
            lambda: [m.state()["tenure"] for m in site.machines].count("elected") == 1, "nobody is elected", 20.0
        )
        never_two(site, TTL)
        client.served_by(site.holder().name)


def test_what_a_killed_one_left_is_taken_away_and_what_an_operator_put_there_is_not(site: Site) -> None:
    first = site.holder()
    [other] = [machine for machine in site.machines if machine is not first]
    other.stop("holder", signal.SIGTERM)
    first.stop("holder")
    assert first.has_address
    first.release()
    assert not first.has_address
    first.start_holder()
    eventually(lambda: first.has_address, "it does not have it again", AFTER_THE_LEASE)
    first.stop("holder", signal.SIGTERM)

    other.space.do(f"ip address add {VIRTUAL}/24 dev eth0")
    other.start_holder()
    eventually(lambda: "and not from us" in other.log(), "it does not say why it cannot have it")
    other.stop("holder", signal.SIGTERM)
    other.release()
    assert f"{VIRTUAL}/24" in other.space.do("ip -4 address show dev eth0")
