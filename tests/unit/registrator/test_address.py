"""The address that moves: who should have it, where it belongs, and what neighbours are told."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest

from coupler.errors import ConfigurationError
from coupler.registrator.address import arp
from coupler.registrator.address.fitness import Fitness
from coupler.registrator.address.holder import Seen, Tenure, next_tenure, outranks
from coupler.registrator.address.interface import InterfaceError, found_in, home_of
from coupler.registrator.address.settings import load

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = IPv4Address("10.0.0.100")
OWN, OTHER = bytes.fromhex("020000000002"), bytes.fromhex("020000000009")
NONE, ELECTED, KEPT = Tenure.NONE, Tenure.ELECTED, Tenure.KEPT


@pytest.mark.parametrize("now", Tenure)
@pytest.mark.parametrize("outranked", [True, False])
def test_the_elected_has_it_if_its_balancer_is_fit(now: Tenure, outranked: bool) -> None:
    assert next_tenure(now, Seen(leads=True, unanswered=False, outranked=outranked, fit=True)) is ELECTED
    assert next_tenure(now, Seen(leads=True, unanswered=False, outranked=outranked, fit=False)) is NONE


@pytest.mark.parametrize("fit", [True, False])
@pytest.mark.parametrize(
    ("now", "unanswered", "outranked", "expected"),
    [
        (ELECTED, True, False, KEPT),
        (KEPT, True, False, KEPT),
        (NONE, True, False, NONE),
        (ELECTED, False, False, NONE),
        (KEPT, False, False, NONE),
        (ELECTED, True, True, NONE),
        (KEPT, True, True, NONE),
    ],
)
def test_without_a_lease_it_is_kept_only_while_nobody_else_can_have_it(
    now: Tenure, unanswered: bool, outranked: bool, expected: Tenure, fit: bool
) -> None:
    assert next_tenure(now, Seen(leads=False, unanswered=unanswered, outranked=outranked, fit=fit)) is expected


def test_of_two_that_keep_it_one_stays_and_both_yield_to_the_elected() -> None:
    assert outranks(arp.Claim(OTHER, announced=True), OWN)
    assert outranks(arp.Claim(OWN, announced=True), OTHER)
    assert not outranks(arp.Claim(OTHER, announced=False), OWN)
    assert outranks(arp.Claim(OWN, announced=False), OTHER)


def test_an_announcement_is_what_rfc_5227_says() -> None:
    request, reply = arp.announcements(OWN, ADDRESS)
    assert request.hex() == (
        "ffffffffffff" "020000000002" "0806" "0001" "0800" "06" "04" "0001"
        "020000000002" "0a000064" "000000000000" "0a000064"
    )  # fmt: skip
    assert struct.unpack_from("!H", reply, 20) == (2,)
    for frame in (request, reply):
        assert arp.claim_in(frame + bytes(18), ADDRESS) == arp.Claim(OWN, announced=True)


def test_a_probe_and_foreign_frames_claim_nothing() -> None:
    assert arp.claim_in(arp.probe(OWN, ADDRESS), ADDRESS) is None
    assert arp.claim_in(arp.announcements(OWN, IPv4Address("10.0.0.99"))[0], ADDRESS) is None
    assert arp.claim_in(b"short", ADDRESS) is None


def listed(*entries: tuple[str, str, int, int]) -> list[dict[str, Any]]:
    """Return what ip(8) says of interfaces with one address each: name, address, length, seconds that it is valid."""
    return [
        {
            "ifname": name,
            "addr_info": [{"family": "inet", "local": local, "prefixlen": length, "valid_life_time": life}],
        }
        for name, local, length, life in entries
    ]


FOREVER = 4294967295


def test_the_interface_is_the_one_whose_network_has_the_address() -> None:
    found = found_in(listed(("lo", "127.0.0.1", 8, FOREVER), ("eth1", "10.0.0.12", 24, FOREVER)), "10.0.0.100")
    assert str(home_of(found, "10.0.0.100", None).at) == "10.0.0.12/24"
    with pytest.raises(InterfaceError, match="no network with"):
        home_of(found_in(listed(("eth0", "10.0.1.12", 24, FOREVER)), "10.0.0.100"), "10.0.0.100", None)
    named = found_in(listed(("eth0", "10.0.1.12", 24, FOREVER)), "10.0.0.100")
    assert home_of(named, "10.0.0.100", "eth0").interface == "eth0"
    with pytest.raises(InterfaceError, match="eth7 has no IPv4 address"):
        home_of(named, "10.0.0.100", "eth7")


@pytest.mark.parametrize(
    ("entry", "ours"),
    [
        (("eth0", "10.0.0.100", 32, 4), True),
        (("eth0", "10.0.0.100", 32, FOREVER), False),
        (("eth0", "10.0.0.100", 24, 4), False),
        (("eth0", "10.0.0.11", 32, 4), False),
    ],
    ids=["ours", "permanent", "with-a-network", "another"],
)
def test_only_what_we_put_there_is_ours(entry: tuple[str, str, int, int], ours: bool) -> None:
    [found] = found_in(listed(entry), "10.0.0.100")
    assert found.ours is ours


def test_an_operators_own_address_is_in_the_way() -> None:
    found = found_in(listed(("a", "10.0.0.11", 24, FOREVER), ("b", "10.0.0.100", 24, FOREVER)), "10.0.0.100")
    with pytest.raises(InterfaceError, match=r"b has 10\.0\.0\.100 already") as caught:
        home_of(found, "10.0.0.100", None)
    assert caught.value.next_step == "remove it: ip address del 10.0.0.100/24 dev b"


def test_a_single_miss_is_no_failure_and_being_out_of_step_takes_patience() -> None:
    now = 100.0
    fitness = Fitness(("127.0.0.1:80",), None, 10.0, lambda: now)
    assert (fitness.serving, fitness.ready) == (False, False)
    fitness.look(None, None)
    assert (fitness.serving, fitness.ready, fitness.lacks) == (True, True, [])
    fitness.look("refused", None)
    assert fitness.serving
    fitness.look("refused", "out of step")
    assert (fitness.serving, fitness.lacks) == (False, ["refused", "out of step"])
    now += 9.9
    fitness.look(None, "still out of step")
    assert (fitness.serving, fitness.tired_of_waiting) == (True, False)
    now += 0.2
    assert fitness.tired_of_waiting
    fitness.look(None, None)
    assert not fitness.tired_of_waiting


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("address: fe80::1\netcd: {endpoints: [http://h:1]}\naccepts: ['h:80']", "no IPv4 address"),
        ("address: 10.0.0.1\netcd: {endpoints: [http://h:1]}\naccepts: []", "names no place"),
        ("address: 10.0.0.1\netcd: {endpoints: [http://h:1]}\naccepts: [h]", "is not HOST:PORT"),
        ("address: 10.0.0.1\netcd: {endpoints: [http://h:1]}\naccepts: ['h:80']\nttl: 1", "shorter than 2 seconds"),
        ("address: 10.0.0.1\naccepts: ['h:80']", "needs the key `etcd`"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, code: str) -> None:
    (tmp_path / "address.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path / "address.yaml")
    assert code in str(caught.value.why)
