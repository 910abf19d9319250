"""`cluster certs`: when certificates expire, and new ones."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from coupler.commands.verb import ClusterFile, DryRun, Limit, open_cluster, verb
from coupler.errors import UsageError
from coupler.result import Result

app = typer.Typer(help="Certificates: when they expire, and new ones.", no_args_is_help=True)


@app.command("status")
@verb
def status(
    file: ClusterFile = None,
    live: Annotated[bool, typer.Option("--live", help="Ask the nodes, too, which they have.")] = False,
) -> Result:
    """Show every certificate: on which node, who signed it, until when it is valid."""
    from coupler.workflows.certs import certs_status

    return certs_status(open_cluster(file), live=live)


@app.command("renew")
@verb
def renew(
    file: ClusterFile = None,
    every: Annotated[bool, typer.Option("--all", help="All of them, not only what expires within 30 days.")] = False,
    name: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates the annotation
        typer.Option("--name", metavar="NAME", help="This one too, such as etcd/server; may be given several times."),
    ] = None,
    limit: Limit = None,
    dry_run: DryRun = False,
) -> Result:
    """Make certificates anew, send them to the nodes, and restart what uses them, one node after another."""
    from coupler import ui
    from coupler.workflows.certs import certs_renew

    if every and name:
        raise UsageError("--all has every name in it", next_step="leave out --name")
    return certs_renew(
        open_cluster(file), ui.progress(), names=name or (), every=every, limit=limit or (), dry_run=dry_run
    )
