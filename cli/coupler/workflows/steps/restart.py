"""Restart what uses a certificate that the step bootstrap has changed."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from coupler.result import HostOutcome, State, StepOutcome, count
from coupler.workflows.run import Run, checked, hosts_step, target
from coupler.workflows.script import Answer, script
from coupler.workflows.steps.health import await_health
from coupler.workflows.steps.pull import well_components
from coupler.workflows.turns import Turns

if TYPE_CHECKING:
    from coupler.model import Node

_TIMEOUT = 600  # seconds; a unit of type notify may take 90 to start, and they start one after another
_IN_TURNS = {"etcd", "api"}
"""Components of which not all may be away at a time."""


class Restart:
    """A program reads its certificate when it starts. Which units are to be restarted the node has noted.

    Members of a healthy etcd and API servers take turns: the next one follows when all that was well of the one before
    is so again. Where nothing is well, as after certificates have expired, nobody has to wait.
    """

    title = "restart"

    def run(self, run: Run) -> StepOutcome:
        """Ask every node which units it has noted, and restart them."""
        if run.plans_changes:
            return StepOutcome(self.title, State.PLANNED, "would restart what uses a changed certificate")
        turns = Turns("restarted")

        def ask(node: Node) -> HostOutcome:
            units = _restart(run, node, doing=False)
            names = ", ".join(unit.removesuffix(".service") for unit in units)
            if not units:
                return HostOutcome(node.name, State.UNCHANGED)
            if run.dry_run:
                return HostOutcome(node.name, State.PLANNED, f"would restart {names}")
            well = well_components(run, node)
            takes_turns = _IN_TURNS & well
            with turns.turn_of(node) if takes_turns else nullcontext():
                _restart(run, node, doing=True)
                if takes_turns:
                    await_health(run, node, only=well)
            return HostOutcome(node.name, State.DONE, f"restarted {names}")

        outcomes = run.on_every_node(ask)
        done = sum(outcome.state is State.DONE for outcome in outcomes)
        return hosts_step(self.title, outcomes, f"certificates changed on {count(done, 'node')}" if done else "")


def _restart(run: Run, node: Node, *, doing: bool) -> list[str]:
    """Return the units that are outdated, and restart those of them that run, if `doing`."""
    text = script("restart", {"DOING": str(doing).lower()})
    completed = run.connections.run(target(node), text, timeout=_TIMEOUT)
    checked(node, completed.exit_status, completed.stderr)
    return Answer(completed.stdout).all("unit")
