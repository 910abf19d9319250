"""`cluster publish`: put the document where the nodes pull it from."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from coupler.commands.verb import ClusterFile, DryRun, open_cluster, verb
from coupler.errors import UsageError
from coupler.result import Result


@verb
def publish(
    file: ClusterFile = None,
    to: Annotated[
        Optional[list[str]],  # noqa: UP045 - Typer evaluates the annotation
        typer.Option("--to", metavar="NODE|N%", help="These nodes try it first; may be given several times."),
    ] = None,
    revert: Annotated[str, typer.Option("--revert", metavar="COMMIT", help="What an earlier commit holds.")] = "",
    dry_run: DryRun = False,
) -> Result:
    """Commit the document, signed, to the repository that the nodes pull from."""
    from coupler import ui
    from coupler.workflows.publish import publish as run_publish

    if to and revert:
        raise UsageError("--to and --revert do not go together", why="what is taken back is taken back everywhere")
    return run_publish(open_cluster(file), ui.progress(), to=to or (), revert=revert, dry_run=dry_run)
