"""Boot machines together, and wait for them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

from coupler.errors import CouplerError
from coupler.lab.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from coupler.lab.machine import Guest
    from coupler.lab.network import Network

_T = TypeVar("_T")

BOOT_SECONDS = 90
"""How long a machine may take until its sshd answers. It takes one second, a hundred at once on two cores 40."""


def each(guests: Sequence[Guest], work: Callable[[Guest], _T]) -> list[_T]:
    """Return what `work` makes of each of `guests`, in their order; all are worked on at the same time."""
    with ThreadPoolExecutor(max_workers=max(1, len(guests))) as pool:
        return list(pool.map(work, guests))


def boot(guests: Sequence[Guest], layers: Sequence[Path], network: Network) -> None:
    """Boot `guests` from `layers`: all supervisors to their gates, all cables at once, go.

    Raises:
        CouplerError: one of them ended before its network was there.
    """
    with ExitStack() as gates:
        waiting = [(guest, guest.spawn(layers)) for guest in guests]
        for _, gate in waiting:
            gates.callback(gate.close)
        ends = []
        for guest, gate in waiting:
            supervisor = gate.wait_at_gate()
            guest.record(supervisor)
            ends.append((guest.machine.address, guest.machine.mac, supervisor.pid))
        if ends:
            network.connect(ends)
        for _, gate in waiting:
            gate.release()


def await_all(guests: Sequence[Guest], condition: Callable[[Guest], bool]) -> None:
    """Wait until `condition` holds for each of `guests`.

    Raises:
        CouplerError: one of them is late or has gone off; it quotes the end of that machine's console.
    """
    deadline = time.monotonic() + BOOT_SECONDS

    def settled(guest: Guest) -> bool:
        return condition(guest) or guest.supervisor() is None

    def wait(guest: Guest) -> bool:
        return wait_until(lambda: settled(guest), deadline) and guest.supervisor() is not None

    for guest, fine in zip(guests, each(guests, wait), strict=True):
        if not fine:
            raise CouplerError(
                "the machine did not come up" if guest.supervisor() else "the machine went off while it booted",
                why=guest.last_words() or f"its sshd does not answer after {BOOT_SECONDS} s",
                next_step=f"cluster lab exec {guest.machine.name} -- journalctl -b",
                host=guest.machine.name,
                log=str(guest.console),
            )
