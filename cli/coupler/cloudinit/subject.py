"""A document under examination: what every rule of `lint` asks, and how it says what it found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.cloudinit.golang import DecodeError, decode_content, quote
from coupler.cloudinit.parse import Node, NodeKind
from coupler.cloudinit.scalars import is_yes_or_no
from coupler.errors import Edit, Finding, Location, Severity, excerpt_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.cloudinit.grammar import Lineage
    from coupler.cloudinit.outline import Outline

_QUOTES = ("", '"', "'")


@dataclass(frozen=True)
class Subject:
    """A document under examination."""

    text: str
    file: str
    lineage: Lineage
    outline: Outline

    def finding(
        self,
        code: str,
        severity: Severity,
        message: str,
        node: Node,
        hint: str | None = None,
        fix: tuple[Edit, ...] = (),
    ) -> Finding:
        """Return a finding about the place of a node."""
        return self.at(code, severity, message, (node.line, node.column), hint, fix)

    def at(
        self,
        code: str,
        severity: Severity,
        message: str,
        place: tuple[int, int],
        hint: str | None = None,
        fix: tuple[Edit, ...] = (),
    ) -> Finding:
        """Return a finding about a line and column."""
        line, column = place
        excerpt = excerpt_of(self.text, line)
        return Finding(code, severity, message, Location(self.file, line, column), excerpt, hint, fix)

    def value(self, node: Node, name: str) -> str:
        """Return the text of a scalar in a mapping, empty if it is not there."""
        found = self.outline.at(node, name)
        return found.value if found.kind is NodeKind.SCALAR else ""

    def truth(self, node: Node, name: str) -> bool:
        """Return a boolean of a mapping as the lineage reads it."""
        text = self.value(node, name)
        return text in ("true", "True", "TRUE") or bool(is_yes_or_no(text))

    def decoded(self) -> Iterator[tuple[str, Node, str]]:
        """Yield (encoding, content, plain text) of every file with an encoding that its content really has."""
        for file in self.outline.items("write_files"):
            encoding, content = self.value(file, "encoding"), self.outline.at(file, "content")
            try:
                plain = decode_content(content.value, encoding) if encoding else ""
            except DecodeError:
                continue
            yield encoding, content, plain

    def replaced(self, node: Node, text: str) -> tuple[Edit, ...]:
        """Return the edit that writes `text` for a scalar of one line; none where it is written in any other way."""
        for mark in _QUOTES:
            written = f"{mark}{node.value}{mark}"
            end = node.index + len(written)
            if node.line and bool(mark) != node.plain and self.text[node.index : end] == written:
                return (Edit(node.index, end, text),)
        return ()

    def quoted(self, node: Node, text: str) -> tuple[Edit, ...]:
        """Return the edit that writes `text` in quotation marks for a scalar of one line."""
        return self.replaced(node, quote(text))

    def place_in(self, content: Node, line: int) -> tuple[int, int]:
        """Return the place of line number `line` of a scalar: its own in a literal block, else that of the scalar."""
        if not content.line or self.text[content.index : content.index + 1] != "|":
            return content.line, content.column
        excerpt = excerpt_of(self.text, content.line + line, 0)
        source = excerpt[0][1] if excerpt else ""
        return content.line + line, len(source) - len(source.lstrip()) + 1
