"""Rules about what connects pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.model.rules.issue import Issue, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.model.cluster import Cluster

LOSES_LEASES = ((0, 18, 0), (0, 21, 5))
"""flannel from the first to before the second of them reads one event of an answer of etcd, and drops the others."""


def something_between_pods(cluster: Cluster) -> Iterator[Issue]:
    """Pods reach each other by flannel or by routes, unless somebody brings another network."""
    network = cluster.network
    if cluster.kubernetes.enabled and not (network.routed or network.flannel.enabled):
        hint = "set it to true, or bring a network of your own: nodes are not Ready without"
        yield warning("no-pod-network", ("network", "static_routes"), "nothing connects pods", hint)


def flannel_that_sees_all(cluster: Cluster) -> Iterator[Issue]:
    """Some releases of flannel miss nodes that join at the same moment as others."""
    version, (first, mended) = cluster.network.flannel.version, LOSES_LEASES
    if cluster.network.flannel.enabled and first <= version.numbers < mended:
        message = f"flannel {version} can miss the lease of a node that joins at the same moment as another"
        yield warning("flannel-loses-leases", ("network", "flannel", "version"), message, "use 0.21.5 or newer")


RULES = (something_between_pods, flannel_that_sees_all)
