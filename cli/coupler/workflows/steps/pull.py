"""Let every node pull the published commit and apply it, now instead of at its next look."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.errors import HostFailedError
from coupler.result import HostOutcome, State, StepOutcome, json_object
from coupler.workflows import health, report
from coupler.workflows.run import Run, checked, hosts_step, target
from coupler.workflows.script import Answer
from coupler.workflows.steps.health import await_health
from coupler.workflows.turns import Turns

if TYPE_CHECKING:
    from coupler.model import Node

_TIMEOUT = 900  # seconds; as long as coupler-pull.service may take

_STATUS = """
printf 'status=%s\\n' "$(cat /run/coupler/status.json 2>/dev/null)"
[ ! -x /opt/bin/coupler-apply ] || /opt/bin/coupler-apply changed | sed 's/^/changed=/'
"""
# A commit that failed here before is tried once more: who asks may have mended what was in its way.
# A pull that is under way may have looked before the commit was there: then a second one follows.
_PULL = f"""
rm -f /var/lib/coupler/rejected
for attempt in 1 2; do
    if [ -z "$BRANCH" ]; then
        systemctl start coupler-pull.service
    else
        systemd-run --quiet --collect --wait --unit=coupler-pull-once --property=EnvironmentFile=-/etc/environment \\
            --property=EnvironmentFile=-/etc/coupler/proxy.env /opt/bin/coupler-pull "$BRANCH"
    fi
    ! grep -qs "\\"applied\\": \\"$COMMIT\\"" /run/coupler/status.json || break
done
{_STATUS}"""
# As after a boot: coupler-pull applies the last good document before it looks for another.
_AGAIN = f"rm -f /run/coupler/applied\n{_PULL}"


class Pull:
    """The node fetches, verifies, validates and applies by itself; we only ask it to do so at once.

    A node that is at the commit and has files that somebody changed writes them again. All nodes are asked together,
    but members of a healthy etcd take turns: what a commit changes may restart them, and the next one follows when what
    was well of the one before is so again. If it is not, the rest keep what they have.
    """

    title = "pull"

    def __init__(self, branch: str = "") -> None:
        """`branch` is followed this once; without it, the one that the nodes follow always."""
        self._branch = branch

    def run(self, run: Run) -> StepOutcome:
        """Start coupler-pull on every node and wait for its verdict."""
        if run.plans_changes:
            planned = tuple(HostOutcome(node.name, State.PLANNED, "would pull") for node in run.alive)
            return hosts_step(self.title, planned, "would ask every node to pull")
        turns = Turns("asked to pull")
        commit = run.commit[:12]

        def ask(node: Node) -> HostOutcome:
            before = _ask(run, node, _STATUS)
            drifted = ", ".join(before.changed) if before.applied == run.commit else ""
            current = before.applied == run.commit and not drifted
            unchanged = HostOutcome(node.name, State.UNCHANGED, f"is at {commit}")
            if run.dry_run:
                return unchanged if current else HostOutcome(node.name, State.PLANNED, _planned(commit, drifted))
            well = well_components(run, node) if before.applied and not current else frozenset()
            takes_turns = "etcd" in well
            with turns.turn_of(node) if takes_turns else nullcontext():
                self._pull(run, node, _AGAIN if drifted else _PULL)
                if takes_turns:
                    await_health(run, node, only=well)
            done = HostOutcome(node.name, State.DONE, f"put right: {drifted}" if drifted else f"applied {commit}")
            return unchanged if current else done

        return hosts_step(self.title, run.on_every_node(ask), f"commit {commit}")

    def _pull(self, run: Run, node: Node, how: str) -> None:
        """Raise HostFailedError where the node is not at the commit afterwards."""
        after = _ask(run, node, f"COMMIT={run.commit} BRANCH={self._branch}\n{how}")
        if after.applied != run.commit:
            raise HostFailedError(
                f"it did not apply commit {run.commit[:12]}",
                why=after.reason or "coupler-pull left no report",
                next_step=f"see its journal: ssh {node.ssh_user}@{node.ssh_address} journalctl -u coupler-pull",
                host=node.name,
            )


@dataclass(frozen=True)
class _State:
    """What a node says: the commit that is applied, why not another, and which files somebody has changed since."""

    applied: str
    reason: str
    changed: tuple[str, ...]


def _ask(run: Run, node: Node, script: str) -> _State:
    completed = run.connections.run(target(node), script, timeout=_TIMEOUT)
    checked(node, completed.exit_status, completed.stderr)
    answer = Answer(completed.stdout)
    status = json_object(answer.one("status"))
    return _State(str(status.get("applied") or ""), str(status.get("reason") or ""), tuple(answer.all("changed")))


def _planned(commit: str, drifted: str) -> str:
    return f"would put right: {drifted}" if drifted else f"would apply {commit}"


def well_components(run: Run, node: Node) -> frozenset[str]:
    """Return which components of a node are well: so should they be after the pull."""
    answer = report.ask(run.connections, run.cluster, node)
    member = {"etcd"} if answer.serves_etcd else set()
    return frozenset({name for name, probe in answer.health.items() if probe.state is health.State.OK} | member)
