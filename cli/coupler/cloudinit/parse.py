"""YAML text to a tree of nodes that keep their source text, tags and lines.

The two lineages' parsers differ in when they notice an unknown alias, and in what `yamlport` has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import yaml

from coupler.cloudinit.grammar import Lineage
from coupler.cloudinit.yamlport import YamlError, events

MAX_DEPTH = 150
"""How deeply collections may nest. No cloud-config comes near; it bounds the recursion of what walks the tree."""

_LONG_TAG = "tag:yaml.org,2002:"


class NodeKind(Enum):
    """Kinds of YAML nodes."""

    SCALAR = auto()
    SEQUENCE = auto()
    MAPPING = auto()
    ALIAS = auto()


@dataclass(eq=False)
class Node:
    """A YAML node. Lines and columns count from 1. A mapping's children are key, value, key, value, …

    `value` is a scalar's text or an alias's name, `tag` the explicit tag in its short form (`!!str`) or empty, `plain`
    whether a scalar was neither quoted nor a block, `index` where the node begins in the text, in characters from 0.
    """

    kind: NodeKind
    line: int
    column: int
    value: str = ""
    tag: str = ""
    plain: bool = False
    index: int = 0
    children: list[Node] = field(default_factory=list)
    target: Node | None = None

    def pairs(self) -> list[tuple[Node, Node]]:
        """Return a mapping's (key, value) pairs."""
        return list(zip(self.children[::2], self.children[1::2], strict=True))


@dataclass(frozen=True)
class Document:
    """The first YAML document of a text; `root` is None if there is none."""

    root: Node | None
    anchors: dict[str, Node]


def parse(text: str, lineage: Lineage) -> Document:
    """Return the first document of a YAML text. Raises YamlError as the lineage's parser would."""
    return _Builder(text, lineage).document()


class _Builder:
    """Builds the tree from events, with a stack instead of recursion."""

    def __init__(self, text: str, lineage: Lineage) -> None:
        self.events = events(text, lineage)
        self.lineage = lineage
        self.anchors: dict[str, Node] = {}

    def document(self) -> Document:
        next(self.events)  # stream start
        start = next(self.events)
        if isinstance(start, yaml.StreamEndEvent):
            return Document(None, {})
        if start.version not in (None, (1, 1)):
            raise YamlError("found incompatible YAML document", start.start_mark.line)
        root = self._tree()
        next(self.events)  # document end
        if self.lineage is Lineage.COREOS:
            next(self.events)  # the old parser looks one event ahead, and notices an error there
        return Document(root, self.anchors)

    def _tree(self) -> Node:
        holder = Node(NodeKind.SEQUENCE, 0, 0)
        stack = [holder]
        while True:
            event = next(self.events)
            if isinstance(event, yaml.CollectionEndEvent):
                stack.pop()
            else:
                node = self._node(event)
                stack[-1].children.append(node)
                if node.kind in (NodeKind.SEQUENCE, NodeKind.MAPPING):
                    if len(stack) > MAX_DEPTH:
                        raise YamlError(f"exceeded max depth of {MAX_DEPTH}", node.line)
                    stack.append(node)
            if len(stack) == 1:
                return holder.children[0]

    def _node(self, event: Any) -> Node:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            return Node(NodeKind.ALIAS, line, column, name, target=self.anchors.get(name))
        node = Node(NodeKind.SCALAR, line, column, tag=_short(event.tag), index=event.start_mark.index)
        if isinstance(event, yaml.ScalarEvent):
            node.value, node.plain = event.value, not event.style
        else:
            node.kind = NodeKind.SEQUENCE if isinstance(event, yaml.SequenceStartEvent) else NodeKind.MAPPING
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node


def _short(tag: str | None) -> str:
    if tag is None or tag == "!":
        return ""
    return f"!!{tag.removeprefix(_LONG_TAG)}" if tag.startswith(_LONG_TAG) else tag
