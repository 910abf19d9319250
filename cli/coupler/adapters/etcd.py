"""What etcd says of itself, from the answers of its HTTP endpoints.

Source: https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/ for what begins with /v3.

The questions are asked on the node, by curl over SSH: the operator's machine need not reach port 2379.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coupler.result import json_object

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class MemberStatus:
    """One member as it sees itself. `database_bytes` is the size of its database file."""

    healthy: bool
    member_id: str = ""
    leader_id: str = ""
    version: str = ""
    database_bytes: int = 0
    alarms: tuple[str, ...] = ()
    members: Mapping[str, str] | None = None

    @property
    def is_leader(self) -> bool:
        """Whether this member leads."""
        return bool(self.member_id) and self.member_id == self.leader_id


@dataclass(frozen=True)
class Member:
    """A member of etcd as the others know it. `name` is empty until it has started once.

    `started` says whether it ever has. A `learner` is sent everything and has no vote yet.
    """

    id: int
    name: str
    peer_url: str
    started: bool
    learner: bool = False


def members_in(text: str) -> tuple[Member, ...]:
    """Return the members that an answer of `/members` on a peer's port names.

    Source: what etcd's members ask each other before they join (etcd's source, `server/etcdserver/cluster_util.go`),
    the same since etcd 2.

    Raises:
        ValueError: it is no such answer.
    """
    try:
        entries: list[dict[str, Any]] = [*json.loads(text)]
        return tuple(
            Member(
                int(entry["id"]),
                str(entry.get("name", "")),
                str(entry["peerURLs"][0]),
                bool(entry.get("clientURLs")),
                bool(entry.get("isLearner")),
            )
            for entry in entries
        )
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"no list of members: {text[:80]}") from error


def member_status(health: str, status: str, members: str, alarms: str) -> MemberStatus:
    """Return what a member's answers say: of `/health`, `/v3/maintenance/status`, `/v3/cluster/member/list`, alarms.

    An answer that is missing or is no JSON counts as 'not healthy', never as an error.
    """
    state = json_object(status)
    header = state.get("header", {})
    alarm_list = json_object(alarms).get("alarms", [])
    return MemberStatus(
        healthy=str(json_object(health).get("health", "")).lower() == "true",
        member_id=str(header.get("member_id", "")),
        leader_id=str(state.get("leader", "")),
        version=str(state.get("version", "")),
        database_bytes=int(state.get("dbSize", 0)),
        alarms=tuple(sorted({str(alarm.get("alarm", "?")) for alarm in alarm_list})),
        members={str(m.get("ID")): str(m.get("name", "")) for m in json_object(members).get("members", [])},
    )
