"""Rules about the programs: which version can do what another one asks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.model.rules.issue import Issue, error, warning
from coupler.model.system import Distribution, Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.model.cluster import Cluster

ETCD_WITHOUT_V2 = (3, 6, 0)
ETCD_V2_REPORTED_BROKEN = (3, 5, 26)
"""etcd issue 21249: `/v2/keys` is answered by the gRPC handler."""
FLANNEL_WITH_V3 = (0, 18, 0)
"""flannel pull request 1562 moved its client to etcd's v3 API."""
ETCD_WITH_V3 = (3, 4, 0)
"""The first with the API /v3 for HTTP, which nodes ask (etcd's documentation, 'gRPC gateway'), and with learners."""
LEAST_HEARTBEATS = 5


def etcd_version(cluster: Cluster) -> Iterator[Issue]:
    """The units and scripts of the document need an etcd with a gateway and today's API."""
    version = cluster.etcd.version
    if version.numbers < ETCD_WITH_V3 and not _ships_own(cluster):
        message = f"etcd {version} has no API /v3, which nodes ask it by"
        hint = "use etcd 3.5; etcd 2 is for images that ship it, os.distribution: container-linux"
        yield error("etcd-too-old", ("etcd", "version"), message, hint)


def v2_users(cluster: Cluster) -> Iterator[Issue]:
    """Who needs etcd's v2 API gets it."""
    if cluster.etcd.v2_api or _ships_own(cluster):
        return
    for who, otherwise in _v2_users(cluster):
        hint = f"set it to true (etcd 3.5 or older), or {otherwise}"
        yield error("v2-api-needed", ("etcd", "v2_api"), f"{who} needs etcd's v2 API", hint)


def _v2_users(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Yield who needs the v2 API, and how to do without."""
    if cluster.os.reboot.strategy is Strategy.ETCD_LOCK:
        yield "the reboot strategy etcd-lock", "set os.reboot.strategy to reboot or off"
    if cluster.fleet.enabled:
        yield "fleet", "set fleet.enabled to false"
    flannel = cluster.network.flannel
    if flannel.enabled and flannel.version.numbers < FLANNEL_WITH_V3:
        yield f"flannel {flannel.version}", "use flannel 0.18 or newer"


def v2_servers(cluster: Cluster) -> Iterator[Issue]:
    """etcd 3.6 has no v2 API, and late 3.5 releases one that was reported broken."""
    version = cluster.etcd.version
    if not cluster.etcd.v2_api or _ships_own(cluster):
        return
    if version.numbers >= ETCD_WITHOUT_V2:
        hint = "use etcd 3.5, or set etcd.v2_api to false"
        yield error("v2-api-removed", ("etcd", "version"), f"etcd {version} has no v2 API", hint)
    elif version.numbers >= ETCD_V2_REPORTED_BROKEN:
        message = f"the v2 API was reported broken in etcd 3.5.26 (its issue 21249), and {version} is no older"
        yield warning("v2-api-broken", ("etcd", "version"), message, "use etcd 3.5.25, or try it before you rely on it")


def election_timeout(cluster: Cluster) -> Iterator[Issue]:
    """etcd refuses an election timeout of less than five heartbeats."""
    timeout, least = cluster.etcd.election_timeout, LEAST_HEARTBEATS * cluster.etcd.heartbeat_interval
    if timeout < least:
        message = f"{timeout} ms without a leader is less than {LEAST_HEARTBEATS} heartbeats: etcd would not start"
        key = "election_timeout" if "election_timeout" in cluster.etcd.model_fields_set else "heartbeat_interval"
        yield error("election-timeout", ("etcd", key), message, f"set etcd.election_timeout to at least {least}")


def shipped_programs(cluster: Cluster) -> Iterator[Issue]:
    """Container Linux images ship etcd2, fleet and flannel in versions of their own (etcd3: Kubernetes issue 57354)."""
    if not _ships_own(cluster):
        return
    sections = {
        ("etcd",): cluster.etcd.model_fields_set,
        ("fleet",): cluster.fleet.model_fields_set,
        ("network", "flannel"): cluster.network.flannel.model_fields_set,
    }
    for path, written in sections.items():
        if "version" in written:
            message = f"container-linux runs the {path[-1]} that its image ships; this version is not used"
            yield warning(
                "version-not-used", (*path, "version"), message, "remove the key, or set os.distribution to flatcar"
            )
    if cluster.kubernetes.enabled:
        message = "the image ships etcd 2, and kube-apiserver 1.13 and newer store their data in etcd 3 only"
        hint = "set os.distribution to flatcar, or kubernetes.enabled to false"
        yield error("kubernetes-needs-etcd3", ("os", "distribution"), message, hint)


def _ships_own(cluster: Cluster) -> bool:
    return cluster.os.distribution is Distribution.CONTAINER_LINUX


RULES = (etcd_version, v2_users, v2_servers, election_timeout, shipped_programs)
