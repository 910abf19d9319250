"""TLS of hosts: their certificates, sealed for vulcand, and what sends plain requests there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.registrator.balancers.vulcand import hosts
from coupler.registrator.balancers.vulcand.diff import Put
from coupler.registrator.balancers.vulcand.redirects import Redirects
from coupler.registrator.balancers.vulcand.sealing import Sealer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coupler.registrator.balancers.vulcand.diff import Drop, Observed
    from coupler.registrator.model import Host

_BREATH = 20


@dataclass(frozen=True, slots=True)
class Change:
    """What would be done to hosts: writes by what they concern, deletions, and what cannot be done."""

    upserts: Mapping[str, Put]
    removals: tuple[Drop, ...]
    failed: Mapping[str, str]


class Tls:
    """Serves hosts over TLS: `key` seals their key pairs, plain requests are sent to `port`."""

    def __init__(self, key: bytes, port: int) -> None:
        self._sealer, self._port = Sealer(key), port
        self._redirects: tuple[object, Redirects] = None, Redirects(())

    def redirects(self, wanted: tuple[Host, ...]) -> Redirects:
        """Return what sends plain requests to TLS."""
        if self._redirects[0] is not wanted:
            self._redirects = wanted, Redirects(wanted, self._port)
        return self._redirects[1]

    async def plan(self, owner: str, wanted: tuple[Host, ...], observed: Observed) -> Change:
        """Return what leads from `observed` to what is wanted. Others may run meanwhile."""
        found = hosts.Hosts()
        for start in range(0, len(wanted), _BREATH):
            found.add(hosts.wanted(owner, wanted[start : start + _BREATH]))
            await asyncio.sleep(0)
        settled = hosts.settle(found, hosts.strangers(owner, observed, self._sealer))
        puts = dict[str, Put]()
        for start in range(0, len(settled.served), _BREATH):
            puts |= hosts.upserts(settled.served[start : start + _BREATH], observed, self._sealer)
            await asyncio.sleep(0)
        return Change(puts, tuple(hosts.orphans(owner, settled, observed)), settled.failed)
