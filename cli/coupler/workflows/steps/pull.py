"""Let every node pull the published commit and apply it, now instead of at its next look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.errors import HostFailedError
from coupler.result import HostOutcome, State, StepOutcome, json_object
from coupler.workflows.run import Run, checked, hosts_step, target

if TYPE_CHECKING:
    from coupler.model import Node

_TIMEOUT = 900  # seconds; as long as coupler-pull.service may take

_APPLIED = """
applied() { sed -n 's/.*"applied": "\\([^"]*\\)".*/\\1/p' /run/coupler/status.json 2>/dev/null; }
echo "$(applied)"
"""
_ANSWER = "cat /run/coupler/status.json 2>/dev/null || true\n"
_REPORT = _APPLIED + _ANSWER
# A pull that is under way may have looked before the commit was there: then a second one follows.
_PULL = f"""{_APPLIED}
for attempt in 1 2; do
    systemctl start coupler-pull.service
    [ "$(applied)" != "$COMMIT" ] || break
done
{_ANSWER}"""


class Pull:
    """The node fetches, verifies, validates and applies by itself; we only ask it to do so at once."""

    title = "pull"

    def run(self, run: Run) -> StepOutcome:
        """Start coupler-pull on every node and wait for its verdict."""
        if run.plans_changes:
            planned = tuple(HostOutcome(node.name, State.PLANNED, "would pull") for node in run.alive)
            return hosts_step(self.title, planned, "would ask every node to pull")
        script = _REPORT if run.dry_run else _PULL

        def ask(node: Node) -> HostOutcome:
            completed = run.connections.run(target(node), f"COMMIT={run.commit}\n{script}", timeout=_TIMEOUT)
            checked(node, completed.exit_status, completed.stderr)
            before, _, status = completed.stdout.partition("\n")
            if run.dry_run and before != run.commit:
                return HostOutcome(node.name, State.PLANNED, f"would apply {run.commit[:12]}")
            return _outcome(node, before, status, run.commit)

        return hosts_step(self.title, run.on_every_node(ask), f"commit {run.commit[:12]}")


def _outcome(node: Node, before: str, status: str, commit: str) -> HostOutcome:
    report = json_object(status)
    if report.get("applied") != commit:
        raise HostFailedError(
            f"it did not apply commit {commit[:12]}",
            why=report.get("reason") or "coupler-pull left no report",
            next_step=f"see its journal: ssh {node.ssh_user}@{node.ssh_address} journalctl -u coupler-pull",
            host=node.name,
        )
    if before == commit:
        return HostOutcome(node.name, State.UNCHANGED, f"is at {commit[:12]}")
    return HostOutcome(node.name, State.DONE, f"applied {commit[:12]}")
