"""Requests to etcd, asked on a node over SSH with that node's certificate: ours need not reach port 2379."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.workflows.run import checked, target
from coupler.workflows.script import Answer, script

if TYPE_CHECKING:
    from coupler.adapters.ssh import Connections
    from coupler.model import Node


def request(connections: Connections, through: Node, method: str, url: str, body: str = "") -> tuple[int, str]:
    """Return status and body of a request, asked on the node `through`; status 0, and why, where nobody answers.

    `body` is JSON if it begins with a brace, or else url-encoded.

    Raises:
        UnreachableError: the node cannot be reached.
        HostFailedError: it can, and cannot ask.
    """
    completed = connections.run(target(through), script("etcd", {"METHOD": method, "URL": url, "BODY": body}))
    checked(through, completed.exit_status, completed.stderr)
    answer = Answer(completed.stdout)
    return int(answer.one("code") or 0), answer.one("body")
