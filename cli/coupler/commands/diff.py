"""`cluster diff`: what would change, or what has drifted."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from coupler.commands.verb import ClusterFile, open_cluster, verb
from coupler.errors import UsageError
from coupler.result import Result


@verb
def diff(
    nodes: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates the annotation
        typer.Argument(metavar="NODE...", help="Compare these live nodes with the published document."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Compare every node.")] = False,
    file: ClusterFile = None,
) -> Result:
    """Compare cluster.yaml with the published document, or that with live nodes. Exit code 0: same, 1: differs."""
    from coupler.workflows.diff import diff_document, diff_nodes

    if nodes and every:
        raise UsageError("--all is every node, and you named some", next_step="cluster diff --all")
    loaded = open_cluster(file)
    return diff_nodes(loaded, nodes or ()) if nodes or every else diff_document(loaded)
