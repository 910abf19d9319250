"""What it costs to boot lab machines and to make a cluster of them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from tests.bench.floor import Floor
from tests.bench.measure import COUPLER, Row, Times, timed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ROUNDS = 3
_SIZES = (3, 10)
_GOAL = 1.5  # times the floor, plus Ansible's own start

_EMPTY_PLAY = "- hosts: localhost\n  gather_facts: false\n  tasks: []\n"

_numbers = count(1)


@dataclass(frozen=True)
class Bed:
    """A lab of `nodes` machines in a folder of its own."""

    folder: Path
    nodes: int

    def cluster(self, *words: str) -> float:
        """Run a verb here and return the seconds it took."""
        return timed([*COUPLER, *words], self.folder)

    def boot(self) -> float:
        """Switch the machines on and return the seconds until every sshd answers."""
        new = () if (self.folder / "cluster.yaml").exists() else ("--nodes", str(self.nodes))
        return self.cluster("lab", "up", *new)

    def boot_anew(self) -> None:
        """Boot machines with empty disks in place of those that there are."""
        self.cluster("lab", "down")
        self.boot()


@contextmanager
def _bed(folder: Path, nodes: int) -> Iterator[Bed]:
    here = folder / f"bench-{os.getpid()}-{next(_numbers)}"
    here.mkdir()
    try:
        yield Bed(here, nodes)
    finally:
        subprocess.run([*COUPLER, "lab", "down", "--forget"], cwd=here, check=False, capture_output=True)


def measure(folder: Path) -> list[Row]:
    """Return the rows of `lab up`, `init`, and what they stand beside."""
    with _bed(folder, 1) as bed:
        bed.boot()  # builds the root where it is not cached
    times = Times()
    for _ in range(_ROUNDS):
        times.add("ansible", _ansible_start(folder))
        with _bed(folder, 1) as bed:
            times.add("boot 1", bed.boot())
        for size in _SIZES:
            with _bed(folder, size) as bed:
                _round(bed, times)
    return [*_boot_rows(times), *_init_rows(times)]


def _round(bed: Bed, times: Times) -> None:
    def note(what: str, seconds: float) -> None:
        times.add(f"{what} {bed.nodes}", seconds)

    note("boot", bed.boot())
    note("init", bed.cluster("init"))
    note("again", bed.cluster("init"))
    note("status", bed.cluster("status"))
    floor = Floor(bed.folder / "cluster.yaml")
    bed.boot_anew()
    note("floor", floor.openssh())
    bed.boot_anew()
    note("pyinfra", floor.pyinfra(bed.folder))


def _ansible_start(folder: Path) -> float:
    play = folder / "empty.yml"
    play.write_text(_EMPTY_PLAY)
    return timed([sys.executable, "-m", "ansible", "playbook", "--inventory", "localhost,", str(play)], folder)


def _boot_rows(times: Times) -> list[Row]:
    one = times["boot 1"]
    boots = [Row(f"lab up, {size} machines", times[f"boot {size}"], "lab up, 1 machine", one) for size in _SIZES]
    demo = times["boot 3"] + times["init 3"] + times["status 3"]
    return [*boots, Row("lab up, init and status, 3 machines", demo, "lab up, 3 machines", times["boot 3"])]


def _init_rows(times: Times) -> list[Row]:
    rows = []
    for size in _SIZES:
        took, floor = times[f"init {size}"], times[f"floor {size}"]
        goal = _GOAL * floor + times["ansible"]
        rows += [
            Row(f"init, {size} nodes", took, "the floor: plain OpenSSH, one connection per node", floor),
            Row(f"init, {size} nodes", took, "the goal: 1.5 floors and Ansible's start", goal),
            Row(f"init, {size} nodes", took, "pyinfra", times[f"pyinfra {size}"]),
            Row(f"second init, {size} nodes", times[f"again {size}"], "the first", took),
        ]
    few, many = _SIZES
    one_more = (times[f"init {many}"] - times[f"init {few}"]) / (many - few)
    return [
        *rows,
        Row("init, one more node", one_more, f"init, {few} nodes", times[f"init {few}"]),
        Row("Ansible's own start (an empty play)", times["ansible"], f"init, {few} nodes", times[f"init {few}"]),
    ]
