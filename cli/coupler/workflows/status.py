"""`cluster status`: ask every node, and the repository, and show them side by side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coupler.adapters.ssh import Connections, Target
from coupler.errors import CouplerError, ExitCode
from coupler.result import HostOutcome, Json, table
from coupler.workflows import report
from coupler.workflows.clock import problem_with
from coupler.workflows.publication import repository_of
from coupler.workflows.run import access, exit_code, limited, outcome_of, target
from coupler.workflows.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coupler.model import LoadedCluster, Node
    from coupler.workflows.report import Report


@dataclass(frozen=True)
class ClusterStatus:
    """What the repository and the nodes say. A node is in `reports` or in `lost`."""

    cluster: str
    published: str | None
    published_problem: str | None
    nodes: tuple[Node, ...]
    members: tuple[str, ...]
    reports: dict[str, Report]
    lost: dict[str, HostOutcome]
    now: datetime

    @property
    def exit_code(self) -> ExitCode:
        """Done where every node answers, is at the published commit and healthy."""
        if self.lost:
            return exit_code(tuple(self.lost.values()), len(self.nodes))
        return ExitCode.DONE if all(not self._trouble(r) for r in self.reports.values()) else ExitCode.HOST_FAILED

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {
            "cluster": self.cluster,
            "published": self.published,
            "nodes": [self._node_data(node) for node in self.nodes],
        }

    def text(self) -> str:
        """Return the tables of nodes and of etcd's members, then what needs a person."""
        published = self.published or f"unknown: {self.published_problem}" if self.published_problem else self.published
        parts = [
            f"cluster {self.cluster}, published commit {(published or 'none')[:60]}",
            "",
            table(("NODE", "ADDRESS", "ROLES", "APPLIED", "UNITS", "CERTIFICATES"), map(self._row, self.nodes)),
        ]
        members = [self._member_row(name) for name in self.members if name in {node.name for node in self.nodes}]
        if members:
            parts += ["", table(("ETCD MEMBER", "HEALTH", "ROLE", "VERSION", "DATABASE", "ALARMS"), members)]
        return "\n".join([*parts, *self._remarks()])

    def _row(self, node: Node) -> tuple[str, ...]:
        roles = ",".join(node.roles)
        answer = self.reports.get(node.name)
        if not answer:
            return node.name, str(node.address), roles, str(self.lost[node.name].state), "-", "-"
        applied = answer.applied[:12] or "none"
        current = "" if self.published in {None, answer.applied} else " (behind)"
        active = sum(unit.active == "active" for unit in answer.units)
        wait = sum(unit.waits_for is not None for unit in answer.units)
        failed = sum(unit.failed for unit in answer.units)
        units = f"{active} active" + (f", {wait} waiting" if wait else "") + (f", {failed} failed" if failed else "")
        expiry = answer.first_expiry
        days = f"{(expiry - self.now).days} days left" if expiry else "none"
        return node.name, str(node.address), roles, applied + current, units, days

    def _member_row(self, name: str) -> tuple[str, ...]:
        answer = self.reports.get(name)
        member = answer.etcd if answer else None
        if not member:
            return name, "unknown", "-", "-", "-", "-"
        return (
            name,
            "healthy" if member.healthy else "UNHEALTHY",
            "leader" if member.is_leader else "follower",
            member.version or "-",
            _size(member.database_bytes),
            ", ".join(member.alarms) or "none",
        )

    def _remarks(self) -> list[str]:
        lines: list[str] = []
        for outcome in self.lost.values():
            lines.append(f"{outcome.host}: {outcome.state}: {outcome.text}")
            if outcome.next_step:
                lines.append(f"  next: {outcome.next_step}")
        for answer in self.reports.values():
            trouble = self._trouble(answer)
            if trouble:
                lines.append(f"{answer.node}: {trouble}")
            elif answer.pulled.get("result") == "kept":
                lines.append(f"{answer.node}: keeps its last good document: {answer.pulled.get('reason')}")
        lines += [line for group in report.waiting(self.reports.values()) for line in group.lines()]
        return ["", *lines] if lines else []

    def _trouble(self, answer: Report) -> str | None:
        if self.published and answer.applied != self.published:
            reason = answer.pulled.get("reason")
            return f"is not at the published commit{f': {reason}' if reason else ''}"
        if answer.etcd and not answer.etcd.healthy:
            return "its etcd member is not healthy"
        failed = [unit.name for unit in answer.units if unit.failed]
        return f"failed units: {', '.join(failed)}" if failed else problem_with(answer.skew)

    def _node_data(self, node: Node) -> Json:
        base: Json = {"name": node.name, "address": str(node.address), "roles": [role.value for role in node.roles]}
        answer = self.reports.get(node.name)
        if not answer:
            return base | {"state": str(self.lost[node.name].state), "error": self.lost[node.name].text}
        etcd = answer.etcd
        return base | {
            "state": "trouble" if self._trouble(answer) else "healthy",
            "error": self._trouble(answer),
            "os": answer.os_name,
            "applied": answer.applied or None,
            "pull": dict(answer.pulled),
            "units": [vars(unit) for unit in answer.units],
            "waiting": dict(answer.waiting),
            "certificates": {name: expiry.isoformat() for name, expiry in answer.certificates.items()},
            "etcd": None
            if not etcd
            else {
                "healthy": etcd.healthy,
                "leader": etcd.is_leader,
                "version": etcd.version,
                "database_bytes": etcd.database_bytes,
                "alarms": list(etcd.alarms),
            },
        }


def status(loaded: LoadedCluster, *, limit: Sequence[str] = ()) -> ClusterStatus:
    """Ask the repository and every node. Changes nothing, and reports a silent node instead of failing on it."""
    cluster = loaded.cluster
    nodes = limited(cluster, limit)
    workspace = Workspace.beside(loaded.path)
    published, problem = None, None
    try:
        published = repository_of(cluster, workspace).published()
    except CouplerError as error:
        problem = error.why or error.what
    reports: dict[str, Report] = {}
    lost: dict[str, HostOutcome] = {}
    by_target = {target(node): node for node in nodes}
    with Connections(access(cluster, workspace)) as connections:

        def ask(where: Target) -> None:
            node = by_target[where]
            try:
                reports[node.name] = report.ask(connections, cluster, node)
            except CouplerError as error:
                lost[node.name] = outcome_of(node.name, error)

        connections.everywhere(by_target, ask)
    members = tuple(node.name for node in cluster.etcd_members)
    reports = {node.name: reports[node.name] for node in nodes if node.name in reports}
    return ClusterStatus(cluster.name, published, problem, nodes, members, reports, lost, datetime.now(UTC))


def _size(octets: int) -> str:
    """Return a size as people write it, in KiB or MiB."""
    kib = octets / 1024
    return f"{kib:.0f} KiB" if kib < 1024 else f"{kib / 1024:.1f} MiB"  # noqa: PLR2004 - KiB in a MiB
