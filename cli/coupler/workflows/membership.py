"""The members of a cluster's etcd: who they are, and how one comes and goes without putting the others at risk.

Source: https://etcd.io/docs/v3.5/op-guide/runtime-configuration/ and, for learners,
https://etcd.io/docs/v3.5/learning/design-learner/.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coupler.adapters.etcd import Member, members_in
from coupler.errors import CouplerError
from coupler.model.rules.programs import ETCD_WITH_V3
from coupler.result import count, json_object
from coupler.workflows.etcd import request

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from coupler.adapters.ssh import Connections
    from coupler.model import Cluster, Node

_PATIENCE = 60  # seconds for what etcd refuses until its members have seen enough of each other
_PAUSE = 0.5  # seconds between two attempts


@dataclass(frozen=True)
class Quorum:
    """Whether the members go on: of those with a vote, how many there are, and which are healthy, by their URLs."""

    voters: int
    healthy: frozenset[str]

    def after_removing(self, members: Collection[Member]) -> bool:
        """Say whether those that are left can still agree."""
        votes = sum(not member.learner for member in members)
        healthy = self.healthy - {member.peer_url for member in members}
        return _agree(len(healthy), self.voters - votes)

    def after_adding(self) -> bool:
        """Say whether they can still agree while one more has a vote that it does not use yet."""
        return _agree(len(self.healthy), self.voters + 1)


def _agree(healthy: int, voters: int) -> bool:
    return healthy > voters // 2


class Membership:
    """The members of etcd, asked and changed through a node, with its certificate, by way of a healthy member.

    Raises CouplerError from all of its methods where no member is healthy.
    """

    def __init__(self, connections: Connections, cluster: Cluster, through: Node, tell: Callable[[str], None]) -> None:
        """`tell` is told what is waited for."""
        self._connections, self._cluster, self._through, self._tell = connections, cluster, through, tell

    def members(self) -> tuple[Member, ...]:
        """Return the members, as a healthy one knows them."""
        code, body = self._ask("GET", f"{self._host(2380)}/members")
        try:
            return members_in(body)
        except ValueError as error:
            raise CouplerError("etcd does not say who its members are", why=body or f"HTTP {code}") from error

    def quorum(self, members: Iterable[Member]) -> Quorum:
        """Return which of the members that vote are healthy."""
        voters = [member for member in members if not member.learner]
        healthy = (member.peer_url for member in voters if self._is_healthy(urlsplit(member.peer_url).hostname or ""))
        return Quorum(len(voters), frozenset(healthy))

    @cached_property
    def has_learners(self) -> bool:
        """Whether a new member can first be sent everything, and get a vote then."""
        _, body = self._ask("GET", f"{self._host(2379)}/version")
        numbers = re.findall(r"\d+", str(json_object(body).get("etcdcluster", "")))[:3]
        return tuple(map(int, numbers)) >= ETCD_WITH_V3

    def add(self, node: Node) -> None:
        """Tell the members of a new one, as a learner where there are such."""
        what, urls = f"adding {node.name}", [self._cluster.peer_url(node)]
        if self.has_learners:
            body = json.dumps({"peerURLs": urls, "isLearner": True})
            self._insist(what, f"{self._host(2379)}/v3/cluster/member/add", body)
        else:
            self._insist(what, f"{self._host(2379)}/v2/members", json.dumps({"peerURLs": urls}))

    def remove(self, member: Member) -> None:
        """Take a member out. It ends, and whatever runs with its data is refused from then on."""
        what = f"removing {member.name or member.peer_url}"
        if self.has_learners:
            self._insist(what, f"{self._host(2379)}/v3/cluster/member/remove", json.dumps({"ID": str(member.id)}))
        else:
            self._insist(what, f"{self._host(2379)}/v2/members/{member.id:x}", "", "DELETE")

    def promote(self, member: Member) -> None:
        """Give a learner its vote, as soon as it knows what the others know."""
        body = json.dumps({"ID": str(member.id)})
        self._insist(f"giving {member.name} its vote", f"{self._host(2379)}/v3/cluster/member/promote", body)

    def await_start(self, node: Node, patience: float) -> None:
        """Wait until a node's own member is healthy. Raises CouplerError after `patience` seconds."""
        deadline = time.monotonic() + patience
        while not self._is_healthy(str(node.address)):
            if time.monotonic() > deadline:
                raise CouplerError(
                    "its member does not start",
                    why="etcd was told of it and waits for it",
                    next_step=f"see its journal: ssh {node.ssh_user}@{node.ssh_address} journalctl -b -u etcd",
                )
            time.sleep(_PAUSE)

    @cached_property
    def _healthy_host(self) -> str:
        """The address of a member that is healthy, of another node than the one that is asked."""
        members = [member for member in self._cluster.etcd_members if member != self._through]
        for member in (*members, *([self._through] if self._through in self._cluster.etcd_members else [])):
            if self._is_healthy(str(member.address)):
                return str(member.address)
        raise CouplerError(
            "no member of etcd is healthy",
            why=f"asked by {self._through.name}: {', '.join(member.name for member in members) or 'there is no other'}",
            next_step="cluster status says what is wrong with them",
        )

    def _host(self, port: int) -> str:
        return f"{self._cluster.etcd.scheme}://{self._healthy_host}:{port}"

    def _is_healthy(self, address: str) -> bool:
        code, body = self._ask("GET", f"{self._cluster.etcd.scheme}://{address}:2379/health")
        return code == 200 and str(json_object(body).get("health", "")).lower() == "true"  # noqa: PLR2004

    def _silent(self) -> str:
        """Say which members are not healthy: etcd takes no new one while one of those with a vote is not there."""
        members = self.members()
        healthy = self.quorum(members).healthy
        silent = [m.name or m.peer_url for m in members if not m.learner and m.peer_url not in healthy]
        return f"; not healthy: {', '.join(silent)}" if silent else ""

    def _ask(self, method: str, url: str, body: str = "") -> tuple[int, str]:
        return request(self._connections, self._through, method, url, body)

    def _insist(self, what: str, url: str, body: str, method: str = "POST") -> None:
        """Ask until etcd does it: shortly after a change it says no to the next one.

        Raises:
            CouplerError: it has said no for `_PATIENCE` seconds.
        """
        deadline = time.monotonic() + _PATIENCE
        said = ""
        while True:
            code, answer = self._ask(method, url, body)
            if code in {200, 201, 204}:
                return
            problem = str(json_object(answer).get("message") or answer or f"HTTP {code}").removeprefix("etcdserver: ")
            if time.monotonic() > deadline:
                raise CouplerError(
                    f"etcd refused {what} for {count(_PATIENCE, 'second')}",
                    why=problem + self._silent(),
                    next_step="cluster status; bring up the member that is not healthy, or take it out",
                )
            if problem != said:
                self._tell(f"{what}: {problem}")
            said = problem
            time.sleep(_PAUSE)
