"""What the control nodes apply to Kubernetes: a file of manifests for each addon, and a list of all their objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coupler.model.addons import COREDNS, KUBELET_ACCESS, REGISTRATOR
from coupler.model.manifests import objects_of
from coupler.render.fragments import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from coupler.model import Cluster

FOLDER = "/etc/coupler/addons"
OBJECTS = "/etc/coupler/addons/objects"
_DISRUPTION_V1 = (1, 22, 0)
"""policy/v1 came with 1.21, and an API server that is one release behind, in an upgrade, has v1beta1 alone."""
_DNS = 10
"""The cluster's DNS has the tenth address of the services, as kubelets are told."""


def derivations(cluster: Cluster) -> dict[str, Callable[[], Any]]:
    """Return how the values for the template `addons` come about."""
    return {"files": lambda: addon_files(cluster), "watched": lambda: " ".join(addon_files(cluster))}


def addon_files(cluster: Cluster) -> dict[str, str]:
    """Return the text of each file by its path on a control node."""
    manifests = {**_built_in(cluster), **{name: m.text for name, m in cluster.kubernetes.addons.manifests.items()}}
    files = {f"{FOLDER}/{name}.yaml": text for name, text in manifests.items()}
    rows = [f"{name} {' '.join(found)}\n" for name, text in manifests.items() for found in objects_of(text)]
    return {**files, OBJECTS: "".join(["# addon apiVersion kind namespace name\n", *rows])}


def _built_in(cluster: Cluster) -> dict[str, str]:
    addons = {KUBELET_ACCESS: _filled(KUBELET_ACCESS)}
    if cluster.runs_coredns:
        addons[COREDNS] = _coredns(cluster)
    if cluster.load_balancer:
        addons[REGISTRATOR] = _filled(REGISTRATOR)
    return addons


def _coredns(cluster: Cluster) -> str:
    asked = cluster.kubernetes.addons.coredns
    # The kubelet fills in the node's own name servers.
    upstreams = ("/etc/resolv.conf",) if asked.upstreams is None else asked.upstreams
    return _filled(
        COREDNS,
        image=cluster.coredns_image,
        address=cluster.network.services[_DNS],
        domain=cluster.network.domain,
        replicas=asked.replicas or min(2, len(cluster.nodes)),
        upstreams=" ".join(str(server) for server in upstreams),
        disruption_api="policy/v1" if cluster.kubernetes.version.numbers >= _DISRUPTION_V1 else "policy/v1beta1",
    )


def _filled(name: str, **values: object) -> str:
    return environment().get_template(f"addons/{name}.yaml.j2").render(values)
