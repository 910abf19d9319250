"""The lock as we read and write it, beside what the real locksmithctl says and writes."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from coupler.adapters.locksmith import LOCKS, Semaphore, semaphores_in

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.locksmith.conftest import Locks

RECORDED = (
    '{"action":"get","node":{"key":"/coreos.com/updateengine/rebootlock","dir":true,"nodes":['
    '{"key":"/coreos.com/updateengine/rebootlock/semaphore",'
    '"value":"{\\"semaphore\\":-1,\\"max\\":1,\\"holders\\":[\\"abc\\",\\"def\\"]}",'
    '"modifiedIndex":9,"createdIndex":4},'
    '{"key":"/coreos.com/updateengine/rebootlock/groups","dir":true,"nodes":['
    '{"key":"/coreos.com/updateengine/rebootlock/groups/blue","dir":true,"nodes":['
    '{"key":"/coreos.com/updateengine/rebootlock/groups/blue/semaphore",'
    '"value":"{\\"semaphore\\":1,\\"max\\":1,\\"holders\\":null}","modifiedIndex":8,"createdIndex":8}'
    '],"modifiedIndex":8,"createdIndex":8}],"modifiedIndex":8,"createdIndex":8}],"modifiedIndex":4,"createdIndex":4}}'
)
"""What etcd 3.4.23 answered after locksmithctl 0.6.2: three slots, two holders, then one slot; and a group."""
ONE = "5f2d1c3a4b5e4f60718293a4b5c6d7e8"
TWO = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"


def ctl(program: Path, locks: Locks, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, "-endpoint", locks.etcd.url, *words], capture_output=True, text=True, check=False, timeout=30
    )


def test_what_was_recorded_is_understood() -> None:
    found = semaphores_in(RECORDED)
    assert found == {"": Semaphore(1, -1, ("abc", "def"), 9), "blue": Semaphore(1, 1, (), 8)}
    assert found["blue"].text == '{"semaphore":1,"max":1,"holders":null}'
    assert found[""].text == '{"semaphore":-1,"max":1,"holders":["abc","def"]}'


def test_what_is_no_lock_is_refused(locks: Locks) -> None:
    locks.ask("PUT", f"{LOCKS}/semaphore", "value=hello")
    with pytest.raises(ValueError, match=r"rebootlock/semaphore is no lock of locksmith: hello"):
        locks.read()


def test_before_the_first_lock_there_is_none(locks: Locks) -> None:
    code, body = locks.ask("GET", f"{LOCKS}?recursive=true")
    assert code == 404
    assert semaphores_in(body) == {}


@pytest.mark.parametrize("group", ["", "rack-a", "a b/c'd%"])
def test_a_lock_is_changed_only_from_what_was_read(locks: Locks, group: str) -> None:
    nothing, first = Semaphore(0, 0), Semaphore(0, 0).with_most(2)
    assert locks.put(first, nothing, group) == 201
    assert locks.put(first, nothing, group) == 412
    held = Semaphore(2, 0, (TWO, ONE), locks.read(group).index)
    assert locks.put(held, locks.read(group), group) == 200
    before = locks.read(group)
    assert before.holders == (TWO, ONE)
    assert locks.put(before.without(ONE), before, group) == 200
    assert locks.put(before.without(TWO), before, group) == 412
    assert (locks.read(group).free, locks.read(group).holders) == (1, (TWO,))


def test_fewer_than_hold_it_is_no_reason_to_take_it_away() -> None:
    held = Semaphore(2, 0, (TWO, ONE), 7)
    assert held.with_most(1) == Semaphore(1, -1, (TWO, ONE), 7)
    assert held.with_most(1).without(TWO) == Semaphore(1, 0, (ONE,), 7)


def test_slots_are_made_and_said_once(locks: Locks) -> None:
    assert locks.slots("2").stdout == "at most 2 at a time\n"
    made = locks.read()
    assert (made.most, made.free, made.holders) == (2, 2, ())
    again = locks.slots("2")
    assert (again.returncode, locks.read().index) == (0, made.index)


def test_slots_follow_cluster_yaml_and_leave_holders_and_operators_alone(locks: Locks) -> None:
    locks.slots("2", "rack-a")
    before = locks.read("rack-a")
    locks.put(Semaphore(2, 0, (TWO, ONE)), before, "rack-a")
    locks.slots("1", "rack-a")
    lowered = locks.read("rack-a")
    assert (lowered.most, lowered.free, lowered.holders) == (1, -1, (TWO, ONE))
    locks.put(lowered.with_most(0), lowered, "rack-a")  # an operator: nobody reboots for now
    assert locks.slots("1", "rack-a").stdout == "at most 0 at a time\n"
    assert locks.read("rack-a").most == 0
    locks.slots("3", "rack-a")
    assert (locks.read("rack-a").most, locks.read("rack-a").free) == (3, 1)


def test_nodes_that_say_it_at_the_same_time_agree(locks: Locks) -> None:
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda _: locks.slots("3"), range(5)))
    assert {one.returncode for one in done} == {0}, [one.stderr for one in done]
    assert (locks.read().most, locks.read().free) == (3, 3)


def test_slots_without_etcd_say_so_and_fail(locks: Locks) -> None:
    locks.etcd.stop()
    done = locks.slots("2")
    assert done.returncode == 1
    assert "etcd: " in done.stderr
    assert "(000)" in done.stderr


def test_locksmithctl_reads_what_we_write(locks: Locks, locksmithctl: Path) -> None:
    locks.slots("2")
    assert ctl(locksmithctl, locks, "status").stdout == "Available: 2\nMax: 2\n"
    assert ctl(locksmithctl, locks, "lock", ONE).returncode == 0
    assert ctl(locksmithctl, locks, "lock", TWO).returncode == 0
    third = ctl(locksmithctl, locks, "lock", "f" * 32)
    assert (third.returncode, third.stderr) == (1, "Error locking: semaphore is at 0\n")
    before = locks.read()
    assert (before.most, before.free, before.holders) == (2, 0, (TWO, ONE))
    assert locks.put(before.without(TWO), before) == 200
    assert ctl(locksmithctl, locks, "status").stdout == f"Available: 1\nMax: 2\n\nMACHINE ID\n{ONE}\n"
    assert ctl(locksmithctl, locks, "unlock", ONE).returncode == 0
    assert locks.read().holders == ()
    again = ctl(locksmithctl, locks, "unlock", ONE)
    assert (again.returncode, again.stderr) == (1, "Error unlocking: holder does not exist\n")
    assert ctl(locksmithctl, locks, "set-max", "5").stdout == "Old-Max: 2\nMax: 5\n"
    assert (locks.read().most, locks.read().free) == (5, 5)


def test_locksmithctl_has_the_same_groups(locks: Locks, locksmithctl: Path) -> None:
    ctl(locksmithctl, locks, "-group", "a b/c'd%", "lock", ONE)
    before = locks.read("a b/c'd%")
    assert before.holders == (ONE,)
    assert locks.put(before.without(ONE), before, "a b/c'd%") == 200
    assert ctl(locksmithctl, locks, "-group", "a b/c'd%", "status").stdout == "Available: 1\nMax: 1\n"
