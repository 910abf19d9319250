"""What a node reports of itself, asked over SSH: the commit it is at, its health, units, programs and certificates."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coupler.adapters import pki
from coupler.adapters.etcd import MemberStatus, member_status
from coupler.result import json_object
from coupler.workflows.clock import skew_of
from coupler.workflows.health import Probe, State, read_probes
from coupler.workflows.run import checked, target
from coupler.workflows.script import Answer, script

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from coupler.adapters.ssh import Connections
    from coupler.model import Cluster, Node

UNITS: Mapping[str, str] = {
    "node-identity.service": "",
    "etcd.service": "etcd",
    "etcd2.service": "",
    "etcd-gateway.service": "etcd",
    "flanneld.service": "flanneld",
    "fleet.service": "fleetd",
    "kube-apiserver.service": "kube-apiserver",
    "kube-controller-manager.service": "kube-controller-manager",
    "kube-scheduler.service": "kube-scheduler",
    "kubelet.service": "kubelet",
    "kube-proxy.service": "kube-proxy",
    "coupler-registrator.service": "",
    "coupler-haproxy.service": "",
    "coupler-nginx.service": "",
    "coupler-address.service": "",
}
"""The units that are worth a person's attention, each with the artifact without which it does not start."""
BALANCING = frozenset({"coupler-registrator.service", "coupler-haproxy.service", "coupler-nginx.service"})
"""Those of them that the load balancer consists of."""


@dataclass(frozen=True)
class Unit:
    """A unit on a node, as `systemctl show` has it; `waits_for` is the artifact that it lacks."""

    name: str
    active: str
    sub: str
    waits_for: str | None = None

    @property
    def failed(self) -> bool:
        """Whether systemd gave up on it, or tries again and again."""
        return self.active == "failed" or self.sub == "auto-restart"


@dataclass(frozen=True)
class Report:
    """What one node says of itself. `pulled` is /run/coupler/status.json (see the script coupler-pull).

    `health` is what its components' probes say: nothing where the node has no coupler-health yet. `skew`: seconds that
    its clock is ahead of ours.
    """

    node: str
    os_name: str
    pulled: Mapping[str, Any]
    units: tuple[Unit, ...]
    waiting: Mapping[str, str]
    certificates: Mapping[str, datetime]
    etcd: MemberStatus | None
    skew: float = 0.0
    health: Mapping[str, Probe] = field(default_factory=dict)

    @property
    def applied(self) -> str:
        """The commit that is applied, empty before the first one."""
        return str(self.pulled.get("applied") or "")

    @property
    def serves_etcd(self) -> bool:
        """Whether it has a member of etcd that is healthy."""
        if "etcd" in self.health:
            return self.health["etcd"].state is State.OK
        return self.etcd is not None and self.etcd.healthy

    @property
    def first_expiry(self) -> datetime | None:
        """When the first of the node's certificates expires."""
        return min(self.certificates.values(), default=None)


def ask(connections: Connections, cluster: Cluster, node: Node) -> Report:
    """Ask a node for its report. Raises UnreachableError or HostFailedError."""
    variables = {"UNITS": " ".join(UNITS), "SCHEME": cluster.etcd.scheme}
    before = time.time()
    completed = connections.run(target(node), script("report", variables))
    checked(node, completed.exit_status, completed.stderr)
    answer = Answer(completed.stdout)
    return read_report(node.name, answer, skew_of(answer, before, time.time()))


def read_report(node: str, answer: Answer, skew: float = 0.0) -> Report:
    """Return the report that the answer of `report.sh` holds."""
    waiting = {}
    for line in answer.all("artifact"):
        state, _, rest = line.partition(" ")
        if state == "waiting":
            name, _, reason = rest.partition(" ")
            waiting[name] = reason.partition(" ")[2]
    etcd = None
    if answer.all("etcd_health"):
        etcd = member_status(*(answer.one(f"etcd_{what}") for what in ("health", "status", "members", "alarms")))
    return Report(
        node,
        answer.one("os_name"),
        json_object(answer.one("status")),
        tuple(_units(answer.all("unit"), waiting)),
        waiting,
        {name: expiry for line in answer.all("certificate") for name, expiry in _certificate(line)},
        etcd,
        skew,
        read_probes(answer.all("health")),
    )


def _units(lines: list[str], waiting: Mapping[str, str]) -> Iterator[Unit]:
    """Yield the units that exist on the node, from the blocks of properties that `systemctl show` prints."""
    for block in "\n".join(lines).split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if properties.get("LoadState") != "loaded":
            continue
        name, active = properties.get("Id", ""), properties.get("ActiveState", "")
        artifact = UNITS.get(name, "")
        lacks = artifact if artifact in waiting and active != "active" else None
        yield Unit(name, active, properties.get("SubState", ""), lacks)


def _certificate(line: str) -> list[tuple[str, datetime]]:
    name, _, pem = line.partition(" ")
    try:
        return [(name, pki.expiry(base64.b64decode(pem)))]
    except ValueError:
        return []


def strangers(cluster: Cluster, reports: Iterable[Report]) -> list[str]:
    """Return a line for each member of etcd that is to be none by cluster.yaml, with what to do about it."""
    known = {"", *(node.name for node in cluster.etcd_members)}
    names = {name for report in reports if report.etcd for name in (report.etcd.members or {}).values()}
    return [
        f"etcd has the member {name}, and cluster.yaml none of that name; next: cluster remove {name}"
        for name in sorted(names - known)
    ]


@dataclass(frozen=True)
class Waiting:
    """Units that wait for the same reason on the same nodes; without units, artifacts that no unit waits for."""

    reason: str
    nodes: tuple[str, ...]
    units: tuple[str, ...]
    artifacts: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the two lines for a person: which units or artifacts, then where and why."""
        shown, lacking = 4, ", ".join(self.artifacts)
        more = f" and {len(self.nodes) - shown} more" if len(self.nodes) > shown else ""
        return [
            f"waiting for their programs: {', '.join(self.units)}" if self.units else f"lacking: {lacking}",
            f"  on {', '.join(self.nodes[:shown])}{more}: {self.reason}",
        ]

    def data(self) -> dict[str, Any]:
        """Return it as JSON-serialisable data."""
        return {key: value if isinstance(value, str) else list(value) for key, value in vars(self).items()}


_IN_TIME = frozenset({"the mirror does not have it", "containerd does not run"})
"""Why an artifact is not there that is no fault where no unit waits for it."""


def waiting(reports: Iterable[Report]) -> list[Waiting]:
    """Return which units wait for an artifact, grouped so that a person reads each reason once.

    What no unit waits for, a tool or an image, is there too if something is wrong with it.
    """
    nodes_of: dict[tuple[str, str, str], list[str]] = {}
    for report in reports:
        for unit in report.units:
            if unit.waits_for:
                reason = report.waiting[unit.waits_for]
                nodes_of.setdefault((reason, unit.waits_for, unit.name.removesuffix(".service")), []).append(
                    report.node
                )
        waited_for = {unit.waits_for for unit in report.units} | set(UNITS.values())
        for artifact, reason in report.waiting.items():
            if artifact not in waited_for and reason not in _IN_TIME:
                nodes_of.setdefault((reason, artifact, ""), []).append(report.node)
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[str, str]]] = {}
    for (reason, artifact, name), nodes in nodes_of.items():
        groups.setdefault((reason, tuple(nodes)), []).append((name, artifact))
    return [
        Waiting(reason, nodes, tuple(unit for unit, _ in pairs if unit), tuple(artifact for _, artifact in pairs))
        for (reason, nodes), pairs in groups.items()
    ]
