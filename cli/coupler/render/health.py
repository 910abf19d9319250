"""What `coupler-health` on the nodes asks, and of whom: /etc/coupler/health.conf."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from coupler.model.health import components

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coupler.model import Cluster


def health_settings(cluster: Cluster, scheme: str, flannel_api: int) -> str:
    """Return the file: variables of sh, and the table of components.

    `scheme` is that of etcd's URLs, `flannel_api` the version of etcd's API that flannel keeps its leases in.
    """
    settings = {"ETCD_SCHEME": scheme}
    if cluster.network.flannel.enabled:
        settings |= {"FLANNEL_API": str(flannel_api), "FLANNEL_BACKEND": str(cluster.network.flannel.backend)}
    if cluster.kubernetes.enabled:
        settings |= {
            "API_SERVICE": str(cluster.network.services[1]),
            "API_NAME": f"kubernetes.default.svc.{cluster.network.domain}",
            "PROXY_MODE": cluster.kubernetes.proxy.mode.value,
        }
    lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    return "\n".join([*lines, "COMPONENTS='", "# component role unit programs needs", *_table(cluster), "'"]) + "\n"


def _table(cluster: Cluster) -> list[str]:
    paths = {artifact.name: artifact.target for artifact in cluster.artifacts_needed}

    def listed(names: Iterable[str]) -> str:
        return ",".join(f"{name}:{paths[name]}" for name in names if name in paths) or "-"

    return [
        " ".join((part.name, part.role or "-", part.unit, listed(part.programs), listed(part.needs)))
        for part in components(cluster)
    ]
