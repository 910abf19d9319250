"""Wait until the cluster is what it should be: etcd has a quorum, and every node reports the published commit."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from coupler.errors import HostFailedError
from coupler.result import HostOutcome, State, StepOutcome
from coupler.workflows import report
from coupler.workflows.run import Run, hosts_step

if TYPE_CHECKING:
    from coupler.model import Node
    from coupler.workflows.report import Report

DEADLINE = 120  # seconds
_PAUSE = 0.3  # seconds between two questions to a node


class Health:
    """A member of etcd is healthy only when it sees a leader, so healthy members mean a quorum."""

    title = "health"

    def __init__(self) -> None:
        self.reports: dict[str, Report] = {}

    def run(self, run: Run) -> StepOutcome:
        """Ask every node until it is healthy, for `DEADLINE` seconds at most."""
        if run.plans_changes:
            return StepOutcome(self.title, State.PLANNED, "would wait for a quorum of etcd")
        lock = threading.Lock()

        def ask(node: Node) -> HostOutcome:
            answer = await_health(run, node, 0 if run.dry_run else DEADLINE)
            with lock:
                self.reports[node.name] = answer
            return HostOutcome(node.name, State.OK, _well(answer))

        outcomes = run.on_every_node(ask)
        members = [r for r in self.reports.values() if r.etcd and r.etcd.healthy]
        quorum = f"etcd: {len(members)} of {len(run.cluster.etcd_members)} members healthy"
        return hosts_step(self.title, outcomes, quorum)


def await_health(run: Run, node: Node, seconds: float = DEADLINE) -> Report:
    """Ask a node until it lacks nothing, and return its last report.

    Raises:
        HostFailedError: it still lacks something after `seconds`.
        UnreachableError: it does not answer.
    """
    deadline = time.monotonic() + seconds
    while True:
        answer = report.ask(run.connections, run.cluster, node)
        lack = lacks(answer, run.commit)
        if not lack:
            return answer
        if time.monotonic() > deadline:
            raise HostFailedError(
                lack,
                next_step=f"see its journal: ssh {node.ssh_user}@{node.ssh_address} journalctl -b -u etcd",
                host=node.name,
            )
        run.progress.host(HostOutcome(node.name, State.RUNNING, lack))
        time.sleep(_PAUSE)


def lacks(answer: Report, commit: str) -> str | None:
    """Return what a node still lacks, or None where it is healthy."""
    if answer.applied != commit:
        return f"it is at commit {answer.applied[:12] or 'none'}, not {commit[:12]}"
    if "etcd" in answer.waiting:
        return f"etcd waits for its program: {answer.waiting['etcd']}"
    if answer.etcd and not answer.etcd.healthy:
        return "its etcd member has no quorum yet"
    # The load balancer is not the cluster's health: the step `balance` comes later, and mends it.
    failed = [unit.name for unit in answer.units if unit.failed and unit.name not in report.BALANCING]
    return f"{', '.join(failed)} failed" if failed else None


def _well(answer: Report) -> str:
    if not answer.etcd:
        return "healthy"
    return "etcd leader" if answer.etcd.is_leader else "etcd member"
