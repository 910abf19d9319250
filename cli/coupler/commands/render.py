"""`cluster render`: print the one shared cloud-config."""

from __future__ import annotations

from typing import Annotated

import typer

from coupler.commands.verb import ClusterFile, open_cluster, verb
from coupler.result import Result, Text


@verb
def render(
    file: ClusterFile = None,
    boot_stub: Annotated[bool, typer.Option("--boot-stub", help="The user-data that makes a machine pull.")] = False,
) -> Result:
    """Print the shared #cloud-config that every node gets."""
    from coupler.render import render_boot_stub, render_document

    cluster = open_cluster(file).cluster
    document = render_boot_stub(cluster) if boot_stub else render_document(cluster)
    return Text(document, {"document": document})
