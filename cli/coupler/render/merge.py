"""Fragments → one document: mappings are merged, lists are joined, and nothing is written twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from coupler.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

IDENTITY = {"write_files": "path", "units": "name", "users": "name"}
"""The key that names an entry of each list; two fragments must not name the same one."""


@dataclass(frozen=True)
class Fragment:
    """A part of the document: where it comes from, and its YAML (None where the cluster does not need it)."""

    origin: str
    root: yaml.Node | None


def merge(fragments: Iterable[Fragment]) -> yaml.MappingNode:
    """Return the document that the fragments make together.

    Raises:
        ConfigurationError: two of them write the same file, unit, user or scalar; it names both.
    """
    merging = _Merging()
    document = _mapping([])
    for fragment in fragments:
        if isinstance(fragment.root, yaml.MappingNode):
            merging.mapping(document, fragment.root, fragment.origin, ())
    return document


class _Merging:
    def __init__(self) -> None:
        self._origin: dict[tuple[str, ...], str] = {}

    def mapping(self, into: yaml.MappingNode, what: yaml.MappingNode, origin: str, path: tuple[str, ...]) -> None:
        present = {key.value: value for key, value in into.value}
        for key, value in what.value:
            here = (*path, key.value)
            target = present.get(key.value)
            if isinstance(value, yaml.MappingNode) and isinstance(target, yaml.MappingNode | None):
                if target is None:
                    target = _mapping([])
                    into.value.append((key, target))
                self.mapping(target, value, origin, here)
            elif isinstance(value, yaml.SequenceNode) and isinstance(target, yaml.SequenceNode | None):
                self._claim_entries(value.value, origin, here)
                if target is None:
                    target = yaml.SequenceNode("tag:yaml.org,2002:seq", [])
                    into.value.append((key, target))
                target.value.extend(value.value)
            else:
                self._claim(here, origin)
                into.value.append((key, value))

    def _claim_entries(self, entries: Sequence[yaml.Node], origin: str, path: tuple[str, ...]) -> None:
        identity = IDENTITY.get(path[-1])
        for entry in entries:
            if identity and isinstance(entry, yaml.MappingNode):
                names = [value.value for key, value in entry.value if key.value == identity]
                for name in names:
                    self._claim((*path, name), origin)

    def _claim(self, path: tuple[str, ...], origin: str) -> None:
        first = self._origin.setdefault(path, origin)
        if first != origin:
            raise ConfigurationError(
                f"{origin} and {first} both write {path[-1]}",
                why=f"the document can hold {'.'.join(path[:-1]) or 'the key'} '{path[-1]}' only once",
                next_step=f"remove it from {origin}, or add a drop-in or a file of another name",
            )


def _mapping(value: list[tuple[yaml.Node, yaml.Node]]) -> yaml.MappingNode:
    return yaml.MappingNode("tag:yaml.org,2002:map", value)
