"""`cluster status`: ask every node, and the repository, and show them side by side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coupler.adapters.ssh import Connections, Target
from coupler.errors import CouplerError, ExitCode
from coupler.model.health import components_of
from coupler.result import HostOutcome, Json, table
from coupler.workflows import health, report
from coupler.workflows.clock import problem_with
from coupler.workflows.publication import repository_of
from coupler.workflows.run import access, exit_code, limited, outcome_of, target
from coupler.workflows.steps.health import failed_units
from coupler.workflows.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coupler.model import Cluster, LoadedCluster, Node
    from coupler.workflows.report import Report


@dataclass(frozen=True)
class ClusterStatus:
    """What the repository and the nodes say. A node is in `reports` or in `lost`."""

    cluster: Cluster
    published: str | None
    published_problem: str | None
    nodes: tuple[Node, ...]
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
            "cluster": self.cluster.name,
            "published": self.published,
            "components": [tally.data() for tally in self._tallies()],
            "nodes": [self._node_data(node) for node in self.nodes],
        }

    def text(self) -> str:
        """Return the tables of nodes, of components and of etcd's members, then what needs a person."""
        published = self.published or f"unknown: {self.published_problem}" if self.published_problem else self.published
        parts = [
            f"cluster {self.cluster.name}, published commit {(published or 'none')[:60]}",
            "",
            table(("NODE", "ADDRESS", "ROLES", "APPLIED", "UNITS", "CERTIFICATES"), map(self._row, self.nodes)),
        ]
        tallies = self._tallies()
        if tallies:
            parts += ["", health.tallies_table(tallies)]
        members = [self._member_row(node.name) for node in self.cluster.etcd_members if node in self.nodes]
        if members:
            parts += ["", table(("ETCD MEMBER", "HEALTH", "ROLE", "VERSION", "DATABASE", "ALARMS"), members)]
        return "\n".join([*parts, *self._remarks()])

    def _tallies(self) -> list[health.Tally]:
        return health.tallies(self.cluster, self.nodes, self.reports)

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
            trouble = self._trouble(answer, with_health=False)
            if trouble:
                lines.append(f"{answer.node}: {trouble}")
            elif answer.pulled.get("result") == "kept":
                lines.append(f"{answer.node}: keeps its last good document: {answer.pulled.get('reason')}")
        lines += health.remarks(self.reports.values())
        lines += self._quorum()
        lines += report.strangers(self.cluster, self.reports.values())
        lines += [line for group in report.waiting(self.reports.values()) for line in group.lines()]
        return ["", *lines] if lines else []

    def _quorum(self) -> list[str]:
        """Return what to know where some members of etcd are not healthy; only all nodes together can tell."""
        members = self.cluster.etcd_members
        healthy = [m for m in members if m.name in self.reports and self.reports[m.name].serves_etcd]
        if len(healthy) == len(members) or any(member not in self.nodes for member in members):
            return []
        spare = len(healthy) - (len(members) // 2 + 1)
        count = f"etcd: {len(healthy)} of {len(members)} members are healthy"
        if spare < 0:
            return [f"{count}: nothing can be written, and fleet, locksmith and Kubernetes stand still"]
        return [
            f"{count}: {'it goes on without ' + str(spare) + ' more' if spare else 'the loss of one more stops it'}"
        ]

    def _trouble(self, answer: Report, *, with_health: bool = True) -> str | None:
        """Return everything that is wrong with a node; a wrong clock comes first, since it may be why of the rest."""
        troubles = [problem_with(answer.skew)]
        if self.published and answer.applied != self.published:
            reason = answer.pulled.get("reason")
            troubles.append(f"is not at the published commit{f': {reason}' if reason else ''}")
        expired = sorted(name for name, expiry in answer.certificates.items() if expiry < self.now)
        if expired:
            troubles.append(f"expired: {', '.join(expired)}: run `cluster certs renew`")
        node = next(node for node in self.nodes if node.name == answer.node)
        failed = failed_units(answer, components_of(self.cluster, node))
        failed += [unit.name for unit in answer.units if unit.failed and unit.name in report.BALANCING]
        if failed:
            troubles.append(f"failed units: {', '.join(failed)}")
        if with_health:
            troubles += map(str, health.bad(answer))
        if not answer.health and answer.etcd and not answer.etcd.healthy:
            troubles.append("its etcd member is not healthy")
        return "; ".join(trouble for trouble in troubles if trouble) or None

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
            "health": {name: probe.data() for name, probe in answer.health.items()},
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
    reports = {node.name: reports[node.name] for node in nodes if node.name in reports}
    return ClusterStatus(cluster, published, problem, nodes, reports, lost, datetime.now(UTC))


def _size(octets: int) -> str:
    """Return a size as people write it, in KiB or MiB."""
    kib = octets / 1024
    return f"{kib:.0f} KiB" if kib < 1024 else f"{kib / 1024:.1f} MiB"  # noqa: PLR2004 - KiB in a MiB
