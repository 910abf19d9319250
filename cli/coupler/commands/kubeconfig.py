"""`cluster kubeconfig`: the administrator's way in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from coupler.commands.verb import ClusterFile, open_cluster, verb
from coupler.errors import UsageError
from coupler.result import Result


@verb
def kubeconfig(
    file: ClusterFile = None,
    merge: Annotated[bool, typer.Option("--merge", help="Into ~/.kube/config, or the file in KUBECONFIG.")] = False,
    output_file: Annotated[
        Optional[Path],  # noqa: UP045 - Typer evaluates the annotation
        typer.Option("--output-file", metavar="FILE", help="Into a file of its own, for you alone to read."),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045 - Typer evaluates the annotation
        typer.Option("--context", metavar="NAME", help="What to call it (default: the cluster's name)."),
    ] = None,
) -> Result:
    """Print the administrator's kubeconfig, with its key, or write it for kubectl."""
    from coupler.workflows.kubeconfig import kubeconfig as run_kubeconfig

    if merge and output_file:
        raise UsageError("--merge and --output-file are two ways", next_step="leave out one of them")
    return run_kubeconfig(open_cluster(file), output_file=output_file, merge=merge, context=name)
