"""`cluster preview NODE`: a node before it exists. Nothing is asked of anybody: all of it comes from cluster.yaml."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.errors import ExitCode, UsageError
from coupler.model.problem import did_you_mean
from coupler.result import Json, count
from coupler.workflows.certificates import ENCRYPTION, NODE_FOLDER, authorities, certificates_of
from coupler.workflows.changes import entries
from coupler.workflows.conditions import Fact, Start, Verdict, verdict
from coupler.workflows.machine import File, Kind, Unit, machine
from coupler.workflows.origins import Origins, Provenance
from coupler.workflows.steps.check import check_document, lineage
from coupler.workflows.tree import Row, columns, tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coupler.model import Cluster, LoadedCluster
    from coupler.model import Node as ClusterNode
    from coupler.workflows.conditions import Condition
    from coupler.workflows.machine import Machine

IDENTITY = "/run/coupler/identity.env"
"""What the script coupler-identity leaves on a node for `EnvironmentFile=`."""
_NEEDS = {"ConditionFileIsExecutable": 0o111, "ConditionFileNotEmpty": 0, "ConditionPathExists": 0}
"""The conditions that a file of the document answers, with the mode bits that it must have."""


@dataclass(frozen=True)
class Preview:
    """A node as the document will make it: `variables` as it will find them, None for what only the node can tell."""

    node: str
    machine: Machine
    variables: Mapping[str, str | None]
    verdicts: Mapping[str, Verdict]
    file_origins: Mapping[str, Provenance]
    unit_origins: Mapping[str, Provenance]
    file: str
    exit_code: ExitCode = ExitCode.DONE

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {
            "node": self.node,
            "variables": dict(self.variables),
            "files": [_file_data(file, self.file_origins[file.path]) for file in self.machine.files.values()],
            "units": [self._unit_data(unit) for unit in self.machine.units.values()],
            "operations": [vars(step) for step in self.machine.steps],
        }

    def _unit_data(self, unit: Unit) -> Json:
        found = self.verdicts[unit.name]
        return {
            "name": unit.name,
            "files": [file.path for file in unit.files],
            "enabled": unit.enabled,
            "masked": unit.masked,
            "commands": list(unit.commands),
            "start": str(found.start),
            "reasons": list(found.reasons),
            "conditions": [str(condition) for condition in unit.conditions],
            "origin": self.unit_origins[unit.name].data(),
        }

    def text(self) -> str:
        """Return the tree of files, the units, the operations and the variables."""
        files, units = self.machine.files, self.machine.units
        sections = [
            f"{self.node}: {count(len(files), 'file')} and {count(len(units), 'unit')} from {self.file}",
            "",
            f"variables, in {IDENTITY}",
            *(
                f"  {name}={'(found on the node)' if value is None else value}"
                for name, value in self.variables.items()
            ),
            "",
            "files (← the keys of cluster.yaml that shaped them, with their lines)",
            *tree({path: self._file_cells(file) for path, file in files.items()}),
            "",
            "units, on this node",
            *columns(self._unit_rows()),
            "",
            "operations, in this order",
            *self._operations(),
            "",
            f"next: cluster preview {self.node} PATH (the content of a file or unit), or cluster diff",
        ]
        return "\n".join(sections)

    def _file_cells(self, file: File) -> tuple[str, ...]:
        return f"{file.mode:04o}{f' {file.owner}' if file.owner else ''}", self.file_origins[file.path].text()

    def _unit_rows(self) -> Iterator[Row]:
        """Yield a line for each unit; where it has no file in the tree above, with its origin."""
        for unit in self.machine.units.values():
            origin = "" if unit.files else f" ({self.unit_origins[unit.name].text()})"
            yield Row("  " + unit.name, (_doings(unit), _explained(self.verdicts[unit.name]) + origin))

    def _operations(self) -> Iterator[str]:
        """Yield the operations; those that follow each other on the same thing share a line."""
        lines: list[tuple[list[str], str]] = []
        for step in self.machine.steps:
            if lines and lines[-1][1] == step.to:
                lines[-1] = (list(dict.fromkeys([*lines[-1][0], step.does])), step.to)
            else:
                lines.append(([step.does], step.to))
        yield from (f"  {number:>3}  {', '.join(does)} {to}" for number, (does, to) in enumerate(lines, 1))


@dataclass(frozen=True)
class Shown:
    """The content of one file of a node, or of a unit with its drop-ins."""

    node: str
    name: str
    files: tuple[File, ...]
    origins: Mapping[str, Provenance]
    exit_code: ExitCode = ExitCode.DONE

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        files = [_file_data(file, self.origins[file.path]) for file in self.files]
        return {"node": self.node, "name": self.name, "files": files}

    def text(self) -> str:
        """Return the content; of several files, each below its path, as `systemctl cat` does."""
        if self.name in {file.path for file in self.files}:
            return self.files[0].content.removesuffix("\n")
        return "\n\n".join(f"# {file.path}\n{file.content.rstrip()}" for file in self.files)


def preview(loaded: LoadedCluster, name: str, path: str | None = None) -> Preview | Shown:
    """Return what the node `name` will be; with `path`, the content of one of its files or units.

    Raises:
        UsageError: there is no such node, file or unit.
        ConfigurationError: the nodes would refuse the document.
    """
    cluster = loaded.cluster
    node = node_called(cluster, name)
    document, _ = check_document(loaded)
    made = machine(document, lineage(cluster), hostname=node.name)
    origins = Origins(loaded)
    variables = _variables(document, node.name)
    file_origins = {file.path: origins.of(file.entries) for file in made.files.values()}
    if path is not None:
        return _shown(node.name, path, made, variables, file_origins)
    facts = _Facts(cluster, node, made, str(variables["COUPLER_ROLES"]).split(","))
    return Preview(
        node.name,
        made,
        variables,
        {unit.name: facts.verdict(unit) for unit in made.units.values()},
        file_origins,
        {unit.name: origins.of(unit.entries) for unit in made.units.values()},
        loaded.path.name,
    )


def node_called(cluster: Cluster, name: str) -> ClusterNode:
    """Return the node of that name. Raises UsageError with the nearest name for one that there is not."""
    for node in cluster.nodes:
        if node.name == name:
            return node
    names = [node.name for node in cluster.nodes]
    raise UsageError(
        f"no node is called {name}",
        why=did_you_mean(name, names),
        next_step="`cluster nodes` lists them",
    )


def _shown(
    node: str, name: str, made: Machine, variables: Mapping[str, str | None], origins: Mapping[str, Provenance]
) -> Shown:
    if name == IDENTITY:
        content = "".join(f"{key}={value or ''}\n" for key, value in variables.items())
        return Shown(node, name, (File(IDENTITY, content, 0o644, "", Kind.FILE, ()),), {IDENTITY: Provenance()})
    if name in made.files:
        return Shown(node, name, (made.files[name],), origins)
    if name in made.units and made.units[name].files:
        return Shown(node, name, made.units[name].files, origins)
    names = [*made.files, IDENTITY, *made.units]
    raise UsageError(
        f"{node} has no file or unit {name} from the document",
        why=did_you_mean(name, names),
        next_step=f"`cluster preview {node}` lists them",
    )


def _variables(document: str, node: str) -> dict[str, str | None]:
    """Return what the script coupler-identity will find in the table of nodes."""
    name, address, _, roles, labels, metadata, taints = entries(document)["node", node].content.split()
    return {
        "COUPLER_NODE": name,
        "COUPLER_ADDRESS": address,
        "COUPLER_INTERFACE": None,
        "COUPLER_ROLES": roles,
        "COUPLER_LABELS": labels.removeprefix("-"),
        "COUPLER_METADATA": metadata.removeprefix("-"),
        "COUPLER_TAINTS": taints.removeprefix("-"),
    }


class _Facts:
    """What is known of a node's files before it exists."""

    def __init__(self, cluster: Cluster, node: ClusterNode, made: Machine, roles: list[str]) -> None:
        self._roles = roles
        self._files = made.files
        self._programs = {
            artifact.target: f"{artifact.name} {artifact.version}" for artifact in cluster.artifacts_needed
        }
        own = {certificate.name for certificate in certificates_of(cluster) if certificate.node == node.name}
        self._secrets = {f"/{NODE_FOLDER}/{name}.{kind}" for name in own for kind in ("crt", "key")}
        self._secrets |= {f"/{NODE_FOLDER}/{name}.crt" for name in authorities(cluster)}
        if node in cluster.control_nodes:
            self._secrets.add(f"/{NODE_FOLDER}/{ENCRYPTION}")

    def verdict(self, unit: Unit) -> Verdict:
        """Return whether a unit runs, with the programs that it waits for by name."""
        if unit.masked or unit.commands[-1:] == ("stop",):
            return Verdict(Start.SKIPPED, ("the document masks it" if unit.masked else "the document stops it",))
        found = verdict(unit.conditions, self.of)
        named = (
            f"{reason} ({self._programs[reason]})" if reason in self._programs else reason for reason in found.reasons
        )
        return Verdict(found.start, tuple(named))

    def of(self, condition: Condition) -> Fact:
        """Return what is known of the path that a condition names."""
        if condition.role:
            return Fact.YES if condition.role in self._roles else Fact.NO
        if condition.setting not in _NEEDS:
            return Fact.UNKNOWN
        path, bits = condition.value, _NEEDS[condition.setting]
        if path in self._programs:
            return Fact.LATER
        if path in self._files:
            return Fact.YES if not bits or self._files[path].mode & bits else Fact.NO
        if path == IDENTITY or path in self._secrets:
            return Fact.NO if bits else Fact.YES
        return Fact.UNKNOWN


def _doings(unit: Unit) -> str:
    words = ["mask"] * unit.masked + ["enable"] * unit.enabled + list(unit.commands)
    return ", ".join(words) or "-"


def _explained(found: Verdict) -> str:
    words = {Start.RUNS: "runs", Start.SKIPPED: "skipped: ", Start.WAITS: "waits for ", Start.DEPENDS: "depends on "}
    return words[found.start] + ", ".join(found.reasons)


def _file_data(file: File, origin: Provenance) -> Json:
    return {
        "path": file.path,
        "kind": str(file.kind),
        "mode": f"{file.mode:04o}",
        "owner": file.owner or "root",
        "sha256": hashlib.sha256(file.content.encode(errors="surrogateescape")).hexdigest(),
        "content": file.content,
        "merged": file.merged,
        "origin": origin.data(),
    }
