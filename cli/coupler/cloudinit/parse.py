"""YAML text to a tree of nodes that keep their source text, tags and lines.

The real programs read YAML with two generations of one Go port of libyaml. This module reads events with libyaml
itself (PyYAML's pure parser where the extension is missing) and keeps what tells the two generations apart: when an
unknown alias is noticed, and which line a syntax error names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import yaml

from coupler.cloudinit.golang import to_bytes
from coupler.cloudinit.grammar import Lineage

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
    whether a scalar was neither quoted nor a block.
    """

    kind: NodeKind
    line: int
    column: int
    value: str = ""
    tag: str = ""
    plain: bool = False
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


class YamlError(Exception):
    """Text that the YAML parser or decoder refuses. `line` is what the real program names, 0 if it names none."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {message}" if line else message)
        self.message = message
        self.line = line

    def text(self, lineage: Lineage) -> str:
        """Return the error in the words of the lineage's YAML package."""
        return f"{'YAML error' if lineage is Lineage.COREOS else 'yaml'}: {self}"


def parse(text: str, lineage: Lineage) -> Document:
    """Return the first document of a YAML text. Raises YamlError as the lineage's parser would."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder(yaml.parse(to_bytes(text) or b"\n", Loader=loader), lineage).document()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, lineage) from error
    except yaml.reader.ReaderError as error:
        raise YamlError(
            "control characters are not allowed" if error.encoding == "unicode" else error.reason
        ) from error
    except UnicodeError as error:
        raise YamlError("invalid Unicode character") from error


def _syntax_error(error: yaml.MarkedYAMLError, lineage: Lineage) -> YamlError:
    """Return the error with the line that the lineage names: the old one counts from 0, the new one prefers context."""
    problem = error.problem_mark.line if error.problem_mark else 0
    context = error.context_mark.line if error.context_mark else 0
    if lineage is Lineage.COREOS:
        line = problem or context
    else:
        line = context or problem
        if line and isinstance(error, yaml.scanner.ScannerError):
            line += 1
    message = error.problem or ""
    if message.startswith("found character") and message.endswith("that cannot start any token"):
        message = "found character that cannot start any token"
    return YamlError(message, line)


class _Builder:
    """Builds the tree from events, with a stack instead of recursion."""

    def __init__(self, events: Any, lineage: Lineage) -> None:
        self.events = iter(events)
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
            target = self.anchors.get(name)
            if target is None and self.lineage is Lineage.FLATCAR:
                raise YamlError(f"unknown anchor '{name}' referenced")
            return Node(NodeKind.ALIAS, line, column, name, target=target)
        node = Node(NodeKind.SCALAR, line, column, tag=_short(event.tag))
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
