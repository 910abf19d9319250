"""`cluster check`: say what is wrong with cluster.yaml and the document before a node does."""

from __future__ import annotations

from coupler.commands.verb import ClusterFile, open_cluster, verb
from coupler.result import Result, Text, count, finding_data


@verb
def check(file: ClusterFile = None) -> Result:
    """Validate cluster.yaml and the cloud-config that it becomes."""
    from coupler.workflows.steps.check import check_document

    loaded = open_cluster(file)
    document, findings = check_document(loaded)
    cluster = loaded.cluster
    lines = [finding.text() for finding in findings]
    lines.append(
        f"{loaded.path} is valid: {count(len(cluster.nodes), 'node')}, "
        f"{count(len(cluster.etcd_members), 'etcd member')}, a document of {len(document.encode())} bytes"
        + (f"; {count(len(findings), 'warning')}" if findings else "")
    )
    lines.append("next: cluster init --dry-run")
    payload = {"findings": [finding_data(finding) for finding in findings], "nodes": len(cluster.nodes)}
    return Text("\n".join(lines), payload)
