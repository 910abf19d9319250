"""Wait until the cluster is what it should be: every node at the published commit, and every component healthy."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from coupler.errors import HostFailedError
from coupler.model.health import components_of
from coupler.result import HostOutcome, State, StepOutcome
from coupler.workflows import health, report
from coupler.workflows.clock import MEND, problem_with
from coupler.workflows.run import Run, hosts_step

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from coupler.model import Node
    from coupler.model.health import Component
    from coupler.workflows.report import Report

DEADLINE = 120
"""Seconds for what is no component's: the commit, and units that have failed."""
LONGEST = 900
"""Seconds for everything, though each component were within its own patience."""
_PAUSE = 0.3  # seconds between two questions to a node


class Health:
    """A member of etcd is healthy only when it sees a leader, so healthy members mean a quorum."""

    title = "health"

    def __init__(self) -> None:
        self.reports: dict[str, Report] = {}

    def run(self, run: Run) -> StepOutcome:
        """Ask every node until it is healthy, for as long as its components may take."""
        if run.plans_changes:
            return StepOutcome(self.title, State.PLANNED, "would wait until every component is healthy")
        lock = threading.Lock()

        def ask(node: Node) -> HostOutcome:
            answer = await_health(run, node, patient=not run.dry_run)
            with lock:
                self.reports[node.name] = answer
            return HostOutcome(node.name, State.OK, _well(answer))

        outcomes = run.on_every_node(ask)
        members = [answer for answer in self.reports.values() if answer.serves_etcd]
        quorum = f"etcd: {len(members)} of {len(run.cluster.etcd_members)} members healthy"
        return hosts_step(self.title, outcomes, quorum)


def await_health(run: Run, node: Node, *, patient: bool = True, only: Container[str] | None = None) -> Report:
    """Ask a node until it lacks nothing, and return its last report.

    Without `patient` it is asked once. With `only` these components alone count.

    Raises:
        HostFailedError: something vital is bad for longer than it may be, or something else is not as it should be.
        UnreachableError: it does not answer.
    """
    every = components_of(run.cluster, node)
    parts = tuple(part for part in every if only is None or part.name in only)
    begin, patience = time.monotonic(), health.Patience(parts)
    said: tuple[str | None, ...] = ()
    while True:
        answer = report.ask(run.connections, run.cluster, node)
        now = time.monotonic()
        overdue = {probe.component for probe in patience.overdue(answer, now)}
        other, ills = lacks(answer, run.commit, every), health.bad(answer, vital=parts)
        lack = other or health.sentence(ills)
        # What is not vital may still come: it is waited for, and then left to be told.
        late = (
            []
            if only is not None
            else [probe.component for probe in health.bad(answer) if probe.component not in overdue]
        )
        if not lack and (not late or not patient):
            return answer
        ended = not patient or now - begin > LONGEST
        if lack and (ended or (other and now - begin > DEADLINE) or any(ill.component in overdue for ill in ills)):
            raise _failure(node, answer, lack, parts)
        if ended:
            return answer
        # Reasons change with every look: what is news is which components they are of.
        news = (other, *(probe.component for probe in health.bad(answer)))
        if news != said:
            run.progress.host(HostOutcome(node.name, State.RUNNING, lack or health.sentence(health.bad(answer))))
        said = news
        time.sleep(_PAUSE)


def lacks(answer: Report, commit: str, parts: Iterable[Component] = ()) -> str | None:
    """Return what a node, which runs these components, still lacks beside their health, or None.

    Without a commit any will do.
    """
    if commit and answer.applied != commit:
        return f"it is at commit {answer.applied[:12] or 'none'}, not {commit[:12]}"
    if "etcd" in answer.waiting:
        return f"etcd waits for its program: {answer.waiting['etcd']}"
    if not answer.health and answer.etcd and not answer.etcd.healthy:
        return "its etcd member has no quorum yet"
    failed = failed_units(answer, parts)
    return f"{', '.join(failed)} failed" if failed else None


def failed_units(answer: Report, parts: Iterable[Component]) -> list[str]:
    """Return the units that failed, but for those of components, of which the probe says more, and the load balancer's.

    The load balancer is not the cluster's health: the step `balance` comes later, and mends it.
    """
    probed = {part.unit for part in parts if part.name in answer.health}
    return [unit.name for unit in answer.units if unit.failed and unit.name not in report.BALANCING | probed]


def _failure(node: Node, answer: Report, lack: str, parts: tuple[Component, ...]) -> HostFailedError:
    clock = problem_with(answer.skew)
    ills = health.bad(answer, vital=parts)
    unit = next((part.unit for part in parts if ills and part.name == ills[0].component), "coupler-pull.service")
    journal = (
        f"see its journal: ssh {node.ssh_user}@{node.ssh_address} journalctl -b -u {unit.removesuffix('.service')}"
    )
    return HostFailedError(f"{lack}; {clock}" if clock else lack, next_step=MEND if clock else journal, host=node.name)


def _well(answer: Report) -> str:
    if not answer.etcd:
        return "healthy"
    return "etcd leader" if answer.etcd.is_leader else "etcd member"
