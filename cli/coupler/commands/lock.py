"""`cluster lock`: locksmith's lock, by which nodes take turns to reboot."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from coupler.commands.verb import ClusterFile, Yes, confirmation, open_cluster, verb
from coupler.result import Result

Group = Annotated[
    Optional[str],  # noqa: UP045 - Typer evaluates the annotation
    typer.Option("--group", metavar="GROUP", help="The lock of this group (default: that of os.reboot.group)."),
]

app = typer.Typer(help="The lock by which nodes take turns to reboot.", no_args_is_help=True)


@app.command("status")
@verb
def status(file: ClusterFile = None) -> Result:
    """Show who holds the lock, and which holders are stale."""
    from coupler.workflows.lock import lock_status

    return lock_status(open_cluster(file))


@app.command("set-max")
@verb
def set_max(
    number: Annotated[int, typer.Argument(metavar="N", min=0, max=1000, help="How many; 0 stops all reboots.")],
    file: ClusterFile = None,
    group: Group = None,
) -> Result:
    """Let so many nodes reboot at a time."""
    from coupler.workflows.lock import set_most

    return set_most(open_cluster(file), number, group)


@app.command("unlock")
@verb
def unlock(
    who: Annotated[str, typer.Argument(metavar="NODE", help="A node, or the machine id of one that is gone.")],
    file: ClusterFile = None,
    group: Group = None,
    yes: Yes = False,
) -> Result:
    """Take the lock away from a holder that will not give it back."""
    from coupler.workflows import lock

    return lock.unlock(open_cluster(file), who, group, confirmation(yes=yes))
