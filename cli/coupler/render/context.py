"""What the templates need to know, derived from the model. Templates hold no logic beyond 'if' and 'for'."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from coupler.model import Distribution
from coupler.model.rules.programs import FLANNEL_WITH_V3
from coupler.render import addons, kubernetes
from coupler.render.health import health_settings
from coupler.render.systemd import command_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coupler.model import Cluster, Node

PKI = "/etc/coupler/pki"
"""Where a node keeps its certificates and keys."""

GATEWAY_RETRY = "1s"
"""How soon a gateway tries again where nobody answered; its own default, a minute, is how long a boot would wait."""

POD_ROUTE_PROTOCOL = 67
"""By what number the kernel tells our routes from others'; no program has it in iproute2's rt_protos."""

RUNTIME_PATH = "/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where containerd looks for its shim and for runc: artifacts are in the first folder, not in systemd's own path."""

Derivation = Callable[[], Any]
"""A value for the templates, not computed yet."""
Derivations = dict[str, Derivation | dict[str, Derivation]]


def context(cluster: Cluster) -> dict[str, Any]:
    """Return the values for the templates of `cloud-config/`: the cluster, and what `derivations` come to."""
    derived = derivations(cluster).items()
    return {"cluster": cluster} | {
        name: {key: derive() for key, derive in value.items()} if isinstance(value, dict) else value()
        for name, value in derived
    }


def derivations(cluster: Cluster) -> Derivations:
    """Return how each value for the templates comes from the cluster, so that `provenance` can watch it."""
    return {
        "node_table": lambda: node_table(cluster),
        "artifact_list": lambda: artifact_list(cluster),
        "image_list": lambda: image_list(cluster),
        # So many seconds, after a boot too, as a small git server takes to answer everybody.
        "pull_jitter": lambda: max(1, min(cluster.git.interval.seconds // 10, len(cluster.nodes) // 10)),
        "update_server": lambda: "disabled" if cluster.os.version else cluster.os.update_server,
        "locksmith": lambda: _locksmith(cluster),
        "locksmithctl_environment": lambda: _locksmithctl_environment(cluster),
        "etcd": {
            "scheme": lambda: cluster.etcd.scheme,
            "initial_cluster": lambda: _initial_cluster(cluster),
            "gateway_endpoints": lambda: ",".join(f"{m.address}:2379" for m in cluster.etcd_members),
            "gateway_retry": lambda: GATEWAY_RETRY,
            "flags": lambda: _etcd_flags(cluster),
            "wal": lambda: _etcd_wal(cluster),
        },
        "etcdctl_environment": lambda: _etcdctl_environment(cluster, _etcdctl_api(cluster)),
        "flannel": {
            "network_config": lambda: _flannel_network(cluster),
            "etcd_api": lambda: _flannel_api(cluster),
            "etcdctl_environment": lambda: _etcdctl_environment(cluster, _flannel_api(cluster)),
        },
        "runtime": {
            "program": lambda: _containerd(cluster),
            "arguments": lambda: " ".join(filter(None, (cluster.pause_image, _containerd(cluster)))),
            "path": lambda: RUNTIME_PATH if {"containerd", "runc"} & _artifacts(cluster).keys() else "",
            "restart_on": lambda: _runtime_restart(cluster),
        },
        "pod_subnets": lambda: pod_subnets(cluster) if cluster.network.routed else "",
        "pod_route_protocol": lambda: POD_ROUTE_PROTOCOL,
        "health_settings": lambda: health_settings(cluster, cluster.etcd.scheme, _flannel_api(cluster)),
        "fleet": {
            "units": lambda: cluster.fleet.scheduled,
            "list": lambda: _fleet_list(cluster),
            "fleetctl": lambda: f"{'/usr' if _ships_own(cluster) else '/opt'}/bin/fleetctl",
        },
        "proxy_environment": lambda: _proxy_environment(cluster),
        "ca_certificates": lambda: {f"coupler-{c.path.stem}": c.pem for c in cluster.ca_certificates},
        "kubernetes": kubernetes.derivations(cluster) if cluster.kubernetes.enabled else {},
        "addons": addons.derivations(cluster) if cluster.kubernetes.enabled else {},
    }


def node_table(cluster: Cluster) -> str:
    """Return the table of nodes: a line for each, columns name, address, MAC, roles, labels, fleet's metadata,
    taints."""
    rows = [_row(cluster, node) for node in cluster.nodes]
    return "\n".join(["# name address mac roles labels metadata taints", *(" ".join(row) for row in rows)]) + "\n"


def artifact_list(cluster: Cluster) -> str:
    """Return the list of programs to fetch: name, version, SHA-256, member of the archive, target, URLs."""
    rows = [
        (a.name, a.version or "-", a.sha256 or "-", a.member or "-", a.target, *a.urls)
        for a in cluster.artifacts_needed
    ]
    return "\n".join(["# name version sha256 member target urls", *(" ".join(row) for row in rows)]) + "\n"


def image_list(cluster: Cluster) -> str:
    """Return the list of images for containerd: SHA-256 of the archive, its URL, the references that it brings."""
    rows = [(i.sha256, f"{cluster.mirror.url}/{i.place}", *i.references) for i in cluster.images if cluster.mirror]
    return "\n".join(["# sha256 url references", *(" ".join(row) for row in rows)]) + "\n"


def pod_subnets(cluster: Cluster) -> str:
    """Return the table of routes to pods: the subnet of each node's pods, its address."""
    rows = [f"{cluster.pod_subnet_of(node)} {node.address}" for node in cluster.nodes]
    return "\n".join(["# subnet address", *rows]) + "\n"


def _row(cluster: Cluster, node: Node) -> tuple[str, ...]:
    roles = [role.value for role in node.roles]
    if node in cluster.etcd_members and "etcd" not in roles:
        roles.append("etcd")
    metadata = {**cluster.fleet.metadata, **node.labels}
    return (
        node.name,
        str(node.address),
        (node.mac or "-").lower(),
        ",".join(roles),
        _pairs(node.labels) or "-",
        _pairs(metadata) or "-",
        ",".join(cluster.taints_of(node)) or "-",
    )


def _pairs(values: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in values.items())


def _initial_cluster(cluster: Cluster) -> str:
    return ",".join(f"{member.name}={cluster.peer_url(member)}" for member in cluster.etcd_members)


def _etcd_flags(cluster: Cluster) -> list[str]:
    arguments = {
        "heartbeat-interval": str(cluster.etcd.heartbeat_interval),
        "election-timeout": str(cluster.etcd.election_timeout),
        "auto-compaction-retention": "1",
    }
    if cluster.etcd.v2_api:
        arguments["enable-v2"] = "true"
    return command_words({**arguments, **cluster.etcd.extra_args})


def _etcd_wal(cluster: Cluster) -> str:
    """Return the folder of a member's log: where it is, there is a member."""
    arguments = cluster.etcd.extra_args
    return arguments.get("wal-dir") or f"{arguments.get('data-dir') or '/var/lib/etcd'}/member/wal"


def _ships_own(cluster: Cluster) -> bool:
    return cluster.os.distribution is Distribution.CONTAINER_LINUX


def _etcdctl_api(cluster: Cluster) -> int:
    return 2 if _ships_own(cluster) else 3


def _fleet_list(cluster: Cluster) -> str:
    """Return the list of units for fleet: name, state, SHA-256 of the text."""
    rows = [(u.name, u.state.value, hashlib.sha256(u.text.encode()).hexdigest()) for u in cluster.fleet.scheduled]
    return "\n".join(["# name state sha256", *(" ".join(row) for row in rows)]) + "\n"


def _etcdctl_environment(cluster: Cluster, api: int) -> dict[str, str]:
    """Return etcdctl's variables; the API version decides about the names of those for TLS."""
    environment = {"ETCDCTL_API": str(api), "ETCDCTL_ENDPOINTS": f"{cluster.etcd.scheme}://127.0.0.1:2379"}
    if cluster.etcd.tls:
        ca, certificate, key = ("CACERT", "CERT", "KEY") if api == 3 else ("CA_FILE", "CERT_FILE", "KEY_FILE")  # noqa: PLR2004
        environment |= {
            f"ETCDCTL_{ca}": f"{PKI}/etcd/ca.crt",
            f"ETCDCTL_{certificate}": f"{PKI}/etcd/client.crt",
            f"ETCDCTL_{key}": f"{PKI}/etcd/client.key",
        }
    return environment


def _locksmith(cluster: Cluster) -> dict[str, str]:
    reboot = cluster.os.reboot
    keys: dict[str, str] = {}
    if reboot.strategy == "etcd-lock":
        keys["endpoint"] = f"{cluster.etcd.scheme}://127.0.0.1:2379"
        if cluster.etcd.tls:
            keys |= {
                "etcd_cafile": f"{PKI}/etcd/ca.crt",
                "etcd_certfile": f"{PKI}/etcd/client.crt",
                "etcd_keyfile": f"{PKI}/etcd/client.key",
            }
        if reboot.group:
            keys["group"] = reboot.group
    if reboot.window and reboot.strategy != "off":
        keys |= {"window_start": reboot.window.start, "window_length": reboot.window.length}
    return keys


def _locksmithctl_environment(cluster: Cluster) -> dict[str, str]:
    """Return locksmithctl's variables: any flag of it, in capitals (`flagsFromEnv` of its source)."""
    environment = {"LOCKSMITHCTL_ENDPOINT": f"{cluster.etcd.scheme}://127.0.0.1:2379"}
    if cluster.etcd.tls:
        environment |= {
            "LOCKSMITHCTL_ETCD_CAFILE": f"{PKI}/etcd/ca.crt",
            "LOCKSMITHCTL_ETCD_CERTFILE": f"{PKI}/etcd/client.crt",
            "LOCKSMITHCTL_ETCD_KEYFILE": f"{PKI}/etcd/client.key",
        }
    if cluster.os.reboot.group:
        environment["LOCKSMITHCTL_GROUP"] = cluster.os.reboot.group
    return environment


def _flannel_network(cluster: Cluster) -> str:
    flannel = cluster.network.flannel
    backend: dict[str, Any] = {"Type": flannel.backend}
    if flannel.mtu and flannel.backend == "vxlan":
        backend["MTU"] = flannel.mtu
    config = {"Network": str(cluster.network.pods), "SubnetLen": 24, "Backend": backend}
    return json.dumps(config, sort_keys=True) + "\n"


def _flannel_api(cluster: Cluster) -> int:
    reads_v3 = cluster.network.flannel.version.numbers >= FLANNEL_WITH_V3
    return 3 if reads_v3 and _etcdctl_api(cluster) == 3 else 2  # noqa: PLR2004


def _artifacts(cluster: Cluster) -> dict[str, str]:
    """Return where each program is brought to, by name."""
    return {artifact.name: artifact.target for artifact in cluster.artifacts_needed}


def _containerd(cluster: Cluster) -> str:
    """Return the path of the containerd that cluster.yaml brings; empty where the system's own is used."""
    return _artifacts(cluster).get("containerd", "")


def _runtime_restart(cluster: Cluster) -> str:
    """Return the files with which containerd's configuration, or containerd itself, changes."""
    stamp = ["/var/lib/coupler/artifacts/containerd.installed"] if _containerd(cluster) else []
    return " ".join(["/opt/bin/coupler-runtime", "/etc/systemd/system/coupler-runtime.service", *stamp])


def _proxy_environment(cluster: Cluster) -> list[str]:
    proxy = cluster.proxy
    if not (proxy.http or proxy.https):
        return []
    local = ["127.0.0.1", "localhost", f".{cluster.network.domain}", str(cluster.network.pods)]
    local += [str(cluster.network.services), *(str(node.address) for node in cluster.nodes), *proxy.no_proxy]
    values = {"HTTP_PROXY": proxy.http, "HTTPS_PROXY": proxy.https, "NO_PROXY": ",".join(local)}
    return [f"{spelling}={value}" for name, value in values.items() if value for spelling in (name, name.lower())]
