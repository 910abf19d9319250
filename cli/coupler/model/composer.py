"""YAML text to a tree of nodes that know their place.

PyYAML's own composer resolves scalars by YAML 1.1 and, on libyaml, overflows the stack on deeply nested input. This one
keeps each scalar's text and stops at a depth that no cluster.yaml has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 50
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_NULLS = {"", "~", "null", "Null", "NULL"}


class TooDeepError(yaml.MarkedYAMLError):
    """The document nests deeper than `MAX_DEPTH`."""


class SeveralDocumentsError(yaml.MarkedYAMLError):
    """The text holds more than one document."""


@dataclass
class ScalarNode:
    """A scalar's text; `plain` is without quotes. Lines and columns count from 1."""

    place: tuple[int, int]
    tag: str | None
    text: str
    plain: bool

    @property
    def absent(self) -> bool:
        """Whether this is YAML's null."""
        return self.plain and self.text in _NULLS

    @property
    def merges(self) -> bool:
        """Whether this key is `<<`."""
        return self.plain and self.text == "<<"


@dataclass
class SequenceNode:
    """A list."""

    place: tuple[int, int]
    tag: str | None
    items: list[YamlNode] = field(default_factory=list)


@dataclass
class MappingNode:
    """Keys and values, in the order of the text, repeated keys included."""

    place: tuple[int, int]
    tag: str | None
    pairs: list[tuple[YamlNode, YamlNode]] = field(default_factory=list)


YamlNode: TypeAlias = ScalarNode | SequenceNode | MappingNode


def compose(text: str) -> YamlNode | None:
    """Return the tree of the document in `text`, None for an empty one. Raises yaml.MarkedYAMLError."""
    try:
        return _compose(text)
    except yaml.MarkedYAMLError as error:
        # libyaml has a bound of its own since 0.2.6, and may come to it while it reads ahead of the events.
        if error.problem == "exceeded maximum nesting depth":
            raise TooDeepError(problem="too deep", problem_mark=error.problem_mark) from None
        raise


def _compose(text: str) -> YamlNode | None:
    events: Iterator[Any] = iter(yaml.parse(text, Loader=_Loader))
    root = None
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            if root is not None:
                raise SeveralDocumentsError(problem="a second document", problem_mark=_mark(event))
            root = _Composer(events).node(next(events), 0)
    return root


@dataclass
class _Composer:
    events: Iterator[Any]
    anchors: dict[str, YamlNode] = field(default_factory=dict)

    def node(self, event: Any, depth: int) -> YamlNode:
        """Return the node that begins with `event`; an alias is the very node that it names."""
        if depth > MAX_DEPTH:
            raise TooDeepError(problem="too deep", problem_mark=_mark(event))
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise yaml.MarkedYAMLError(problem=f"undefined alias `{event.anchor}`", problem_mark=_mark(event))
            return self.anchors[event.anchor]
        place = (event.start_mark.line + 1, event.start_mark.column + 1)
        tag = event.tag.removeprefix(_CORE) if event.tag else None
        if isinstance(event, yaml.ScalarEvent):
            return self._named(event, ScalarNode(place, tag, event.value, plain=bool(event.implicit[0])))
        if isinstance(event, yaml.SequenceStartEvent):
            sequence = SequenceNode(place, tag)
            self._named(event, sequence)
            while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
                sequence.items.append(self.node(item, depth + 1))
            return sequence
        mapping = MappingNode(place, tag)
        self._named(event, mapping)
        while not isinstance(key := next(self.events), yaml.MappingEndEvent):
            mapping.pairs.append((self.node(key, depth + 1), self.node(next(self.events), depth + 1)))
        return mapping

    def _named(self, event: Any, node: YamlNode) -> YamlNode:
        if event.anchor:
            self.anchors[event.anchor] = node
        return node


def _mark(event: Any) -> yaml.Mark:
    mark: yaml.Mark = event.start_mark
    return mark
