"""`cluster check`: say what is wrong with cluster.yaml, or with any cloud-config, before a node does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from coupler.cloudinit.grammar import Lineage
from coupler.commands.verb import ClusterFile, open_cluster, verb
from coupler.errors import Severity, UsageError
from coupler.result import Result, Text, count, finding_data

UserDataFile = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates the annotation
    typer.Argument(metavar="FILE", help="A cloud-config, - for standard input  [default: that of cluster.yaml]."),
]
As = Annotated[
    Optional[Lineage],  # noqa: UP045 - Typer evaluates the annotation
    typer.Option("--as", help="Whose coreos-cloudinit reads FILE.  [default: flatcar]"),
]
Exact = Annotated[bool, typer.Option("--exact", help="Print what that program's -validate prints, and no more.")]
Fix = Annotated[bool, typer.Option("--fix", help="Mend in FILE what a program can, and print the difference.")]
Explain = Annotated[
    Optional[str],  # noqa: UP045 - Typer evaluates the annotation
    typer.Option("--explain", metavar="CODE", help="Say what a code means, and how to mend it."),
]


@verb
def check(
    user_data: UserDataFile = None,
    file: ClusterFile = None,
    lineage: As = None,
    exact: Exact = False,
    fix: Fix = False,
    explain: Explain = None,
) -> Result:
    """Validate cluster.yaml and the cloud-config that it becomes, or any cloud-config."""
    if explain is not None:
        if user_data or file or lineage or exact or fix:
            raise UsageError("--explain stands alone", next_step=f"cluster check --explain {explain}")
        from coupler.workflows.explanation import explain as explanation_of

        return explanation_of(explain)
    if exact and fix:
        raise UsageError("--exact changes nothing, and --fix does", next_step="give one of them")
    if user_data is None:
        if lineage or exact or fix:
            raise UsageError("--as, --exact and --fix are for a FILE", next_step="cluster check --as flatcar FILE")
        return _cluster(file)

    if file is not None:
        raise UsageError("--file names a cluster.yaml, and FILE stands for it", next_step="give one of them")

    from coupler.workflows import user_data as workflow

    subject = workflow.read(user_data, lineage or Lineage.FLATCAR)
    if not (lineage or exact or fix) and subject.is_cluster_file():
        return _cluster(user_data)
    return workflow.exact(subject) if exact else workflow.mend(subject) if fix else workflow.examine(subject)


def _cluster(file: Path | None) -> Result:
    from coupler.workflows.steps.check import check_document

    loaded = open_cluster(file)
    document, findings = check_document(loaded)
    cluster = loaded.cluster
    warnings = sum(finding.severity is Severity.WARNING for finding in findings)
    lines = [finding.text() for finding in findings]
    lines.append(
        f"{loaded.path} is valid: {count(len(cluster.nodes), 'node')}, "
        f"{count(len(cluster.etcd_members), 'etcd member')}, a document of {len(document.encode())} bytes"
        + (f"; {count(warnings, 'warning')}" if warnings else "")
    )
    lines.append("next: cluster init --dry-run")
    payload = {"findings": [finding_data(finding) for finding in findings], "nodes": len(cluster.nodes)}
    return Text("\n".join(lines), payload)
