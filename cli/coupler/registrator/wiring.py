"""Settings → the sources and balancers that they name. Of the others not even the modules are loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from coupler.errors import ConfigurationError
from coupler.registrator.model import Desired

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from coupler.registrator.balancers import Balancer
    from coupler.registrator.balancers.vulcand.keys import Keys
    from coupler.registrator.balancers.vulcand.tls import Tls
    from coupler.registrator.etcd import Store
    from coupler.registrator.etcd.election import ElectionV2, ElectionV3
    from coupler.registrator.etcd.v2 import EtcdV2
    from coupler.registrator.etcd.v3 import EtcdV3
    from coupler.registrator.leader import Election
    from coupler.registrator.settings import (
        AnnouncementsSettings,
        EtcdSettings,
        HAProxySettings,
        KubernetesSettings,
        NginxSettings,
        Settings,
        VulcandSettings,
    )
    from coupler.registrator.sources import Source
    from coupler.registrator.sources.kubernetes.access import Access as KubernetesAccess


@dataclass(frozen=True, slots=True)
class Moved:
    """A balancer, how it is prepared for its first start, and whether it may be written to now."""

    balancer: Balancer
    prepare: Callable[[], Awaitable[None]]
    may_write: Callable[[], bool] = lambda: True


@dataclass(slots=True)
class Wired:
    """What a service consists of. `elections` run beside it."""

    sources: list[Source] = field(default_factory=list)
    balancers: list[Moved] = field(default_factory=list)
    elections: list[Election] = field(default_factory=list)
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    async def close(self) -> None:
        """Let go of everything that the sources and elections hold."""
        for close in self.closing:
            await close()


def wire(settings: Settings, *, dry_run: bool = False) -> Wired:
    """Return what `settings` name, sources in the order of precedence. Raises ConfigurationError.

    With `dry_run` the sources write nothing back to where they come from.
    """
    wired = Wired()
    sources = settings.sources
    if sources.kubernetes:
        _kubernetes(wired, sources.kubernetes, dry_run=dry_run)
    if sources.announcements:
        _announcements(wired, sources.announcements)
    wired.sources.sort(key=lambda source: settings.precedence.index(source.name))
    if settings.balancers.haproxy:
        wired.balancers.append(_haproxy(settings.balancers.haproxy))
    if settings.balancers.nginx:
        wired.balancers.append(_nginx(settings.balancers.nginx))
    if settings.balancers.vulcand:
        _vulcand(wired, settings.balancers.vulcand)
    return wired


def _kubernetes(wired: Wired, settings: KubernetesSettings, *, dry_run: bool) -> None:
    from coupler.registrator.sources.kubernetes.client import ApiClient
    from coupler.registrator.sources.kubernetes.credentials import Credentials
    from coupler.registrator.sources.kubernetes.lease import LeaseElection
    from coupler.registrator.sources.kubernetes.settings import KubernetesSettings as Scope
    from coupler.registrator.sources.kubernetes.source import Kubernetes

    read = _access(settings)
    read()  # what is wrong now is said now; what goes wrong later is tried again
    client = ApiClient(Credentials(read))
    scope = Scope(
        pods=settings.pods,
        namespaces=settings.namespaces,
        services=settings.services,
        ingress=settings.ingress,
        gateway=settings.gateway,
        load_balancer=bool(settings.load_balancer),
        prefix=settings.annotations,
        ingress_class=settings.ingress_class,
        pool=settings.load_balancer,
        published=settings.published,
    )
    writes = settings.write_status and not dry_run
    election = LeaseElection(client, *settings.lease.split("/")) if writes and settings.lease else None
    may_write = (lambda: election.leads) if election else (lambda: True)
    wired.sources.append(Kubernetes(scope, client, may_write=may_write, dry_run=not writes))
    if election:
        wired.elections.append(election)
        wired.closing.append(election.resign)
    wired.closing.append(client.close)


def _access(settings: KubernetesSettings) -> Callable[[], KubernetesAccess]:
    from coupler.registrator.sources.kubernetes import access

    if settings.server is not None:
        return partial(access.plain, settings.server)
    if settings.kubeconfig is not None:
        return partial(access.kubeconfig, settings.kubeconfig, settings.context)
    return access.in_cluster


def _announcements(wired: Wired, settings: AnnouncementsSettings) -> None:
    from coupler.registrator.sources.announcements import Announcements

    store: Store = etcd_of(settings.etcd)
    wired.sources.append(Announcements(store, settings.prefix, settings.domain, grace=settings.grace))
    wired.closing.append(store.close)


def etcd_of(settings: EtcdSettings, *, request_timeout: float = 5.0) -> EtcdV3 | EtcdV2:
    """Return a client of an etcd; a request takes so many seconds at most. Raises ConfigurationError, EtcdError."""
    from coupler.registrator.etcd.endpoints import Access
    from coupler.registrator.etcd.v2 import EtcdV2
    from coupler.registrator.etcd.v3 import EtcdV3

    password = _secret(settings.password_file) if settings.password_file else None
    access = Access(
        settings.endpoints,
        settings.ca,
        settings.certificate,
        settings.key,
        user=settings.user,
        password=password,
        request_timeout=request_timeout,
    )
    return EtcdV3(access) if settings.api == 3 else EtcdV2(access)  # noqa: PLR2004 -- the number is its name


def _secret(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the password in {path} cannot be read", str(error)) from error


def _haproxy(settings: HAProxySettings) -> Moved:
    from coupler.registrator.balancers.haproxy.adapter import HAProxy
    from coupler.registrator.balancers.haproxy.config import Settings as HAProxyShape
    from coupler.registrator.balancers.haproxy.files import Files
    from coupler.registrator.balancers.haproxy.reload import MasterReload, SpawnReload
    from coupler.registrator.balancers.haproxy.socket import RuntimeSocket

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


def _nginx(settings: NginxSettings) -> Moved:
    from coupler.registrator.balancers.nginx.adapter import Nginx
    from coupler.registrator.balancers.nginx.config import NginxSettings as NginxPlaces

    balancer = Nginx(
        NginxPlaces(
            settings.folder,
            settings.main,
            settings.pid_file,
            settings.http,
            settings.https,
            settings.tcp_address,
            settings.program,
            settings.status,
            settings.accept_proxy,
            settings.hash_sizes,
        )
    )
    return Moved(balancer, lambda: balancer.prepare(Desired()))


def _vulcand(wired: Wired, settings: VulcandSettings) -> None:
    from coupler.registrator.balancers.vulcand.adapter import Vulcand
    from coupler.registrator.balancers.vulcand.keys import KeysV2, KeysV3
    from coupler.registrator.etcd.election import ElectionV2, ElectionV3
    from coupler.registrator.etcd.v3 import EtcdV3

    etcd = etcd_of(settings.etcd)
    election: ElectionV3 | ElectionV2
    keys: Keys
    if isinstance(etcd, EtcdV3):
        election, keys = ElectionV3(etcd, settings.election), KeysV3(etcd, settings.prefix)
    else:
        election, keys = ElectionV2(etcd, settings.election), KeysV2(etcd, settings.prefix)
    tls = _tls(settings.seal_key_file, settings.https_port) if settings.seal_key_file else None
    balancer = Vulcand(keys, settings.prefix, fence=lambda: election.fence, probe=settings.probe, tls=tls)
    wired.balancers.append(Moved(balancer, _nothing, lambda: election.leads))
    wired.elections.append(election)
    wired.closing += [election.resign, etcd.close]


def _tls(key: Path, port: int) -> Tls:
    from coupler.registrator.balancers.vulcand.sealing import read_key
    from coupler.registrator.balancers.vulcand.tls import Tls

    return Tls(read_key(key), port)


async def _nothing() -> None:
    """Prepare what needs no preparation."""
