"""`cluster certs`: which certificates there are, until when, and new ones in their place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from coupler.adapters import pki
from coupler.adapters.ssh import Connections, Target
from coupler.errors import CouplerError, ExitCode, UsageError
from coupler.result import HostOutcome, Json, Progress, State, StepOutcome, count, table
from coupler.workflows import report
from coupler.workflows.certificates import NODE_FOLDER, Certificate, Store, authorities, certificates_of
from coupler.workflows.run import Run, Step, access, execute, exit_code, limited, outcome_of, target
from coupler.workflows.steps.balance import Balance, balancing
from coupler.workflows.steps.bootstrap import Bootstrap
from coupler.workflows.steps.certificates import Certificates
from coupler.workflows.steps.health import Health
from coupler.workflows.steps.preflight import Preflight
from coupler.workflows.steps.restart import Restart
from coupler.workflows.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from coupler.model import Cluster, LoadedCluster
    from coupler.workflows.report import Report

ITSELF = "itself"


class Condition(StrEnum):
    """How a certificate is."""

    OK = "ok"
    DUE = "due"
    EXPIRED = "expired"
    MISSING = "missing"
    OTHER = "to be made anew"


class OnNode(StrEnum):
    """Whether a node has the certificate that is here."""

    SAME = "same"
    OTHER = "another"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Entry:
    """A certificate: `node` is None for those that stay with the operator, `on_node` where no node was asked."""

    name: str
    node: str | None
    signed_by: str
    expires: datetime | None
    condition: Condition
    reason: str | None
    on_node: OnNode | None = None

    @property
    def bad(self) -> bool:
        """Whether it does not serve."""
        return self.condition in {Condition.EXPIRED, Condition.MISSING, Condition.OTHER}

    def data(self) -> Json:
        """Return it as JSON-serialisable data."""
        return {
            "name": self.name,
            "node": self.node,
            "signed_by": self.signed_by,
            "expires": self.expires.isoformat() if self.expires else None,
            "state": str(self.condition),
            "reason": self.reason,
            "on_node": str(self.on_node) if self.on_node else None,
        }


@dataclass(frozen=True)
class CertsStatus:
    """Every certificate of the cluster; `lost` are nodes that were asked and did not answer."""

    cluster: str
    entries: tuple[Entry, ...]
    lost: tuple[HostOutcome, ...]
    asked: int
    now: datetime

    @property
    def exit_code(self) -> ExitCode:
        """Failed where a certificate does not serve; a host failed where one does not have what is here."""
        if any(entry.bad for entry in self.entries):
            return ExitCode.FAILED
        if self.lost:
            return exit_code(self.lost, self.asked)
        differ = any(entry.on_node in {OnNode.OTHER, OnNode.NONE} for entry in self.entries)
        return ExitCode.HOST_FAILED if differ else ExitCode.DONE

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {
            "cluster": self.cluster,
            "certificates": [entry.data() for entry in self.entries],
            "failed": [host.data() for host in self.lost],
        }

    def text(self) -> str:
        """Return the table, and what to do."""
        head = ["CERTIFICATE", "NODE", "SIGNED BY", "EXPIRES", "STATE"] + (["ON NODE"] if self.asked else [])
        lines = [table(head, map(self._row, self.entries)), ""]
        for host in self.lost:
            lines.append(f"{host.host}: {host.state}: {host.text}")
        return "\n".join([*lines, f"next: {self._next()}"])

    def _row(self, entry: Entry) -> list[str]:
        days = f"{entry.expires:%Y-%m-%d} ({(entry.expires - self.now).days} days)" if entry.expires else "-"
        state = f"{entry.condition}: {entry.reason}" if entry.condition is Condition.OTHER else str(entry.condition)
        row = [entry.name, entry.node or "-", entry.signed_by, days, state]
        return row + ([str(entry.on_node or "-")] if self.asked else [])

    def _next(self) -> str:
        authority = next((e for e in self.entries if e.signed_by == ITSELF and e.condition is not Condition.OK), None)
        if authority and authority.condition is Condition.MISSING:
            return "cluster init"
        if authority:
            return f"plan for a new authority in place of {authority.name}: see docs/certificates.md"
        if any(entry.condition is not Condition.OK for entry in self.entries):
            return "cluster certs renew"
        if self.exit_code is ExitCode.HOST_FAILED:
            return "cluster certs renew, which sends nodes what they lack"
        return "nothing to do; back up .coupler/pki"


def certs_status(loaded: LoadedCluster, *, live: bool = False) -> CertsStatus:
    """Look at every certificate in `.coupler/pki`, and with `live` at those on nodes."""
    cluster, workspace = loaded.cluster, Workspace.beside(loaded.path)
    now = datetime.now(UTC)
    reports, lost = _asked(cluster, workspace) if live else ({}, ())
    entries = tuple(_entries(cluster, Store(workspace.pki, cluster), now, reports if live else None))
    return CertsStatus(cluster.name, entries, lost, len(cluster.nodes) if live else 0, now)


def _asked(cluster: Cluster, workspace: Workspace) -> tuple[dict[str, Report], tuple[HostOutcome, ...]]:
    reports: dict[str, Report] = {}
    lost: dict[str, HostOutcome] = {}
    by_target = {target(node): node for node in cluster.nodes}
    with Connections(access(cluster, workspace)) as connections:

        def ask(where: Target) -> None:
            node = by_target[where]
            try:
                reports[node.name] = report.ask(connections, cluster, node)
            except CouplerError as error:
                lost[node.name] = outcome_of(node.name, error)

        connections.everywhere(by_target, ask)
    return reports, tuple(lost[node.name] for node in cluster.nodes if node.name in lost)


def _entries(cluster: Cluster, store: Store, now: datetime, reports: dict[str, Report] | None) -> Iterator[Entry]:
    for name in authorities(cluster):
        pair = store.pair(name)
        expires = _expiry(pair.certificate if pair else None)
        yield Entry(name, None, ITSELF, expires, _condition(expires, now, None), None)
    for certificate in certificates_of(cluster):
        expires = _expiry(store.certificate(certificate.path))
        reason = store.reason(certificate, now)
        condition = _condition(expires, now, reason)
        on_node = _on_node(certificate, expires, reports) if reports is not None and certificate.node else None
        yield Entry(certificate.name, certificate.node, certificate.authority, expires, condition, reason, on_node)


def _expiry(certificate: bytes | None) -> datetime | None:
    try:
        return pki.expiry(certificate) if certificate else None
    except ValueError:
        return None


def _condition(expires: datetime | None, now: datetime, reason: str | None) -> Condition:
    if expires is None:
        return Condition.MISSING
    if expires <= now:
        return Condition.EXPIRED
    if expires - now < pki.RENEW_BEFORE:
        return Condition.DUE
    return Condition.OTHER if reason else Condition.OK


def _on_node(certificate: Certificate, expires: datetime | None, reports: dict[str, Report]) -> OnNode:
    """Say whether the node has the same; two of one name expire in the same second only if they are the same."""
    answer = reports.get(certificate.node or "")
    if not answer:
        return OnNode.UNKNOWN
    there = answer.certificates.get(f"/{NODE_FOLDER}/{certificate.name}.crt")
    if there is None:
        return OnNode.NONE
    return OnNode.SAME if there == expires else OnNode.OTHER


@dataclass(frozen=True)
class RenewResult:
    """What became of `cluster certs renew`: which certificates were made, its steps, and the nodes that failed."""

    cluster: str
    made: tuple[str, ...]
    steps: tuple[StepOutcome, ...]
    lost: tuple[HostOutcome, ...]
    nodes: int
    dry_run: bool

    @property
    def exit_code(self) -> ExitCode:
        """How the process ends."""
        return exit_code(self.lost, self.nodes)

    @property
    def changed(self) -> bool:
        """Whether anything was changed anywhere."""
        states = {step.state for step in self.steps} | {host.state for step in self.steps for host in step.hosts}
        return State.DONE in states

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {
            "cluster": self.cluster,
            "dry_run": self.dry_run,
            "changed": self.changed,
            "certificates": list(self.made),
            "steps": [step.data() for step in self.steps],
            "failed": [host.data() for host in self.lost],
        }

    def text(self) -> str:
        """Return what was done, who failed, and the next command."""
        made = count(len(self.made), "certificate")
        if self.dry_run:
            names = [f"  {name}" for name in self.made]
            return "\n".join([f"cluster {self.cluster}: would make {made}", *names, "next: cluster certs renew"])
        verdict = f"made {made}" if self.made else "sent what nodes lacked" if self.changed else "unchanged"
        lines = [f"cluster {self.cluster}: {verdict}"]
        for host in self.lost:
            lines.append(f"  {host.state}: {host.host}: {host.text}")
            if host.next_step:
                lines.append(f"    next: {host.next_step}")
        return "\n".join([*lines, f"next: {'cluster certs renew' if self.lost else 'cluster certs status --live'}"])


def certs_renew(
    loaded: LoadedCluster,
    progress: Progress,
    *,
    names: Sequence[str] = (),
    every: bool = False,
    limit: Sequence[str] = (),
    dry_run: bool = False,
) -> RenewResult:
    """Make anew what expires soon, and what is in `names`, or all; send it to nodes, and restart what uses it.

    Authorities stay. With `limit` only these nodes get something, and of what is not due only theirs is made anew.

    Raises:
        UsageError: there is no such node or certificate.
        CouplerError: something went wrong that is no single host's.
    """
    cluster, workspace = loaded.cluster, Workspace.beside(loaded.path)
    nodes = limited(cluster, limit)
    known = {name for certificate in certificates_of(cluster) for name in (certificate.name, certificate.path)}
    unknown = sorted(set(names) - known)
    if unknown:
        shown = ", ".join(sorted({certificate.name for certificate in certificates_of(cluster)}))
        raise UsageError(
            f"no certificate is called {', '.join(unknown)}", why=f"there are {shown}", next_step="cluster certs status"
        )

    def again(certificate: Certificate) -> bool:
        chosen = every or certificate.name in names or certificate.path in names
        return chosen and (not limit or certificate.node in limit)

    store, now = Store(workspace.pki, cluster), datetime.now(UTC)
    workspace.prepare()
    with workspace.scratch() as scratch, Connections(access(cluster, workspace)) as connections:
        made = tuple(missing.path for missing in store.missing(now, again))
        steps: list[Step] = [Certificates(again)]
        if not dry_run:
            steps = [Preflight(), *steps, Bootstrap(keys_only=True), Restart(), Health()]
            # It has its own notes of what its registrators read when they started.
            steps += [Balance()] if cluster.load_balancer and balancing(nodes) else []
        run = Run(loaded, nodes, workspace, scratch, connections, progress, dry_run=dry_run)
        outcomes = execute(steps, run)
    lost = tuple(run.lost[node.name] for node in nodes if node.name in run.lost)
    if not any(outcome.title == Certificates.title for outcome in outcomes):
        made = ()
    return RenewResult(cluster.name, made, outcomes, lost, len(nodes), dry_run)
