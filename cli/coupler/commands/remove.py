"""`cluster remove`: take a node out."""

from __future__ import annotations

from typing import Annotated

import typer

from coupler.commands.verb import ClusterFile, Yes, confirmation, open_cluster, verb
from coupler.result import Result


@verb
def remove(
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node whose row you have deleted from cluster.yaml.")],
    file: ClusterFile = None,
    yes: Yes = False,
) -> Result:
    """Take a node that cluster.yaml no longer has out of Kubernetes and etcd."""
    from coupler import ui
    from coupler.workflows import remove as workflow

    return workflow.remove(open_cluster(file), node, confirmation(yes=yes), ui.progress())
