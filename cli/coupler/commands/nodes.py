"""`cluster nodes`: the table of nodes, ranges expanded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.commands.verb import ClusterFile, open_cluster, verb
from coupler.result import Json, Result, Text, table

if TYPE_CHECKING:
    from coupler.model import LoadedCluster


@verb
def nodes(file: ClusterFile = None) -> Result:
    """List the nodes of cluster.yaml with their addresses, roles and labels."""
    loaded = open_cluster(file)
    cluster = loaded.cluster
    rows = [
        {
            "name": node.name,
            "address": str(node.address),
            "mac": node.mac,
            "roles": [role.value for role in node.roles],
            "etcd": node in cluster.etcd_members,
            "labels": dict(node.labels),
        }
        for node in cluster.nodes
    ]
    body = table(
        ("NAME", "ADDRESS", "ROLES", "ETCD", "LABELS"),
        [
            (
                node.name,
                str(node.address),
                ",".join(node.roles),
                "member" if node in cluster.etcd_members else "-",
                ",".join(f"{key}={value}" for key, value in node.labels.items()) or "-",
            )
            for node in cluster.nodes
        ],
    )
    return Text(body, {"cluster": cluster.name, **_surroundings(loaded), "nodes": rows})


def _surroundings(loaded: LoadedCluster) -> Json:
    """Return what whoever makes the machines needs beside the table: their system, who may log in, what is served."""
    cluster = loaded.cluster
    mirror = cluster.mirror
    return {
        "file": str(loaded.path.absolute()),
        "os": {
            "distribution": cluster.os.distribution.value,
            "channel": cluster.os.channel.value,
            "version": cluster.os.version,
            "arch": cluster.os.arch.value,
        },
        "ssh": {"authorized_keys": list(cluster.ssh.authorized_keys)},
        "git": {"repository": cluster.git.repository, "push": cluster.git.push},
        "mirror": mirror and {"url": mirror.url, "folder": str(mirror.folder.path) if mirror.folder else None},
    }
