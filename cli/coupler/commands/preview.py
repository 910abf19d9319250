"""`cluster preview`: see a node before it exists."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from coupler.commands.verb import ClusterFile, open_cluster, verb
from coupler.result import Result


@verb
def preview(
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node of cluster.yaml.")],
    path: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates the annotation
        typer.Argument(metavar="PATH", help="Print this file or unit of the node instead.", show_default=False),
    ] = None,
    file: ClusterFile = None,
) -> Result:
    """Show what the shared document becomes on a node: files, units, variables, and where each comes from."""
    from coupler.workflows.preview import preview as run_preview

    return run_preview(open_cluster(file), node, path)
