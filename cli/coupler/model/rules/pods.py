"""Rules about the network of pods: that there is one way between them, and that each node has a part of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.model.network import POD_SUBNET
from coupler.model.rules.issue import Issue, error, warning
from coupler.model.system import Distribution

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Network

    from coupler.model.cluster import Cluster
    from coupler.model.node import Node

LOSES_LEASES = ((0, 18, 0), (0, 21, 5))
"""flannel from the first to before the second of them reads one event of an answer of etcd, and drops the others."""


def one_pod_network(cluster: Cluster) -> Iterator[Issue]:
    """Pods reach each other by flannel or by static routes."""
    network = cluster.network
    if network.static_routes and network.flannel.enabled:
        message = "flannel leads to the pods of other nodes already"
        yield error("two-pod-networks", ("network", "static_routes"), message, "set network.flannel.enabled to false")
    if network.static_routes and cluster.os.distribution is not Distribution.FLATCAR:
        message = "only nodes with Flatcar, which run Kubernetes, have pods to lead to"
        yield error("routes-without-pods", ("network", "static_routes"), message, "leave it out")
    if cluster.kubernetes.enabled and not (network.static_routes or network.flannel.enabled):
        hint = "set network.static_routes to true, or bring a network of your own: nodes are not Ready without"
        yield warning("no-pod-network", ("network", "flannel", "enabled"), "nothing connects pods", hint)


def flannel_that_sees_all(cluster: Cluster) -> Iterator[Issue]:
    """Some releases of flannel miss nodes that join at the same moment as others."""
    version, (first, mended) = cluster.network.flannel.version, LOSES_LEASES
    if cluster.network.flannel.enabled and first <= version.numbers < mended:
        message = f"flannel {version} can miss the lease of a node that joins at the same moment as another"
        yield warning("flannel-loses-leases", ("network", "flannel", "version"), message, "use 0.21.5 or newer")


def own_subnets(cluster: Cluster) -> Iterator[Issue]:
    """Each node has a subnet of the pods' network to itself."""
    first: dict[IPv4Network, Node] = {}
    for node in cluster.nodes:
        place = ("nodes", node.row, "pod_subnet" if node.pod_subnet else "address")
        if node.pod_subnet and not cluster.network.static_routes:
            yield warning("unused-pod-subnet", place, "flannel leases subnets itself", "leave it out")
        subnet = cluster.pod_subnets.get(node.name)
        if subnet is None:
            continue
        if subnet.prefixlen != POD_SUBNET or not subnet.subnet_of(cluster.network.pods):
            message = f"{subnet} is no /{POD_SUBNET} of the pods' network {cluster.network.pods}"
            yield error("invalid-pod-subnet", place, message, "choose one inside it")
        other = first.setdefault(subnet, node)
        if other is not node:
            message = f"{node.name} would share the pods' subnet {subnet} with {other.name}"
            yield error("shared-pod-subnet", place, message, "give one of them a `pod_subnet` of its own")


RULES = (one_pod_network, flannel_that_sees_all, own_subnets)
