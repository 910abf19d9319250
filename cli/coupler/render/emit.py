"""YAML nodes → text that every YAML reader takes for the same thing, byte for byte the same every time."""

from __future__ import annotations

import io
from typing import IO

import yaml
from yaml.emitter import Emitter
from yaml.resolver import BaseResolver
from yaml.serializer import Serializer


class _Dumper(Emitter, Serializer, BaseResolver):
    """Writes nodes in the style they carry. Without implicit resolvers: a plain scalar stays plain."""

    def __init__(self, stream: IO[str]) -> None:
        Emitter.__init__(self, stream, width=2**20, allow_unicode=True)
        Serializer.__init__(self)
        BaseResolver.__init__(self)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """Indent lists below their key, as people write them."""
        super().increase_indent(flow, False)  # noqa: FBT003


def emit(document: yaml.Node) -> str:
    """Return the text of a document: block style, texts of several lines as literal blocks."""
    _prefer_blocks(document)
    stream = io.StringIO()
    dumper = _Dumper(stream)
    dumper.open()
    dumper.serialize(document)
    dumper.close()
    return stream.getvalue()


def _prefer_blocks(node: yaml.Node) -> None:
    if isinstance(node, yaml.ScalarNode):
        if "\n" in node.value:
            node.style = "|"
        return
    if isinstance(node, yaml.CollectionNode):
        node.flow_style = False
    for child in node.value:
        for part in child if isinstance(child, tuple) else (child,):
            _prefer_blocks(part)
