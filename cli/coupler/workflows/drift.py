"""How a live node differs from the published document: files, units, drop-ins, programs, commit. Changes nothing."""

from __future__ import annotations

import base64
import difflib
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.cloudinit.plan import ENVIRONMENT_FILE
from coupler.cloudinit.substitute import addresses
from coupler.cloudinit.unitfile import is_unit_name
from coupler.workflows.machine import Kind, Machine, machine
from coupler.workflows.run import checked, target
from coupler.workflows.script import Answer, script

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from coupler.adapters.ssh import Connections
    from coupler.cloudinit.grammar import Lineage
    from coupler.model import Node
    from coupler.result import Json
    from coupler.workflows.machine import File, Unit

ARTIFACTS = "/etc/coupler/artifacts"
"""The list of programs, a file of the document."""
_PROPERTIES = (
    *("LoadState", "ActiveState", "UnitFileState", "ConditionResult", "ConditionTimestampMonotonic"),
    *("Type", "RemainAfterExit"),
)
_NO_FILE = {"missing": "is missing", "other": "is no file", "": "could not be looked at"}
_HOSTS = re.compile(r"127\.0\.0\.1 \S+\n")
_ON = {"active", "activating", "reloading", "refreshing"}
_STARTS = {"start", "restart", "reload-or-restart"}


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the document has it; `diff` are the lines of a unified diff, where there is one."""

    what: str
    name: str
    text: str
    diff: tuple[str, ...] = ()

    def data(self) -> Json:
        """Return it as JSON-serialisable data."""
        return {"what": self.what, "name": self.name, "text": self.text, "diff": list(self.diff)}


@dataclass(frozen=True)
class Drift:
    """What differs on a node, and what it waits for, which is no difference."""

    node: str
    applied: str
    differences: tuple[Difference, ...]
    waiting: tuple[str, ...]

    def data(self) -> Json:
        """Return it as JSON-serialisable data."""
        return {
            "node": self.node,
            "applied": self.applied or None,
            "differences": [difference.data() for difference in self.differences],
            "waiting": list(self.waiting),
        }


@dataclass(frozen=True)
class Program:
    """A line of the list of programs; `sha256` is the program's own sum, None where the sum is its archive's."""

    name: str
    version: str
    target: str
    sha256: str | None


def ask(connections: Connections, node: Node, document: str, lineage: Lineage, commit: str) -> Drift:
    """Compare a node with the document that is published as `commit`.

    Raises:
        UnreachableError: the node does not answer.
        HostFailedError: it refuses us, or the question failed on it.
    """
    expected = machine(document, lineage, _addresses(connections, node), node.name)
    programs = programs_of(expected)
    completed = connections.run(target(node), question(expected, programs))
    checked(node, completed.exit_status, completed.stderr)
    return compare(node.name, commit, expected, programs, Answer(completed.stdout))


def question(expected: Machine, programs: Sequence[Program]) -> str:
    """Return the script that asks a node how it is beside what is expected."""
    lines = [
        f"{index} {'-' if _is_merged(file) else _sha256(file.content)} yes {file.path}"
        for index, file in enumerate(expected.files.values())
    ]
    lines += [f"{program.name} {program.sha256} no {program.target}" for program in programs if program.sha256]
    files = base64.b64encode("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")).decode()
    units = [*expected.units, *_units_with_drop_ins(expected)]
    names = " ".join(dict.fromkeys(name for name in units if is_unit_name(name)))
    return script("drift", {"FILES": files, "UNITS": names, "PROPERTIES": ",".join(_PROPERTIES)})


def compare(node: str, commit: str, expected: Machine, programs: Sequence[Program], answer: Answer) -> Drift:
    """Return what the answer of a node says about it, beside what is expected."""
    applied = answer.one("applied")
    found = dict(line.split(" ", 1) for line in answer.all("file") if " " in line)
    differences = [
        *([] if applied == commit else [_behind(applied, commit)]),
        *_files(node, expected, found),
        *_drop_ins(expected, answer.all("drop_in")),
        *_units(expected, _properties(answer.all("unit"))),
        *_programs(programs, answer.all("artifact"), found),
    ]
    waiting = tuple(line.removeprefix("waiting ") for line in answer.all("artifact") if line.startswith("waiting "))
    return Drift(node, applied, tuple(differences), waiting)


def programs_of(expected: Machine) -> tuple[Program, ...]:
    """Return the programs that a document lists."""
    listed = expected.files.get(ARTIFACTS)
    rows = [line.split() for line in (listed.content if listed else "").splitlines() if not line.startswith("#")]
    return tuple(
        Program(row[0], row[1], row[4], row[2] if row[3] == "-" and row[2] != "-" else None)
        for row in rows
        if len(row) >= 5  # noqa: PLR2004 - the columns before the URLs
    )


def redacted(text: str) -> str:
    """Return lines of a node without what looks like a secret: passwords in URLs, tokens, private keys."""
    text = re.sub(
        r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", "(a private key)", text
    )
    text = re.sub(r"(://[^/\s:@]*):[^/\s@]+@", r"\1:…@", text)
    return re.sub(r"(?i)((?:password|passwd|passphrase|secret|token|api[-_]?key)\w*\"?\s*[=:]\s*)\S+", r"\1…", text)


def _addresses(connections: Connections, node: Node) -> dict[str, str]:
    """Return the address variables with which the node fills in a document."""
    completed = connections.run(target(node), f"cat {ENVIRONMENT_FILE} 2>/dev/null || true\n")
    return addresses(dict(line.split("=", 1) for line in completed.stdout.splitlines() if "=" in line))


def _behind(applied: str, commit: str) -> Difference:
    return Difference(
        "commit", commit[:12], f"is published, and {f'commit {applied[:12]}' if applied else 'none'} is applied"
    )


def _sha256(content: str) -> str:
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()


def _is_merged(file: File) -> bool:
    """Return whether only the document's lines count: the rest of the file is the machine's own."""
    return file.merged or file.path in {ENVIRONMENT_FILE, "/etc/hosts"}


def _files(node: str, expected: Machine, found: Mapping[str, str]) -> Iterator[Difference]:
    for index, file in enumerate(expected.files.values()):
        what = "drop-in" if file.kind is Kind.DROP_IN else str(file.kind)
        state = found.get(str(index), "")
        if state in _NO_FILE:
            yield Difference(what, file.path, _NO_FILE[state])
            continue
        sum_, mode, *owners, content = [*state.split(" "), ""][:7]
        problems = list(_attributes(file, int(mode, 8), owners))
        diff: tuple[str, ...] = ()
        if not _same(file, sum_, text := _decoded(content)):
            problems.insert(0, "has another content")
            diff = _unified(node, file, text)
        if problems:
            yield Difference(what, file.path, ", ".join(problems), diff)


def _decoded(content: str) -> str:
    return base64.b64decode(content).decode(errors="replace")


def _same(file: File, sha256: str, text: str) -> bool:
    """Return whether a content is what the document makes of the file on a machine."""
    if file.path == "/etc/hosts" and _HOSTS.fullmatch(text):
        return True
    if _is_merged(file):
        return set(file.content.splitlines()) <= set(text.splitlines())
    return sha256 == _sha256(file.content)


def _unified(node: str, file: File, text: str) -> tuple[str, ...]:
    """Return how the node's content differs; of a merged file, only the document's own lines are looked for."""
    if _is_merged(file):
        there = set(text.splitlines())
        return tuple(f"-{line}" for line in file.content.splitlines() if line not in there)
    lines = difflib.unified_diff(file.content.splitlines(), text.splitlines(), "published", node, lineterm="")
    return tuple(redacted("\n".join(lines)).splitlines())


def _attributes(file: File, mode: int, owners: Sequence[str]) -> Iterator[str]:
    if mode != file.mode:
        yield f"has mode {mode:04o}, not {file.mode:04o}"
    user, group, uid, gid = owners
    wanted_user, _, wanted_group = file.owner.replace(".", ":", 1).partition(":")
    if (wanted_user or "root") not in {user, uid} or (wanted_group and wanted_group not in {group, gid}):
        yield f"belongs to {user}:{group}, not {file.owner or 'root'}"


def _units_with_drop_ins(expected: Machine) -> Iterator[str]:
    """Yield the units for which the document writes drop-ins as plain files."""
    for path in expected.files:
        if match := re.fullmatch(r"/(?:etc|run)/systemd/system/([^/]+)\.d/[^/]+\.conf", path):
            yield match[1]


def _drop_ins(expected: Machine, paths: Sequence[str]) -> Iterator[Difference]:
    for path in dict.fromkeys(paths):
        if path not in expected.files:
            yield Difference("drop-in", path, "is not in the document")


def _properties(lines: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the properties of each unit, from lines `UNIT PROPERTY=VALUE`."""
    units: dict[str, dict[str, str]] = {}
    for line in lines:
        unit, _, assignment = line.partition(" ")
        name, _, value = assignment.partition("=")
        units.setdefault(unit, {})[name] = value
    return units


def _units(expected: Machine, properties: Mapping[str, Mapping[str, str]]) -> Iterator[Difference]:
    for name, unit in expected.units.items():
        if name in properties:
            problems = [*_installed(unit, properties[name]), *_running(unit, properties[name])]
            if problems:
                yield Difference("unit", name, ", ".join(problems))


def _installed(unit: Unit, now: Mapping[str, str]) -> Iterator[str]:
    """Yield how the links of a unit differ from what the document asks for."""
    state = now.get("UnitFileState", "")
    masked = state.startswith("masked") or now.get("LoadState") == "masked"
    if masked != unit.masked:
        yield "is masked, and the document does not mask it" if masked else "is not masked, and the document masks it"
    elif not masked and unit.enabled and now.get("LoadState") == "not-found":
        yield "is not there, and the document enables it"
    elif not masked and unit.enabled and state in {"disabled", "bad", ""}:
        yield "is disabled, and the document enables it"
    elif unit.is_ours and not unit.enabled and state.startswith("enabled"):
        yield "is enabled, and the document does not enable it"


def _running(unit: Unit, now: Mapping[str, str]) -> Iterator[str]:
    """Yield how a unit's state differs. One that its conditions hold back is as it should be."""
    state = now.get("ActiveState", "")
    stops, starts = unit.commands[-1:] == ("stop",), unit.enabled or bool(_STARTS & set(unit.commands))
    if now.get("LoadState") != "loaded" or unit.masked:
        return
    if stops and state in _ON:
        yield "is active, and the document stops it"
    if stops or not starts or state in _ON:
        return
    if state == "failed":
        yield "has failed"
    elif not _is_over(now) and not _is_held_back(unit, now):
        yield f"is {state}, and the document starts it"


def _is_over(now: Mapping[str, str]) -> bool:
    """Return whether a unit is inactive when it has done its work."""
    return now.get("Type") == "oneshot" and now.get("RemainAfterExit") != "yes"


def _is_held_back(unit: Unit, now: Mapping[str, str]) -> bool:
    """Return whether a condition skipped the last start.

    systemd forgets that of an inactive unit to which nothing refers: then a unit of the image, whose conditions the
    document does not know, gets the benefit of the doubt, and so does one that has conditions.
    """
    remembered = now.get("ConditionTimestampMonotonic", "0") != "0"
    return now.get("ConditionResult") == "no" if remembered else bool(unit.conditions) or not unit.is_ours


def _programs(programs: Sequence[Program], artifacts: Sequence[str], found: Mapping[str, str]) -> Iterator[Difference]:
    """Yield what differs in programs: another version than listed, or a file that is not the one that was fetched."""
    reported = {words[1]: words for line in artifacts if len(words := line.split(" ", 3)) > 2}  # noqa: PLR2004
    for program in programs:
        state, _, version = (reported.get(program.name) or ["", "", ""])[:3]
        if not state:
            yield Difference("program", program.name, f"{program.version} is listed, and the node does not know of it")
        elif version != program.version:
            yield Difference("program", program.name, f"{program.version} is listed, and the node has {version}")
        elif state == "installed" and program.sha256 and found.get(program.name, "").split(" ")[0] != program.sha256:
            yield Difference("program", program.name, f"{program.target} is not the program that was installed")
