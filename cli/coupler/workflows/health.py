"""What `coupler-health` on the nodes says of each component, and what that comes to for a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coupler.model.health import components, components_of
from coupler.result import Json, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from coupler.model import Cluster, Node
    from coupler.model.health import Component
    from coupler.workflows.report import Report

_SHOWN = 4  # names of nodes in one line


class State(StrEnum):
    """How a component is; `waiting` is what lacks a program."""

    OK = "ok"
    WAITING = "waiting"
    BAD = "bad"


@dataclass(frozen=True)
class Probe:
    """What a node says of one of its components, with the reason."""

    component: str
    state: State
    reason: str = ""

    def __str__(self) -> str:
        """Return it as part of a sentence."""
        return f"{self.component}: {self.reason or self.state}"

    def data(self) -> Json:
        """Return it as JSON-serialisable data."""
        return {"state": str(self.state), "reason": self.reason}


def read_probes(lines: Iterable[str]) -> dict[str, Probe]:
    """Return the probes that lines of `coupler-health` hold, by component. What is no such line counts for nothing."""
    found = {}
    for line in lines:
        component, _, rest = line.partition(" ")
        state, _, reason = rest.partition(" ")
        if state in set(State):
            found[component] = Probe(component, State(state), reason.strip())
    return found


def bad(report: Report, *, vital: Iterable[Component] | None = None) -> list[Probe]:
    """Return what is bad on a node, in the order in which components depend on each other; of `vital` only what is."""
    names = None if vital is None else {component.name for component in vital if component.vital}
    return [
        probe
        for probe in report.health.values()
        if probe.state is State.BAD and (names is None or probe.component in names)
    ]


def sentence(probes: Sequence[Probe]) -> str:
    """Return the first of these with its reason, since others may follow from it, and the names of those."""
    others = ", ".join(probe.component for probe in probes[1:])
    return "".join(map(str, probes[:1])) + (f"; and not well: {others}" if others else "")


class Patience:
    """For how long each component of a node has been bad with no other's help: what its `patience` is held against.

    Its time runs while nothing that must be healthy before it is bad. Times are seconds of a monotonic clock.
    """

    def __init__(self, parts: Iterable[Component]) -> None:
        self._parts = {component.name: component for component in parts}
        self._since: dict[str, float] = {}

    def overdue(self, report: Report, now: float) -> list[Probe]:
        """Return what is bad for longer than it may be. To be told of every report, in order."""
        ills = {probe.component: probe for probe in bad(report)}
        alone = [name for name in ills if name in self._parts and not ills.keys() & set(self._parts[name].after)]
        self._since = {name: self._since.get(name, now) for name in alone}
        return [ills[name] for name, since in self._since.items() if now - since > self._parts[name].patience]


@dataclass(frozen=True)
class Tally:
    """How a component is over the cluster: the nodes where it is well, waits, is bad, and those that say nothing."""

    component: str
    ok: tuple[str, ...]
    waiting: tuple[str, ...]
    bad: tuple[str, ...]
    unknown: tuple[str, ...]

    def row(self) -> tuple[str, ...]:
        """Return it as a row of the table for a person."""
        of = len(self.ok) + len(self.waiting) + len(self.bad) + len(self.unknown)
        return (
            self.component,
            f"{len(self.ok)} of {of}",
            *(_names(n) or "-" for n in (self.waiting, self.bad, self.unknown)),
        )

    def data(self) -> Json:
        """Return it as JSON-serialisable data."""
        return {key: value if isinstance(value, str) else list(value) for key, value in vars(self).items()}


def tallies(cluster: Cluster, nodes: Sequence[Node], reports: Mapping[str, Report]) -> list[Tally]:
    """Return how each component is on those of the nodes that run it."""
    runs = {node.name: {component.name for component in components_of(cluster, node)} for node in nodes}
    result = []
    for component in components(cluster):
        states: dict[State | None, list[str]] = {None: [], **{state: [] for state in State}}
        for node in nodes:
            if component.name in runs[node.name]:
                probe = reports[node.name].health.get(component.name) if node.name in reports else None
                states[probe.state if probe else None].append(node.name)
        if any(states.values()):
            order = (State.OK, State.WAITING, State.BAD, None)
            result.append(Tally(component.name, *(tuple(states[state]) for state in order)))
    return result


def tallies_table(found: Iterable[Tally]) -> str:
    """Return them as a table for a person."""
    return table(("COMPONENT", "OK", "WAITING", "BAD", "UNKNOWN"), (tally.row() for tally in found))


def remarks(reports: Iterable[Report]) -> list[str]:
    """Return a line for each reason for which components are bad or wait, with the nodes where it is so.

    Without those whose own program is missing: that is told of their units.
    """
    nodes_of: dict[tuple[State, str, str], list[str]] = {}
    for report in reports:
        for probe in report.health.values():
            own = any(probe.reason.startswith(f"{artifact}: ") for artifact in report.waiting)
            if probe.state is State.BAD or (probe.state is State.WAITING and not own):
                nodes_of.setdefault((probe.state, probe.component, probe.reason), []).append(report.node)
    groups: dict[tuple[State, str, tuple[str, ...]], list[str]] = {}
    for (state, component, reason), nodes in nodes_of.items():
        groups.setdefault((state, reason, tuple(nodes)), []).append(component)
    lines = [
        (state, f"{state}: {', '.join(names)} on {_names(nodes)}: {reason}")
        for (state, reason, nodes), names in groups.items()
    ]
    return [line for wanted in (State.BAD, State.WAITING) for state, line in lines if state is wanted]


def _names(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
    return ", ".join(nodes[:_SHOWN]) + more
