"""`cluster lb`: what the load balancer has and does."""

from __future__ import annotations

from typing import Annotated

import typer

from coupler.commands.verb import ClusterFile, Limit, open_cluster, verb
from coupler.result import Result

Endpoint = Annotated[
    str, typer.Argument(metavar="ENDPOINT", help="An address, ADDRESS:PORT, or the key that its source has for it.")
]

app = typer.Typer(help="The load balancer: what is routed where, and why; drain endpoints.", no_args_is_help=True)


@app.command("status")
@verb
def status(file: ClusterFile = None, limit: Limit = None) -> Result:
    """Show how the registrator and the balancer of each node are."""
    from coupler.workflows.lb import lb_status

    return lb_status(open_cluster(file), limit or ())


@app.command("list")
@verb
def list_(file: ClusterFile = None, limit: Limit = None) -> Result:
    """List what is routed where, and where nodes disagree."""
    from coupler.workflows.lb import lb_list

    return lb_list(open_cluster(file), limit or ())


@app.command("explain")
@verb
def explain(
    host: Annotated[str, typer.Argument(metavar="HOST", help="The host that a client asks for.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="The path that it asks for.")] = "/",
    file: ClusterFile = None,
    limit: Limit = None,
) -> Result:
    """Say which route takes a request, why, and where it goes."""
    from coupler.workflows.lb import lb_explain

    return lb_explain(open_cluster(file), host, path, limit or ())


@app.command("drain")
@verb
def drain(endpoint: Endpoint, file: ClusterFile = None, limit: Limit = None) -> Result:
    """Give an endpoint no new requests; those that it has may finish."""
    from coupler.workflows.lb import lb_drain

    return lb_drain(open_cluster(file), endpoint, limit or ())


@app.command("undrain")
@verb
def undrain(endpoint: Endpoint, file: ClusterFile = None, limit: Limit = None) -> Result:
    """Let a drained endpoint serve again."""
    from coupler.workflows.lb import lb_drain

    return lb_drain(open_cluster(file), endpoint, limit or (), undo=True)
