"""What the decoders of both lineages share: walking nodes, following aliases, weak values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from coupler.cloudinit.golang import format_value, quote
from coupler.cloudinit.grammar import Kind, Lineage, Type
from coupler.cloudinit.parse import MAX_DEPTH, Document, Node, NodeKind
from coupler.cloudinit.scalars import Resolved, resolve
from coupler.cloudinit.yamlport import YamlError

if TYPE_CHECKING:
    from collections.abc import Iterator

NEVER = object()
"""A scalar that cannot be a value of the wanted type."""

_ZERO: dict[Kind, Any] = {Kind.STRING: "", Kind.INT: 0, Kind.FLOAT: 0.0, Kind.BOOL: False}
_MERGE_WANTS_MAP = "map merge requires map or sequence of maps as the value"
_MAX_DECODED = 2_000_000
"""How many values one document may decode to: aliases of aliases can make billions from a few lines."""


def zero(wanted: Type) -> Any:
    """Return the value of a key that is not in the document."""
    if wanted.kind is Kind.STRUCT:
        return {key.name: zero(key.type) for key in wanted.keys}
    return [] if wanted.kind is Kind.SLICE else _ZERO[wanted.kind]


class Decoder(ABC):
    """What both lineages share. The differences are in the abstract methods."""

    lineage: Lineage
    anchor_word: str

    def __init__(self, document: Document) -> None:
        self.document = document
        self.open_aliases: set[object] = set()
        self.decoded = 0
        self.depth = 0
        self.through_alias = 0

    def finish(self) -> None:  # noqa: B027 - one lineage collects nothing
        """Raise what was collected."""

    def mismatch(self, node: Node, wanted: str) -> None:  # noqa: B027 - one lineage passes over it
        """Note that a node's value is not of the wanted type."""

    @abstractmethod
    def null(self, wanted: Type, current: Any) -> tuple[bool, Any]:
        """Return (whether a value came of null, the value)."""

    @abstractmethod
    def scalar(self, resolved: Resolved, text: str, wanted: Type) -> Any:
        """Return a scalar as a value of the wanted type, NEVER if it cannot be one."""

    @abstractmethod
    def typed_mapping(self, node: Node, wanted: Type, target: dict[str, Any]) -> bool:
        """Decode a mapping into a section; return whether it was one."""

    @abstractmethod
    def weak_mapping(self, node: Node, target: dict[Any, Any]) -> None:
        """Decode a mapping into a dict of `MapKey`."""

    @abstractmethod
    def anchor(self, node: Node) -> Node:
        """Return the node that an alias means."""

    def count(self) -> None:
        """Count a value; refuse a document that decodes to far more than it is."""
        self.decoded += 1
        self.through_alias += bool(self.open_aliases)
        if self.decoded > _MAX_DECODED:
            raise YamlError("document contains excessive aliasing")

    @contextmanager
    def entered(self, node: Node) -> Iterator[Node]:
        """Go into a node, through an alias to what it means. Raises YamlError for one that contains itself."""
        if self.depth > MAX_DEPTH:
            raise YamlError(f"exceeded max depth of {MAX_DEPTH}")
        target = self.anchor(node) if node.kind is NodeKind.ALIAS else node
        if node.kind is NodeKind.ALIAS:
            if target in self.open_aliases:
                raise YamlError(f"{self.anchor_word} '{node.value}' value contains itself")
            self.open_aliases.add(target)
        self.depth += 1
        yield target
        self.depth -= 1
        if node.kind is NodeKind.ALIAS:
            self.open_aliases.discard(target)

    def typed(self, node: Node, wanted: Type, current: Any) -> tuple[bool, Any]:
        """Return (whether a value came of it, the value). A section is changed in place."""
        with self.entered(node) as target:
            self.count()
            if target.kind is NodeKind.SCALAR:
                return self._typed_scalar(target, wanted, current)
            if target.kind is NodeKind.SEQUENCE and wanted.kind is Kind.SLICE:
                return True, self.typed_sequence(target, wanted, current)
            if target.kind is NodeKind.MAPPING and wanted.kind is Kind.STRUCT:
                return self.typed_mapping(target, wanted, current), current
            if target.kind is NodeKind.SEQUENCE or not self.duplicates(target):
                self.mismatch(target, wanted.name)
            return False, current

    @abstractmethod
    def duplicates(self, node: Node) -> bool:
        """Note the keys that a mapping has twice, if the lineage minds; return whether there are any."""

    def typed_sequence(self, node: Node, wanted: Type, current: list[Any]) -> list[Any]:
        """Return a list's elements; those that came to nothing are left out."""
        items = self.start_of_list(current)
        for child in node.children:
            good, value = self.typed(child, wanted.item, zero(wanted.item))
            if good:
                items.append(value)
        return items

    @abstractmethod
    def start_of_list(self, current: list[Any]) -> list[Any]:
        """Return the list that the elements are added to; `current` is what an equal key before gave."""

    def _typed_scalar(self, node: Node, wanted: Type, current: Any) -> tuple[bool, Any]:
        resolved = resolve(node, self.lineage)
        if resolved.value is None:
            return self.null(wanted, current)
        value = self.scalar(resolved, node.value, wanted)
        if value is NEVER:
            self.mismatch(node, wanted.name)
            return False, current
        return True, value

    def weak(self, node: Node) -> Any:
        """Return a node as a plain value."""
        with self.entered(node) as target:
            self.count()
            if target.kind is NodeKind.SCALAR:
                return resolve(target, self.lineage).value
            if target.kind is NodeKind.SEQUENCE:
                return [self.weak(child) for child in target.children]
            mapping: dict[Any, Any] = {}
            self.weak_mapping(target, mapping)
            return mapping

    def weak_key(self, node: Node) -> MapKey:
        """Return the key of a plain mapping. Raises YamlError for a list or a mapping as a key."""
        key = self.weak(node)
        if isinstance(key, dict | list):
            raise YamlError(f"invalid map key: {go_literal(key, self.lineage)}")
        return MapKey(key)

    def merged(self, value: Node | None) -> list[Node]:
        """Return the mappings, or aliases of mappings, that a merge key's value names, in order."""
        if value is None:
            return []
        parts = value.children if value.kind is NodeKind.SEQUENCE else [value]
        for part in parts:
            target = self.anchor(part) if part.kind is NodeKind.ALIAS else part
            if target.kind is not NodeKind.MAPPING:
                raise YamlError(_MERGE_WANTS_MAP)
        return parts


class MapKey:
    """A key of a weakly typed mapping. Unlike Python, Go keeps 1, 1.0 and true apart."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MapKey) and type(other.value) is type(self.value) and other.value == self.value

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))


def is_merge(node: Node) -> bool:
    """Return whether a key is the merge key `<<`."""
    return (
        node.kind is NodeKind.SCALAR and node.value == "<<" and (node.plain if not node.tag else node.tag == "!!merge")
    )


def go_map_type(mapping: dict[MapKey, Any], lineage: Lineage) -> str:
    """Return the Go type of a plain mapping: Flatcar's decoder makes a simpler one where all keys are strings."""
    strings = lineage is Lineage.FLATCAR and all(isinstance(key.value, str) for key in mapping)
    return f"map[{'string' if strings else 'interface {}'}]interface {{}}"


def go_literal(value: Any, lineage: Lineage) -> str:
    """Return a plain value as `%#v` prints it, near enough for an error message."""
    match value:
        case dict():
            pairs = (f"{go_literal(key.value, lineage)}:{go_literal(item, lineage)}" for key, item in value.items())
            return f"{go_map_type(value, lineage)}{{{', '.join(sorted(pairs))}}}"
        case list():
            return f"[]interface {{}}{{{', '.join(go_literal(item, lineage) for item in value)}}}"
        case None:
            return "interface {}(nil)"
        case str():
            return quote(value)
    return format_value(value)


def truncate(value: float) -> int:
    """Return a number without its fraction, as a 64-bit integer."""
    return -(2**63) if math.isnan(value) or value < -(2**63) else int(value)
