"""The components of a cluster that have a health: which nodes run them, as which unit, and what they cannot do without.

One table for all who ask: the document gives it to `coupler-health` on the nodes, `cluster init` waits by it and
`cluster status` shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.model.node import Node, Role
from coupler.model.system import Distribution

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.model.cluster import Cluster


_ETCD = ("etcd", "etcd-gateway")


@dataclass(frozen=True)
class Component:
    """A component, by the name that `coupler-health` knows its probe by.

    `role` is that of the nodes which run it, None for all. `programs` are artifacts without which its unit does not
    start, `needs` those without which it cannot be healthy, on whichever node they belong. `after` are components that
    must be healthy before it can be. `patience`: seconds that it may take from then on. What is not `vital` fails no
    node: it is told, and things go on.
    """

    name: str
    unit: str
    patience: int
    role: Role | None = None
    programs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    vital: bool = True


_ROUTES = Component("routes", "coupler-routes.service", 60)


def components(cluster: Cluster) -> tuple[Component, ...]:
    """Return the components of a cluster, in the order in which they become healthy."""
    classic = cluster.os.distribution is Distribution.CONTAINER_LINUX
    return (
        *_etcd(classic=classic),
        *(_flannel(classic=classic) if cluster.network.flannel.enabled else ()),
        *((_ROUTES,) if cluster.network.routed else ()),
        *(_fleet(classic=classic) if cluster.fleet.enabled else ()),
        *(_kubernetes(cluster) if cluster.kubernetes.enabled else ()),
    )


def components_of(cluster: Cluster, node: Node) -> tuple[Component, ...]:
    """Return the components that a node runs."""
    roles = {*node.roles, *([Role.ETCD] if node in cluster.etcd_members else [])}
    return tuple(component for component in components(cluster) if component.role in {None, *roles})


def _etcd(*, classic: bool) -> Iterator[Component]:
    programs = () if classic else ("etcd",)
    member = "etcd2.service" if classic else "etcd.service"
    gateway = member if classic else "etcd-gateway.service"
    yield Component("etcd", member, 120, Role.ETCD, programs)
    yield Component("etcd-gateway", gateway, 60, programs=programs, after=("etcd",))


def _flannel(*, classic: bool) -> Iterator[Component]:
    programs = () if classic else ("flanneld",)
    needs = () if classic else ("etcd", "etcdctl")
    yield Component("flannel", "flanneld.service", 120, programs=programs, needs=needs, after=_ETCD)


def _fleet(*, classic: bool) -> Iterator[Component]:
    programs, needs = ((), ()) if classic else (("fleetd",), ("etcd",))
    yield Component("fleet", "fleet.service", 60, programs=programs, needs=needs, after=_ETCD)


def _kubernetes(cluster: Cluster) -> Iterator[Component]:
    api = ("etcd", "kube-apiserver")
    network = ("cni-plugins", *(("flanneld", "etcdctl") if cluster.network.flannel.enabled else ()))
    pods = ("flannel",) if cluster.network.flannel.enabled else ("routes",) if cluster.network.routed else ()

    def control(name: str, unit: str, patience: int, after: tuple[str, ...], needs: tuple[str, ...]) -> Component:
        return Component(name, f"{unit}.service", patience, Role.CONTROL, (unit,), needs, after)

    yield control("api", "kube-apiserver", 180, _ETCD, ("etcd",))
    yield Component("api-gateway", "kube-apiserver-gateway.service", 60, None, ("etcd",), api, (*_ETCD, "api"))
    yield control("controllers", "kube-controller-manager", 120, ("api-gateway",), api)
    yield control("scheduler", "kube-scheduler", 120, ("api-gateway",), api)
    programs = ("containerd", "containerd-shim-runc-v2", "runc", "kubelet")
    yield Component("containerd", "containerd.service", 60, programs=programs)
    yield Component(
        "kubelet", "kubelet.service", 180, None, ("kubelet",), api + network, ("api-gateway", "containerd", *pods)
    )
    yield Component("kube-proxy", "kube-proxy.service", 120, None, ("kube-proxy",), api, ("api-gateway",))
    yield Component(
        "addons", "kube-addons.service", 180, Role.CONTROL, ("kubectl",), api, ("api-gateway",), vital=False
    )
    needs = (*api, *network, "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
    yield Component("dns", "kube-proxy.service", 180, None, (), needs, ("kubelet", "kube-proxy"), vital=False)
