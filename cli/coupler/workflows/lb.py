"""`cluster lb`: what the registrators on the nodes with the role lb have and do, asked over SSH.

Each answers for its own node. Where they disagree, that is shown: it passes by itself, or a node has trouble.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from coupler.adapters.ssh import Connections
from coupler.errors import CouplerError, ExitCode, HostFailedError, UsageError
from coupler.registrator.asking import explained
from coupler.render.balancer import ADDRESS_LISTEN, ADDRESS_UNIT, CONTROL, LISTEN, REGISTRATOR_UNIT
from coupler.result import HostOutcome, Json, count, json_object, table
from coupler.workflows.run import access, exit_code, limited, outcome_of, target
from coupler.workflows.steps.balance import balancing
from coupler.workflows.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from coupler.adapters.ssh import Completed
    from coupler.model import LoadedCluster, Node

_NAMES = {REGISTRATOR_UNIT: "registrator", ADDRESS_UNIT: "holder of the virtual address"}
_CURL = "curl --silent --show-error --max-time 10 --write-out '\\n%{http_code}'"


@dataclass(frozen=True)
class Answers:
    """What the registrators answered, by node, and the nodes that gave no answer."""

    nodes: tuple[str, ...]
    answers: Mapping[str, Json]
    lost: Mapping[str, HostOutcome]

    @property
    def exit_code(self) -> ExitCode:
        """How the process ends."""
        return exit_code(tuple(self.lost.values()), len(self.nodes))

    @property
    def missing(self) -> list[Json]:
        """The nodes without an answer, as JSON-serialisable data."""
        return [outcome.data() for outcome in self.lost.values()]

    def trouble(self) -> list[str]:
        """Return lines about the nodes without an answer."""
        lines = []
        for outcome in self.lost.values():
            lines.append(f"{outcome.state}: {outcome.host}: {outcome.text}")
            lines += [f"  next: {outcome.next_step}"] if outcome.next_step else []
        return lines

    def where(self, nodes: Sequence[str]) -> str:
        """Return 'all' for every node that answered, else their names."""
        return "all" if len(nodes) == len(self.answers) else ",".join(nodes)


@dataclass(frozen=True)
class VirtualAddress:
    """The address that moves, and what each node says of it."""

    address: str
    found: Answers

    @property
    def holders(self) -> list[str]:
        """The nodes that have it: one, if all is well."""
        return [node for node, state in self.found.answers.items() if state["holds"]]

    def data(self) -> Json:
        """Return it as JSON-serialisable data."""
        nodes = dict(self.found.answers)
        return {"address": self.address, "holders": self.holders, "nodes": nodes, "failed": self.found.missing}

    def lines(self) -> list[str]:
        """Return who has it, and why others could not."""
        lines = [f"{self.address} is at {', '.join(self.holders) or 'no node that answers'}"]
        for node, state in self.found.answers.items():
            if state["tenure"] == "kept":
                lines.append(f"{node}: keeps {self.address}, for etcd does not answer: {state['etcd']}")
            if state["conflict_with"]:
                lines.append(f"{node}: {state['conflict_with']} claims {self.address}, too")
            lines += [f"{node}: could not have {self.address}: {reason}" for reason in state["not_ready_because"]]
        return [*lines, *self.found.trouble()]


@dataclass(frozen=True)
class LbStatus:
    """How each registrator and its balancer are, and who has the virtual address if there is one."""

    found: Answers
    virtual: VirtualAddress | None = None

    @property
    def exit_code(self) -> ExitCode:
        """Done where every node answers and is in step, and one has the virtual address."""
        unready = any(not state["ready"] for state in self.found.answers.values())
        unready = unready or (self.virtual is not None and len(self.virtual.holders) != 1)
        return ExitCode.HOST_FAILED if unready and not self.found.lost else self.found.exit_code

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        keys = ("ready", "not_ready_because", "sources", "balancers", "problems", "drains")
        nodes = {node: {key: state[key] for key in keys} for node, state in self.found.answers.items()}
        virtual = self.virtual.data() if self.virtual else None
        return {"nodes": nodes, "virtual_address": virtual, "failed": self.found.missing}

    def text(self) -> str:
        """Return a table, and what is wrong."""
        rows = [_status_row(node, state) for node, state in self.found.answers.items()]
        head = ("NODE", "READY", "BALANCER", "SOURCES", "ROUTES", "ENDPOINTS", "DRAINING")
        lines = [table(head, rows)] if rows else []
        for node, state in self.found.answers.items():
            lines += [f"{node}: {reason}" for reason in state["not_ready_because"]]
            lines += [f"{node}: {entry['name']}: {entry['error']}" for entry in state["balancers"] if entry["error"]]
            lines += [f"{node}: {entry['name']}: {entry['problem']}" for entry in state["sources"] if entry["problem"]]
            lines += [f"{node}: left out: {_words(problem)}" for problem in state["problems"]]
        lines += self.virtual.lines() if self.virtual else []
        return "\n".join([*lines, *self.found.trouble(), "next: cluster lb list"])


@dataclass(frozen=True)
class Row:
    """One route, the backend that it leads to with its endpoints, and the nodes that have it just so."""

    host: str
    match: str
    backend: str
    endpoints: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class LbList:
    """What is routed where."""

    found: Answers
    rows: tuple[Row, ...]

    @property
    def exit_code(self) -> ExitCode:
        """How the process ends."""
        return self.found.exit_code

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        rows = [vars(row) | {"endpoints": list(row.endpoints), "nodes": list(row.nodes)} for row in self.rows]
        return {"routes": rows, "agreed": self.agreed, "failed": self.found.missing}

    @property
    def agreed(self) -> bool:
        """Whether every node that answered has the same."""
        return all(len(row.nodes) == len(self.found.answers) for row in self.rows)

    def text(self) -> str:
        """Return a table."""
        rows = [
            (row.host, row.match, row.backend, ", ".join(row.endpoints) or "none", self.found.where(row.nodes))
            for row in self.rows
        ]
        lines = [table(("HOST", "PATH", "BACKEND", "ENDPOINTS", "NODES"), rows)] if rows else ["nothing is routed"]
        lines += [] if self.agreed else ["the nodes disagree: cluster lb status says which has trouble"]
        return "\n".join([*lines, *self.found.trouble()])


@dataclass(frozen=True)
class LbExplanation:
    """Which route takes a request, on each node."""

    found: Answers

    @property
    def exit_code(self) -> ExitCode:
        """Done where some node has a backend for it."""
        taken = any(answer["backend"] for answer in self.found.answers.values())
        return self.found.exit_code if taken or self.found.lost else ExitCode.FAILED

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {"nodes": dict(self.found.answers), "failed": self.found.missing}

    def text(self) -> str:
        """Return each explanation once, with the nodes that give it where there are several."""
        nodes_of: dict[str, list[str]] = {}
        for node, answer in self.found.answers.items():
            nodes_of.setdefault(explained(answer), []).append(node)
        lines = []
        for text, nodes in nodes_of.items():
            lines += [f"on {', '.join(nodes)}:", text] if len(nodes_of) > 1 else [text]
        return "\n".join([*lines, *self.found.trouble()])


@dataclass(frozen=True)
class LbDrains:
    """What is taken out of service by hand, on each node."""

    found: Answers

    @property
    def exit_code(self) -> ExitCode:
        """How the process ends."""
        return self.found.exit_code

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {"draining": {n: a["drains"] for n, a in self.found.answers.items()}, "failed": self.found.missing}

    def text(self) -> str:
        """Return a line for each node."""
        lines = [f"{node}: draining {', '.join(a['drains']) or 'nothing'}" for node, a in self.found.answers.items()]
        return "\n".join([*lines, *self.found.trouble(), "next: cluster lb list"])


def lb_status(loaded: LoadedCluster, limit: Sequence[str] = ()) -> LbStatus:
    """Ask each registrator how it is. Raises UsageError where there is none."""
    found = _everywhere(loaded, limit, _state)
    balancer = loaded.cluster.load_balancer
    if not balancer or not balancer.virtual_address:
        return LbStatus(found)
    asked = f"{_CURL} http://{ADDRESS_LISTEN}/state"
    holding = _everywhere(loaded, found.answers, asked, ADDRESS_UNIT) if found.answers else Answers((), {}, {})
    return LbStatus(found, VirtualAddress(str(balancer.virtual_address), holding))


def lb_list(loaded: LoadedCluster, limit: Sequence[str] = ()) -> LbList:
    """Ask each registrator what it routes where. Raises UsageError where there is none."""
    found = _everywhere(loaded, limit, _state)
    nodes_of: dict[tuple[str, str, str, tuple[str, ...]], list[str]] = {}
    for node, state in found.answers.items():
        for route in _routes(state):
            nodes_of.setdefault(route, []).append(node)
    return LbList(found, tuple(Row(*route, tuple(nodes)) for route, nodes in nodes_of.items()))


def lb_explain(loaded: LoadedCluster, host: str, path: str, limit: Sequence[str] = ()) -> LbExplanation:
    """Ask each registrator which route takes a request. Raises UsageError where there is none."""
    query = urlencode({"host": host, "path": path})
    return LbExplanation(_everywhere(loaded, limit, f"{_CURL} 'http://{LISTEN}/explain?{query}'"))


def lb_drain(loaded: LoadedCluster, endpoint: str, limit: Sequence[str] = (), *, undo: bool = False) -> LbDrains:
    """Take an endpoint out of service on every node, or back; its connections may finish.

    `endpoint` is an address, `address:port`, or the key by which its source knows it.

    Raises:
        UsageError: no node knows such an endpoint, or there is no registrator.
    """
    if not undo:
        known = _everywhere(loaded, limit, _state)
        names = {name for state in known.answers.values() for name in _names(state)}
        if known.answers and endpoint not in names:
            some = ", ".join(sorted(name for name in names if ":" in name and not name.startswith("/"))[:5])
            why = f"there are {some}" if some else "there are none"
            raise UsageError(f"no endpoint is called {endpoint}", why=why, next_step="cluster lb list")
    method, name = ("DELETE" if undo else "PUT"), quote(endpoint, safe="")
    return LbDrains(
        _everywhere(loaded, limit, f"{_CURL} -X {method} --unix-socket {CONTROL} 'http://lb/drains/{name}'")
    )


_state = f"{_CURL} http://{LISTEN}/state"


def _everywhere(loaded: LoadedCluster, limit: Iterable[str], script: str, unit: str = REGISTRATOR_UNIT) -> Answers:
    cluster = loaded.cluster
    nodes = balancing(limited(cluster, tuple(limit))) if cluster.load_balancer else ()
    if not nodes:
        raise UsageError(
            "no node runs the load balancer",
            why="cluster.yaml has no load_balancer" if not cluster.load_balancer else "none of them has the role lb",
            next_step="add `load_balancer: {kind: haproxy}` and give a node the role lb, then run `cluster init`",
        )
    answers: dict[str, Json] = {}
    lost: dict[str, HostOutcome] = {}
    by_target = {target(node): node for node in nodes}
    with Connections(access(cluster, Workspace.beside(loaded.path))) as connections:

        def ask(where: Any) -> None:
            node = by_target[where]
            try:
                answers[node.name] = _answer(node, connections.run(where, script), unit)
            except CouplerError as error:
                lost[node.name] = outcome_of(node.name, error)

        connections.everywhere(by_target, ask)
    names = tuple(node.name for node in nodes)
    return Answers(names, _in_order(names, answers), _in_order(names, lost))


def _in_order(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _answer(node: Node, completed: Completed, unit: str) -> Json:
    body, _, code = completed.stdout.rpartition("\n")
    answer = json_object(body)
    if code == "200" and answer:
        return answer
    raise HostFailedError(
        f"its {_NAMES[unit]} does not answer" if code == "000" else f"its {_NAMES[unit]} refuses",
        why=body.strip() or completed.stderr.strip() or None,
        next_step=f"see its journal: ssh {node.ssh_user}@{node.ssh_address} journalctl -u {unit}",
        host=node.name,
    )


def _status_row(node: str, state: Json) -> tuple[str, ...]:
    sources = [f"{source['name']}{'' if source['synced'] else ' (not synced)'}" for source in state["sources"]]
    endpoints = [endpoint for backend in state["backends"].values() for endpoint in backend["endpoints"]]
    ready = sum(endpoint["state"] == "ready" for endpoint in endpoints)
    return (
        node,
        "yes" if state["ready"] else "no",
        ",".join(entry["name"] for entry in state["balancers"]),
        ",".join(sources),
        count(len(state["routes"]) + len(state["tcp_routes"]), "route"),
        f"{ready} of {len(endpoints)} ready",
        ",".join(state["drains"]) or "-",
    )


def _routes(state: Json) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    for route in state["routes"]:
        headers = "".join(f" [{name}: {value}]" for name, value in route["headers"].items())
        match = f"{route['path']}{'' if route['exact'] else '*'}{headers}"
        yield route["host"], match, route["backend"], _endpoints(state, route["backend"])
    for route in state["tcp_routes"]:
        yield "-", f"port {route['port']}", route["backend"], _endpoints(state, route["backend"])


def _endpoints(state: Json, backend: str) -> tuple[str, ...]:
    return tuple(f"{_address(e)} {e['state']}" for e in state["backends"][backend]["endpoints"])


def _address(endpoint: Json) -> str:
    address = f"[{endpoint['address']}]" if ":" in endpoint["address"] else endpoint["address"]
    return f"{address}:{endpoint['port']}"


def _names(state: Json) -> Iterator[str]:
    for backend in state["backends"].values():
        for endpoint in backend["endpoints"]:
            yield from (endpoint["uid"], endpoint["address"], _address(endpoint))


def _words(problem: Mapping[str, Any]) -> str:
    return ": ".join(str(value) for value in problem.values() if value)
