"""`cluster init`: from cluster.yaml to a healthy cluster. The list of steps is the whole story."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.adapters.ssh import Connections
from coupler.result import HostOutcome, Json, Progress, State, StepOutcome, count
from coupler.workflows.health import remarks
from coupler.workflows.report import strangers, waiting
from coupler.workflows.run import Run, Step, access, execute, exit_code, limited
from coupler.workflows.steps.balance import Balance, balancing
from coupler.workflows.steps.bootstrap import Bootstrap
from coupler.workflows.steps.certificates import Certificates
from coupler.workflows.steps.check import Check
from coupler.workflows.steps.health import Health
from coupler.workflows.steps.members import Members
from coupler.workflows.steps.preflight import Preflight
from coupler.workflows.steps.publish import Publish
from coupler.workflows.steps.pull import Pull
from coupler.workflows.steps.restart import Restart
from coupler.workflows.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coupler.errors import ExitCode
    from coupler.model import LoadedCluster
    from coupler.workflows.report import Report


@dataclass(frozen=True)
class InitResult:
    """What became of `cluster init`: its steps, the nodes that failed, and what the healthy ones reported.

    `strangers` are lines about members of etcd that should be none.
    """

    cluster: str
    commit: str
    steps: tuple[StepOutcome, ...]
    lost: tuple[HostOutcome, ...]
    reports: tuple[Report, ...]
    nodes: int
    dry_run: bool = False
    strangers: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """How the process ends."""
        return exit_code(self.lost, self.nodes)

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {
            "cluster": self.cluster,
            "dry_run": self.dry_run,
            "commit": self.commit,
            "changed": self.changed,
            "steps": [step.data() for step in self.steps],
            "failed": [host.data() for host in self.lost],
            "waiting": [group.data() for group in waiting(self.reports)],
            "remarks": [*remarks(self.reports), *self.strangers],
        }

    @property
    def changed(self) -> bool:
        """Whether anything was changed anywhere."""
        work = [step for step in self.steps if step.title != Check.title]
        states = {step.state for step in work} | {host.state for step in work for host in step.hosts}
        return State.DONE in states

    def text(self) -> str:
        """Return the summary for a person."""
        lines = [self._headline()]
        lines += [f"  {line}" for group in waiting(self.reports) for line in group.lines()]
        lines += [f"  {line}" for line in (*remarks(self.reports), *self.strangers)]
        for host in self.lost:
            lines.append(f"  {host.state}: {host.host}: {host.text}")
            if host.next_step:
                lines.append(f"    next: {host.next_step}")
        lines.append(self._next())
        return "\n".join(lines)

    def _headline(self) -> str:
        done = self.nodes - len(self.lost)
        if self.dry_run:
            return f"cluster {self.cluster}: nothing was changed; this is what would be done:\n" + "\n".join(
                f"  {number}. {step.title}: {step.state}" + (f": {step.text}" if step.text else "")
                for number, step in enumerate(self.steps, 1)
            )
        verdict = (
            "unchanged" if not self.changed and not self.lost else f"{done} of {count(self.nodes, 'node')} healthy"
        )
        members = [report for report in self.reports if report.serves_etcd]
        etcd = f", etcd has {count(len(members), 'healthy member')}" if members else ""
        return (
            f"cluster {self.cluster}: {verdict} at commit {self.commit[:12]}{etcd}"
            if self.commit
            else (f"cluster {self.cluster}: {verdict}")
        )

    def _next(self) -> str:
        if self.lost:
            return "next: mend what is named above, then run `cluster init` again; the other nodes stay as they are"
        if self.dry_run:
            return "next: cluster init"
        return "next: cluster status"


def init(loaded: LoadedCluster, progress: Progress, *, limit: Sequence[str] = (), dry_run: bool = False) -> InitResult:
    """Make the cluster that cluster.yaml describes, or bring it to what it describes now.

    Raises:
        CouplerError: something went wrong that is no single host's: the document, the repository, Ansible itself.
    """
    nodes = limited(loaded.cluster, limit)
    workspace = Workspace.beside(loaded.path)
    health = Health()
    steps: list[Step] = [
        Check(),
        Preflight(),
        Certificates(),
        Publish(),
        Bootstrap(),
        Pull(),
        Members(),
        Restart(),
        health,
    ]
    if loaded.cluster.load_balancer and balancing(nodes):
        steps.append(Balance())
    with workspace.scratch() as scratch, Connections(access(loaded.cluster, workspace)) as connections:
        run = Run(loaded, nodes, workspace, scratch, connections, progress, dry_run=dry_run)
        outcomes = execute(steps, run)
    return InitResult(
        loaded.cluster.name,
        run.commit,
        outcomes,
        tuple(run.lost[node.name] for node in nodes if node.name in run.lost),
        tuple(health.reports[node.name] for node in nodes if node.name in health.reports),
        len(nodes),
        dry_run,
        tuple(strangers(loaded.cluster, health.reports.values())),
    )
