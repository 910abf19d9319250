"""`cluster init`: the main job."""

from __future__ import annotations

from typing import Annotated

import typer

from coupler.commands.verb import ClusterFile, DryRun, Limit, MirrorFolder, Nodes, open_cluster, verb
from coupler.errors import UsageError
from coupler.result import Result


@verb
def init(
    file: ClusterFile = None,
    lab: Annotated[bool, typer.Option("--lab", help="On machines of the local lab, booted if they are not.")] = False,
    dry_run: DryRun = False,
    limit: Limit = None,
    nodes: Nodes = None,
    mirror: MirrorFolder = None,
) -> Result:
    """Make the cluster: check, publish, bootstrap over SSH, and wait until it is healthy."""
    from coupler import ui
    from coupler.workflows.init import init as run_init

    progress = ui.progress()
    if (nodes or mirror) and not lab:
        raise UsageError("--nodes and --mirror are about a new lab", next_step="cluster init --lab --nodes 3")
    if lab:
        from coupler.workflows.lab import lab_up

        file = lab_up(file, nodes, mirror, progress.note).file
    return run_init(open_cluster(file), progress, limit=limit or (), dry_run=dry_run)
