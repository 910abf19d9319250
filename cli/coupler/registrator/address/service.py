"""`registrator hold-address`: the process around the holder."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
from typing import TYPE_CHECKING

from coupler.registrator import systemd
from coupler.registrator.address.fitness import Fitness
from coupler.registrator.address.holder import Holder
from coupler.registrator.address.interface import Interface
from coupler.registrator.address.web import serve
from coupler.registrator.etcd.election import ElectionV2, ElectionV3
from coupler.registrator.etcd.v3 import EtcdV3
from coupler.registrator.running import told_to_stop, work_until
from coupler.registrator.wiring import etcd_of

if TYPE_CHECKING:
    from coupler.registrator.address.settings import AddressSettings
    from coupler.registrator.leader import Elector

_log = logging.getLogger(__name__)


async def run(settings: AddressSettings) -> None:
    """Hold the address whenever it is ours to hold, until SIGTERM or SIGINT.

    Raises CouplerError where it cannot begin.
    """
    stop = told_to_stop()
    # An attempt to renew the lease must end before the lease does.
    etcd = etcd_of(settings.etcd, request_timeout=settings.ttl / 3)

    def elector_of(own_address: str) -> Elector:
        identity = f"{platform.node()} {own_address}"
        if isinstance(etcd, EtcdV3):
            return ElectionV3(etcd, settings.key, ttl=settings.ttl, identity=identity)
        return ElectionV2(etcd, settings.key, ttl=settings.ttl, identity=identity)

    fitness = Fitness(settings.accepts, settings.ready, settings.patience)
    holder = Holder(settings, fitness, elector_of)
    await Interface(settings.address, settings.interface).release()  # of an earlier life
    close = await serve(settings.listen, holder)
    systemd.notify("READY=1")
    _log.info("running", extra={"address": settings.address, "listen": settings.listen})
    try:
        await work_until(stop, [holder.run, lambda: fitness.run(holder.wake), systemd.watchdog])
    finally:
        systemd.notify("STOPPING=1")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings.ttl):
                await etcd.close()
                await close()


async def release(settings: AddressSettings) -> bool:
    """Take away what a process that died has left on the interface; say whether there was anything."""
    return await Interface(settings.address, settings.interface).release()
