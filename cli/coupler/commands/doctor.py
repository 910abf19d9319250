"""`cluster doctor`: what this machine lacks."""

from __future__ import annotations

from coupler.commands.verb import verb
from coupler.result import Result


@verb
def doctor() -> Result:
    """Say what this machine lacks for `cluster init` and for the lab, each with the command that mends it."""
    from coupler.workflows.doctor import doctor as run_doctor

    return run_doctor()
