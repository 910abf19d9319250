"""`cluster lock`: who holds locksmith's lock for reboots, asked and changed on a node over SSH."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from coupler.adapters.locksmith import LOCKS, NO_GROUP, Semaphore, semaphores_in
from coupler.adapters.ssh import Connections
from coupler.adapters.update_engine import update_status
from coupler.errors import CouplerError, ExitCode, HostFailedError, UsageError
from coupler.result import Json, Text, count, json_object, table
from coupler.workflows.etcd import request
from coupler.workflows.run import access, checked, target
from coupler.workflows.script import Answer, script
from coupler.workflows.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from coupler.adapters.ssh import Target
    from coupler.model import Cluster, LoadedCluster, Node

_ATTEMPTS = 5
_NO_SUCH_KEY = 100
"""etcd's v2 error code for a key that is not there (etcd's documentation, 'Error Code')."""


class Holding(StrEnum):
    """Why a machine holds the lock."""

    REBOOTING = "rebooting"
    DUE = "reboot due"
    STARTING = "starting"
    STALE = "stale"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Machine:
    """What a node says of itself: its machine id, whether it was healthy since its boot, whether a reboot is due."""

    machine_id: str
    healthy: bool
    reboot_due: bool


@dataclass(frozen=True)
class Holder:
    """A machine that holds a lock; `node` is None where no node that answers is that machine."""

    machine_id: str
    node: str | None
    holding: Holding
    reason: str

    def data(self) -> Json:
        """Return it as JSON-serialisable data."""
        return {"machine_id": self.machine_id, "node": self.node, "state": str(self.holding), "reason": self.reason}


@dataclass(frozen=True)
class LockStatus:
    """The locks of a cluster, each with its holders; `wanted` is what cluster.yaml says of the lock of `group`."""

    group: str
    wanted: int
    uses_lock: bool
    locks: Mapping[str, Semaphore]
    holders: Mapping[str, tuple[Holder, ...]]
    silent: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """Done, also where a lock is stale: that is for a person to judge."""
        return ExitCode.DONE

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {
            "group": self.group or None,
            "max_nodes": self.wanted,
            "locks": [
                {
                    "group": group or None,
                    "max": lock.most,
                    "free": lock.free,
                    "holders": [holder.data() for holder in self.holders[group]],
                }
                for group, lock in self.locks.items()
            ],
            "silent": dict(self.silent),
        }

    def text(self) -> str:
        """Return a paragraph for each lock, then what to know and do."""
        lines = []
        for group, lock in self.locks.items():
            name = f"lock of the group {group}" if group else "lock"
            if group == self.group and not lock.index:
                lines.append(f"{name}: nobody has asked for it yet; {count(self.wanted, 'node')} may hold it")
                continue
            differs = f" (cluster.yaml: {self.wanted})" if group == self.group and lock.most != self.wanted else ""
            lines.append(f"{name}: held by {len(lock.holders)} of at most {lock.most}{differs}")
            rows = [(h.node or "-", h.machine_id, h.holding, h.reason) for h in self.holders[group]]
            lines += [table(("NODE", "MACHINE ID", "STATE", "WHY"), rows, "  ")] if rows else []
        if not self.uses_lock:
            lines.append("os.reboot.strategy in cluster.yaml is not etcd-lock: nodes reboot without asking for it")
        lines += [f"{node} does not answer: {why}" for node, why in self.silent.items()]
        lines += [
            f"next: cluster lock unlock {holder.node or holder.machine_id}{f' --group {group}' * (group != self.group)}"
            for group, holders in self.holders.items()
            for holder in holders
            if holder.holding is Holding.STALE
        ]
        return "\n".join(lines)


def lock_status(loaded: LoadedCluster) -> LockStatus:
    """Ask for every lock, and every node who it is and whether it is about to reboot.

    Raises:
        CouplerError: no node answers, or etcd has no answer for any of them.
    """
    with _open(loaded) as connections:
        return _Locks(loaded.cluster, connections).status()


def set_most(loaded: LoadedCluster, most: int, group: str | None = None) -> Text:
    """Let `most` nodes hold the lock at a time; 0 means that nobody gets it. Raises CouplerError."""
    cluster = loaded.cluster
    with _open(loaded) as connections:
        before = _Locks(cluster, connections).change(_group_of(cluster, group), lambda lock: lock.with_most(most))
    changed = before.most != most or not before.index
    text = f"{f'at most {most} at a time' if most else 'no node gets the lock'}{'' if changed else ': unchanged'}"
    if most != cluster.os.reboot.max_nodes and group in {None, cluster.os.reboot.group}:
        text += (
            f"\nit stays so until os.reboot.max_nodes in cluster.yaml, which is {cluster.os.reboot.max_nodes}, changes"
        )
    return Text(text, {"max": most, "before": before.most if before.index else None, "changed": changed})


def unlock(loaded: LoadedCluster, who: str, group: str | None, confirm: Callable[[str], None]) -> Text:
    """Take the lock from a holder, a node by name or a machine by its id.

    `confirm` is asked before, with a question; it raises what ends the verb.

    Raises:
        UsageError: `who` does not hold the lock, or cannot be told.
        CouplerError: no node answers, or etcd has no answer.
    """
    with _open(loaded) as connections:
        locks = _Locks(loaded.cluster, connections)
        status = locks.status()
        name = _group_of(loaded.cluster, group)
        holder = _holder(status, name, who)
        called = f"{holder.node} ({holder.machine_id})" if holder.node else holder.machine_id
        confirm(f"{called} holds the lock: {holder.holding}, {holder.reason}. Take it away?")
        locks.change(name, lambda lock: lock.without(holder.machine_id))
    return Text(f"{called} no longer holds the lock", {"unlocked": holder.data(), "group": name or None})


def _holder(status: LockStatus, group: str, who: str) -> Holder:
    holders = status.holders.get(group, ())
    for holder in holders:
        if who in {holder.node, holder.machine_id}:
            return holder
    unknown = [holder for holder in holders if holder.node is None]
    if who in status.silent and unknown:
        # A node that is down cannot say who it is; where everybody else did, the one that is left over is that node.
        if len(unknown) == 1 and len(status.silent) == 1:
            return Holder(unknown[0].machine_id, who, unknown[0].holding, unknown[0].reason)
        raise UsageError(
            f"which machine id {who} has is not known",
            why=f"it does not answer: {status.silent[who]}",
            next_step=f"name the machine id: {', '.join(holder.machine_id for holder in unknown)}",
        )
    held = ", ".join(holder.node or holder.machine_id for holder in holders)
    raise UsageError(
        f"{who} does not hold the lock", why=f"held by {held or 'nobody'}", next_step="cluster lock status"
    )


def _group_of(cluster: Cluster, group: str | None) -> str:
    return (cluster.os.reboot.group or NO_GROUP) if group is None else group


def _open(loaded: LoadedCluster) -> Connections:
    return Connections(access(loaded.cluster, Workspace.beside(loaded.path)))


class _Locks:
    """The locks of a cluster, reached through the first node that has an answer of etcd."""

    def __init__(self, cluster: Cluster, connections: Connections) -> None:
        self._cluster, self._connections = cluster, connections
        self._through: Node | None = None

    def read(self) -> dict[str, Semaphore]:
        """Return group → lock. Raises CouplerError."""
        _, body = self._ask("GET", f"{LOCKS}?recursive=true")
        try:
            return semaphores_in(body)
        except ValueError as error:
            raise CouplerError(
                "the lock in etcd cannot be read", why=str(error), next_step="see docs/reboots.md for its format"
            ) from None

    def change(self, group: str, to: Callable[[Semaphore], Semaphore]) -> Semaphore:
        """Change a lock, and return what it was. A holder that is gone by then is as good as unlocked.

        Raises:
            CouplerError: others change it again and again, or etcd has no answer.
        """
        for _ in range(_ATTEMPTS):
            before = self.read().get(group, Semaphore(0, 0))
            try:
                after = to(before)
            except ValueError:
                return before
            if before.index and after == before:
                return before
            path, body = after.replacement_of(before, group)
            if self._ask("PUT", path, body)[0] != 412:  # noqa: PLR2004 - precondition failed: somebody was faster
                return before
        raise CouplerError("the lock changes all the time", next_step="run the same command again")

    def status(self) -> LockStatus:
        """Return every lock with its holders."""
        cluster, group = self._cluster, _group_of(self._cluster, None)
        locks = {group: Semaphore(cluster.os.reboot.max_nodes, cluster.os.reboot.max_nodes)} | self.read()
        machines: dict[str, Machine] = {}
        silent: dict[str, str] = {}
        by_target = {target(node): node for node in cluster.nodes}

        def ask(where: Target) -> None:
            node = by_target[where]
            try:
                machines[node.name] = self._machine(node)
            except CouplerError as error:
                silent[node.name] = error.summary

        self._connections.everywhere(by_target, ask)
        order = [node.name for node in cluster.nodes]
        machines = {name: machines[name] for name in order if name in machines}
        silent = {name: silent[name] for name in order if name in silent}
        holders = {name: tuple(_holders(lock, machines, silent)) for name, lock in locks.items()}
        reboot = cluster.os.reboot
        return LockStatus(group, reboot.max_nodes, reboot.strategy == "etcd-lock", locks, holders, silent)

    def _machine(self, node: Node) -> Machine:
        completed = self._connections.run(target(node), script("reboot"))
        checked(node, completed.exit_status if not completed.stdout else 0, completed.stderr)
        answer = Answer(completed.stdout)
        update = update_status(answer.all("update"))
        due = bool(update and update.needs_reboot)
        return Machine(answer.one("machine_id"), answer.one("healthy") == "yes", due)

    def _ask(self, method: str, path: str, body: str = "") -> tuple[int, str]:
        """Return status and body of a request to etcd, through the first node that gets an answer."""
        likely = {node.name: node for node in (*self._cluster.etcd_members, *self._cluster.nodes)}
        problem: CouplerError | None = None
        for node in [self._through] if self._through else likely.values():
            try:
                answer = self._ask_through(node, method, path, body)
            except CouplerError as error:
                problem = problem or error
                continue
            self._through = node
            return answer
        assert problem  # noqa: S101 - a cluster has nodes
        raise problem

    def _ask_through(self, node: Node, method: str, path: str, body: str) -> tuple[int, str]:
        url = f"{self._cluster.etcd.scheme}://127.0.0.1:2379{path}"
        code, text = request(self._connections, node, method, url, body)
        is_missing_key = code == 404 and json_object(text).get("errorCode") == _NO_SUCH_KEY  # noqa: PLR2004
        if code in {200, 201, 412} or is_missing_key:
            return code, text
        no_api = code == 404  # noqa: PLR2004
        raise HostFailedError(
            "etcd has no v2 API, where the lock lies" if no_api else "etcd does not answer",
            why=text or f"HTTP status {code}",
            next_step="set etcd.v2_api to true, and run `cluster init`" if no_api else "cluster status",
            host=node.name,
        )


def _holders(lock: Semaphore, machines: Mapping[str, Machine], silent: Mapping[str, str]) -> Iterator[Holder]:
    names = {machine.machine_id: name for name, machine in machines.items()}
    for holder in lock.holders:
        node = names.get(holder)
        if node:
            yield Holder(holder, node, *_why(machines[node]))
        elif silent:
            reason = f"one of {', '.join(silent)}, which {'does' if len(silent) == 1 else 'do'} not answer, or no node"
            yield Holder(holder, None, Holding.REBOOTING if len(silent) == 1 else Holding.UNKNOWN, reason)
        else:
            yield Holder(holder, None, Holding.STALE, "no node of the cluster is this machine")


def _why(machine: Machine) -> tuple[Holding, str]:
    if machine.reboot_due:
        return Holding.DUE, "an update waits for the reboot"
    if not machine.healthy:
        return Holding.STARTING, "it gives the lock back when it is healthy"
    return Holding.STALE, "it is up and no reboot is due; unless somebody locked it by hand"
