"""`cluster nodes`: the table of nodes, ranges expanded."""

from __future__ import annotations

from coupler.commands.verb import ClusterFile, open_cluster, verb
from coupler.result import Result, Text, table


@verb
def nodes(file: ClusterFile = None) -> Result:
    """List the nodes of cluster.yaml with their addresses, roles and labels."""
    cluster = open_cluster(file).cluster
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
    system = {
        "distribution": cluster.os.distribution.value,
        "channel": cluster.os.channel.value,
        "version": cluster.os.version,
    }
    return Text(body, {"cluster": cluster.name, "os": system, "nodes": rows})
