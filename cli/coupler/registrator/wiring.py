"""Settings → the sources and balancers that they name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coupler.errors import ConfigurationError
from coupler.registrator.balancers.haproxy.adapter import HAProxy
from coupler.registrator.balancers.haproxy.config import Settings as HAProxyShape
from coupler.registrator.balancers.haproxy.files import Files
from coupler.registrator.balancers.haproxy.reload import MasterReload, SpawnReload
from coupler.registrator.balancers.haproxy.socket import RuntimeSocket
from coupler.registrator.etcd.endpoints import Access
from coupler.registrator.etcd.v2 import EtcdV2
from coupler.registrator.etcd.v3 import EtcdV3
from coupler.registrator.model import Desired
from coupler.registrator.sources.announcements import Announcements

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from coupler.registrator.balancers import Balancer
    from coupler.registrator.etcd import Store
    from coupler.registrator.settings import AnnouncementsSettings, EtcdSettings, HAProxySettings, Settings
    from coupler.registrator.sources import Source


@dataclass(frozen=True, slots=True)
class Moved:
    """A balancer, how it is prepared for its first start, and whether it may be written to now."""

    balancer: Balancer
    prepare: Callable[[], Awaitable[None]]
    may_write: Callable[[], bool] = lambda: True


@dataclass(slots=True)
class Wired:
    """What a service consists of. `elections` run beside it, and call what they are given when something changed."""

    sources: list[Source] = field(default_factory=list)
    balancers: list[Moved] = field(default_factory=list)
    elections: list[Callable[[Callable[[], None]], Awaitable[None]]] = field(default_factory=list)
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    async def close(self) -> None:
        """Let go of everything that the sources and elections hold."""
        for close in self.closing:
            await close()


def wire(settings: Settings) -> Wired:
    """Return what `settings` name, sources in the order of precedence. Raises ConfigurationError."""
    wired = Wired()
    sources = settings.sources
    if sources.announcements:
        _announcements(wired, sources.announcements)
    wired.sources.sort(key=lambda source: settings.precedence.index(source.name))
    if settings.balancers.haproxy:
        wired.balancers.append(_haproxy(settings.balancers.haproxy))
    return wired


def _announcements(wired: Wired, settings: AnnouncementsSettings) -> None:
    store = _etcd(settings.etcd)
    wired.sources.append(Announcements(store, settings.prefix, settings.domain, grace=settings.grace))
    wired.closing.append(store.close)


def _etcd(settings: EtcdSettings) -> Store:
    password = _secret(settings.password_file) if settings.password_file else None
    access = Access(
        settings.endpoints, settings.ca, settings.certificate, settings.key, user=settings.user, password=password
    )
    return EtcdV3(access) if settings.api == 3 else EtcdV2(access)  # noqa: PLR2004 -- the number is its name


def _secret(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the password in {path} cannot be read", str(error)) from error


def _haproxy(settings: HAProxySettings) -> Moved:
    shape = HAProxyShape(
        settings.config,
        settings.http,
        settings.tcp_address,
        settings.https,
        settings.accept_proxy,
        settings.https_port,
    )
    files = (*settings.base, settings.config)
    master = settings.master
    balancer = HAProxy(
        shape,
        RuntimeSocket(settings.socket),
        Files(settings.config, settings.base, settings.program),
        MasterReload(master) if master else SpawnReload(settings.program, files, settings.socket),
        reload_interval=settings.reload_interval,
    )
    return Moved(balancer, lambda: balancer.prepare(Desired()))
