"""What a cloud-config consists of, entry by entry, and what differs between two of them.

An entry is what a person would name: a file, a unit, a drop-in, a setting such as `coreos.update.group`, or a row of
the table of nodes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from coupler.model.source import SourceError, parse
from coupler.workflows.conditions import conditions_of, roles_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

NODE_TABLE = "/etc/coupler/nodes"
"""The table of nodes, a file of the document; its rows are entries of their own."""
ARTIFACTS = "/etc/coupler/artifacts"
"""The list of programs, a file of the document; a row begins with name and version."""

Kind = Literal["added", "changed", "removed"]
What = Literal["file", "unit", "drop-in", "node", "setting"]
Key = tuple[What, str]

_VERBS: Mapping[Kind, str] = {"changed": "change", "added": "add", "removed": "remove"}
_MOST_NAMED = 3
"""So many entries of a kind does a summary name; the others it counts."""


@dataclass(frozen=True)
class Entry:
    """One entry of a document: its text, and its other keys (`permissions`, `enable`, `command`, …) as written.

    A file is named by its path, a drop-in `UNIT.d/NAME`. `roles`: a node without any of them does not run the unit;
    empty for what concerns every node.
    """

    content: str
    details: Mapping[str, str] = field(default_factory=dict)
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """An entry that is in one document only, or differs. `roles`: whom it concerns; empty means every node."""

    kind: Kind
    what: What
    name: str
    roles: tuple[str, ...] = ()

    def data(self) -> dict[str, Any]:
        """Return it as JSON-serialisable data."""
        return {"kind": self.kind, "what": self.what, "name": self.name, "roles": list(self.roles)}


def entries(document: str) -> dict[Key, Entry]:
    """Return the entries of a cloud-config by what they are and their name, in the document's order.

    A text that is no YAML mapping has none: no node would take it.
    """
    try:
        data = parse(document, "cloud-config.yaml").data
    except SourceError:
        return {}
    found: dict[Key, Entry] = {}
    if isinstance(data, dict):
        for key, entry in _entries(data):
            found[key] = _joined(found[key], entry) if key in found else entry
    return found


def changes(old: str | None, new: str) -> tuple[Change, ...]:
    """Return what differs between two documents, in the order of `new`, then what it no longer has.

    `old` is None where there is none yet: everything is added.
    """
    before, after = entries(old or ""), entries(new)
    differ = [
        Change("changed" if key in before else "added", *key, _concerned(before.get(key), entry))
        for key, entry in after.items()
        if before.get(key) != entry
    ]
    gone = [Change("removed", *key, before[key].roles) for key in before if key not in after]
    return (*differ, *gone)


def leap(old: str | None, new: str) -> tuple[str, str] | None:
    """Return the API server's versions in two documents where the new one skips a minor version, or else None.

    Its data would be read by a version that may no longer know what an older one wrote
    (https://kubernetes.io/releases/version-skew-policy/: it goes up by one minor version at a time).
    """
    before, after = _api_server(old or ""), _api_server(new)
    was, will_be = (re.match(r"1\.(\d+)\.", version) for version in (before, after))
    skips = was and will_be and int(will_be[1]) - int(was[1]) > 1
    return (before, after) if skips else None


def _api_server(document: str) -> str:
    listed = entries(document).get(("file", ARTIFACTS))
    rows = [line.split() for line in listed.content.splitlines()] if listed else []
    return next((row[1] for row in rows if row[0] == "kube-apiserver"), "")


def summary(changes: Iterable[Change]) -> str:
    """Return one short line, such as 'change etcd.service (role etcd); add node-4', for a commit's subject."""
    names: dict[Kind, list[str]] = {kind: [] for kind in _VERBS}
    for change in changes:
        roles = f" ({'role' if len(change.roles) == 1 else 'roles'} {', '.join(change.roles)})" if change.roles else ""
        names[change.kind].append(change.name + roles)
    parts = [f"{_VERBS[kind]} {_some(of_kind)}" for kind, of_kind in names.items() if of_kind]
    return "; ".join(parts) or "no entry differs"


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _concerned(old: Entry | None, new: Entry) -> tuple[str, ...]:
    """Return the roles that a change concerns: where either document has the unit everywhere, every node."""
    if old is None or old.roles == new.roles:
        return new.roles
    return tuple(dict.fromkeys((*old.roles, *new.roles))) if old.roles and new.roles else ()


def _joined(first: Entry, second: Entry) -> Entry:
    """Return what stands in a document twice as one entry, so that a change of either is a change."""
    details = {key: f"{first.details.get(key, '')} {second.details.get(key, '')}" for key in second.details}
    return Entry(first.content + second.content, {**first.details, **details}, first.roles or second.roles)


def _entries(data: Mapping[str, Any]) -> Iterator[tuple[Key, Entry]]:
    for key, value in data.items():
        if key == "write_files":
            for file in _mappings(value):
                yield from _file(file)
        elif key == "users":
            for user in _mappings(value):
                yield ("setting", f"users.{user.get('name')}"), Entry(_text(user))
        elif key == "coreos" and isinstance(value, dict):
            for unit in _mappings(value.get("units")):
                yield from _unit(unit)
            yield from _settings("coreos", {name: section for name, section in value.items() if name != "units"})
        else:
            yield from _settings(key, value)


def _file(file: Mapping[str, Any]) -> Iterator[tuple[Key, Entry]]:
    path, content = _text(file.get("path")), _text(file.get("content"))
    rest = {key: _text(value) for key, value in file.items() if key not in {"path", "content"}}
    if path != NODE_TABLE:
        yield ("file", path), Entry(content, rest)
        return
    lines = content.splitlines()
    rows = {line.split()[0]: line for line in lines if line.split() and not line.startswith("#")}
    others = set(lines) - set(rows.values())
    yield ("file", path), Entry("\n".join(line for line in lines if line in others), rest)
    for name, row in rows.items():
        yield ("node", name), Entry(row)


def _unit(unit: Mapping[str, Any]) -> Iterator[tuple[Key, Entry]]:
    name, content = _text(unit.get("name")), _text(unit.get("content"))
    drop_ins = [
        (_text(drop_in.get("name")), _text(drop_in.get("content"))) for drop_in in _mappings(unit.get("drop_ins"))
    ]
    roles = roles_of(conditions_of([content, *(text for _, text in sorted(drop_ins))]))
    rest = {key: _text(value) for key, value in unit.items() if key not in {"name", "content", "drop_ins"}}
    if content or rest or not drop_ins:
        yield ("unit", name), Entry(content, rest, roles)
    for drop_in, text in drop_ins:
        yield ("drop-in", f"{name}.d/{drop_in}"), Entry(text, {}, roles)


def _settings(name: str, value: object) -> Iterator[tuple[Key, Entry]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _settings(f"{name}.{key}", inner)
    else:
        yield ("setting", name), Entry(_text(value))


def _mappings(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    """Return a scalar's text; anything else as JSON; nothing as an empty text."""
    if value is None:
        return ""
    return str(value) if isinstance(value, str) else json.dumps(value, sort_keys=True)
