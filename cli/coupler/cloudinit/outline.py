"""A document as nodes that the grammar names: where each key stands, what its value is, what its key really is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.cloudinit.grammar import CLOUD_CONFIG, Key, Kind, Type
from coupler.cloudinit.parse import MAX_DEPTH, Document, Node, NodeKind

if TYPE_CHECKING:
    from collections.abc import Iterator

_EMPTY = Node(NodeKind.SCALAR, 0, 0, plain=True)


@dataclass(frozen=True)
class Entry:
    """A key in a document: its node, its value's node (aliases followed), what the grammar knows of it, if anything.

    `section` is the mapping that it stands in.
    """

    name: Node
    value: Node
    key: Key | None
    section: Node


class Outline:
    """The keys of a document by the grammar, hyphens taken for underscores; `entries` leaves merge keys aside."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.root = self.follow(document.root) if document.root else _EMPTY

    def follow(self, node: Node) -> Node:
        """Return the node that an alias stands for; for one that leads nowhere, an empty scalar."""
        for _ in range(len(self.document.anchors) + 1):
            if node.kind is not NodeKind.ALIAS:
                return node
            node = node.target or self.document.anchors.get(node.value, _EMPTY)
        return _EMPTY

    def entries(self) -> Iterator[Entry]:
        """Yield every key that stands in a place the grammar knows, in the document's order."""
        yield from self._entries(self.root, CLOUD_CONFIG)

    def _entries(self, node: Node, wanted: Type) -> Iterator[Entry]:
        if wanted.kind is Kind.SLICE and node.kind is NodeKind.SEQUENCE:
            for child in node.children:
                yield from self._entries(self.follow(child), wanted.item)
        if wanted.kind is not Kind.STRUCT or node.kind is not NodeKind.MAPPING:
            return
        for name, value in node.pairs():
            key = wanted.key(name.value.replace("-", "_"))
            entry = Entry(name, self.follow(value), key, node)
            yield entry
            if key is not None:
                yield from self._entries(entry.value, key.type)

    def at(self, node: Node, *path: str) -> Node:
        """Return the value at a path of keys, merged ones included; an empty scalar where there is none."""
        for step in path:
            node = self._value(node, step, MAX_DEPTH) or _EMPTY
        return node

    def _value(self, node: Node, name: str, depth: int) -> Node | None:
        """Return the value of a key: the last one of the mapping itself, else the first that is merged into it."""
        if node.kind is not NodeKind.MAPPING or not depth:
            return None
        found = [value for key, value in node.pairs() if key.value.replace("-", "_") == name]
        if found:
            return self.follow(found[-1])
        merged = [self.follow(value) for key, value in node.pairs() if key.value == "<<"]
        parts = [part for value in merged for part in (value.children if value.kind is NodeKind.SEQUENCE else [value])]
        values = (self._value(self.follow(part), name, depth - 1) for part in parts)
        return next((value for value in values if value is not None), None)

    def items(self, *path: str) -> list[Node]:
        """Return the mappings in the list at a path of keys."""
        node = self.at(self.root, *path)
        items = map(self.follow, node.children if node.kind is NodeKind.SEQUENCE else [])
        return [item for item in items if item.kind is NodeKind.MAPPING]
