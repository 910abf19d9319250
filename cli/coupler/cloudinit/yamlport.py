"""YAML events as the two Go ports of libyaml give them, with their own errors, words and line numbers.

The events come from libyaml itself (PyYAML's own parser where the extension is missing). What the ports do otherwise
is here: the older one (CoreOS) knows fewer spellings, the newer one (Flatcar) reads three tokens ahead, so that an
error of the scanner beats one of the parser; and neither looks further than the block of 512 bytes that it is in.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from coupler.cloudinit.golang import to_bytes
from coupler.cloudinit.grammar import Lineage

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TOKENS_AHEAD = 2
_BLOCK = 512
_MARGIN = 4
_BARE_TAG = re.compile(r"(?:&[^\s]+[ \t]+)?!(?=[\s\0]|\Z)")
_PROPERTIES = re.compile(r"(?:[&!][^\s]*\s+)+")
_COLON_OR_QUESTION_MARK = re.compile(r":(?=[^\s\0])|\?")
_NO_COLON = "could not find expected ':'"
_TAG_PROBLEM = "did not find URI escaped octet"
_TAG_PROBLEMS = frozenset(("did not find expected tag URI", "did not find expected '!'"))
_OLD_WORDS = {
    "found a tab character that violates indentation": "found a tab character that violate intendation",
    "found an indentation indicator equal to 0": "found an intendation indicator equal to 0",
    "found a tab character where an indentation space is expected": (
        "found a tab character where an intendation space is expected"
    ),
    "found unknown directive name": "found uknown directive name",
}


class YamlError(Exception):
    """Text that the YAML parser or decoder refuses. `line` is what the real program names, 0 if it names none."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {message}" if line else message)
        self.message = message
        self.line = line

    def text(self, lineage: Lineage) -> str:
        """Return the error in the words of the lineage's YAML package."""
        return f"{'YAML error' if lineage is Lineage.COREOS else 'yaml'}: {self}"


def events(text: str, lineage: Lineage) -> Iterator[Any]:
    """Yield the events of a YAML text. Raises YamlError where the lineage's port stops."""
    port = _OldPort(text) if lineage is Lineage.COREOS else _NewPort(text)
    try:
        for event in _parse(text):
            port.refuse(event)
            yield event
    except yaml.reader.ReaderError as error:
        _refuse_before(text, error.position, lineage)
        raise YamlError(error.reason) from error
    except yaml.MarkedYAMLError as error:
        port.refuse_instead(error)
        raise port.translated(error) from error


def _parse(text: str) -> Iterator[Any]:
    return iter(yaml.parse(to_bytes(text) or b"\n", Loader=_LOADER))


def _scan(text: str) -> Iterator[Any]:
    return iter(yaml.scan(to_bytes(text) or b"\n", Loader=_LOADER))


def _index(mark: Any) -> int:
    """Return a mark's place in the text, counted in characters."""
    return int(mark.index)


def _lines(error: yaml.MarkedYAMLError) -> tuple[int, int]:
    """Return the lines of problem and context, counted from 0 and 0 where there is none."""
    return tuple(mark.line if mark else 0 for mark in (error.problem_mark, error.context_mark))  # type: ignore[return-value]


def _refuse_before(text: str, position: int, lineage: Lineage) -> None:
    """Raise the error that a port meets before it decodes the block with the byte that is no text."""
    before = to_bytes(text)[: position // _BLOCK * _BLOCK].decode("utf-8", "ignore")
    try:
        for _ in _parse(before):
            pass
    except yaml.MarkedYAMLError as error:
        if _index(error.problem_mark) + _MARGIN < len(before):
            for _ in events(before, lineage):
                pass


class _NewPort:
    """Flatcar's port. It reads two tokens more than it needs, and misses a `:` only when it gets that far."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.anchors: set[str] = set()

    def refuse(self, event: Any) -> None:
        """Raise YamlError if the port would not give this event."""
        if isinstance(event, yaml.AliasEvent) and event.anchor not in self.anchors:
            self._refuse_ahead(_index(event.start_mark))
            raise YamlError(f"unknown anchor '{event.anchor}' referenced")
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            self.anchors.add(event.anchor)
        if isinstance(event, yaml.DocumentEndEvent) and self.text[_index(event.start_mark) :].strip():
            self._refuse_ahead(_index(event.start_mark))

    def refuse_instead(self, error: yaml.MarkedYAMLError) -> None:
        """Raise the error that the port meets before this one."""
        if isinstance(error, yaml.parser.ParserError):
            self._refuse_ahead(_index(error.problem_mark))
        elif error.problem == _NO_COLON:
            self._refuse_parse_before(error)

    def translated(self, error: yaml.MarkedYAMLError) -> YamlError:
        """Return the error in the port's words, with the line of the context rather than of the problem."""
        problem, context = _lines(error)
        line = context or problem
        return YamlError(_words(error), line + 1 if line and isinstance(error, yaml.scanner.ScannerError) else line)

    def _refuse_ahead(self, position: int) -> None:
        """Raise the scanner's error if it lies in the tokens that are read when the parser stands at a position."""
        ahead = None
        try:
            for token in _scan(self.text):
                if ahead is None and _index(token.start_mark) >= position and not isinstance(token, yaml.BlockEndToken):
                    ahead = -1
                if ahead is not None and (ahead := ahead + 1) >= _TOKENS_AHEAD:
                    return
        except yaml.scanner.ScannerError as error:
            if error.problem != _NO_COLON or self._is_next(position, _index(error.context_mark)):
                raise self.translated(error) from error
        except yaml.reader.ReaderError:
            return

    def _refuse_parse_before(self, error: yaml.MarkedYAMLError) -> None:
        """Raise the parser's error that comes before a key without a colon, unless the key is the very next token."""
        key = _index(error.context_mark)
        try:
            for _ in _parse(self.text[:key]):
                pass
        except yaml.parser.ParserError as earlier:
            position = _index(earlier.problem_mark)
            if position < key and not self._is_next(position, key):
                raise self.translated(earlier) from earlier
        except yaml.YAMLError:
            return

    def _is_next(self, position: int, key: int) -> bool:
        """Return whether a key that is one scalar comes within a token of a position: what follows it is read then."""
        if self.text[key : key + 1] in "[{&!":
            return False
        between, standing = 0, False
        try:
            for token in _scan(f"{self.text[:key]}k: v"):
                place = _index(token.start_mark)
                if place >= key and isinstance(token, yaml.KeyToken):
                    break
                standing = standing or (place >= position and not isinstance(token, yaml.BlockEndToken))
                between += standing
        except yaml.YAMLError:
            return False
        return between <= 1


def _words(error: yaml.MarkedYAMLError) -> str:
    message = error.problem or ""
    if message.startswith("found character") and message.endswith("that cannot start any token"):
        return "found character that cannot start any token"
    return message


class _OldPort:
    """CoreOS's port. It refuses what libyaml takes: a tag that is only `!`, and `:` and `?` within flow scalars."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.flow: list[str] = []

    def refuse(self, event: Any) -> None:
        """Raise YamlError if the older port would not give this event."""
        if isinstance(event, yaml.CollectionEndEvent):
            self.flow.pop()
        if isinstance(event, yaml.NodeEvent) and not isinstance(event, yaml.AliasEvent):
            self._refuse_bare_tag(event.start_mark)
            if isinstance(event, yaml.ScalarEvent) and not event.style and self.flow[-1:] > [""]:
                self._refuse_flow_scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            self.flow.append("]" if event.flow_style else "")
        elif isinstance(event, yaml.MappingStartEvent):
            self.flow.append("}" if event.flow_style else "")

    def refuse_instead(self, error: yaml.MarkedYAMLError) -> None:
        """Raise the error that the port meets before this one."""
        for mark in (error.context_mark, error.problem_mark):
            self._refuse_bare_tag(mark)

    def translated(self, error: yaml.MarkedYAMLError) -> YamlError:
        """Return the error in the port's words, with a line counted from 0."""
        problem, context = _lines(error)
        message = _words(error)
        if message in _TAG_PROBLEMS:
            message = _TAG_PROBLEM
        return YamlError(_OLD_WORDS.get(message, message), problem or context)

    def _refuse_bare_tag(self, mark: Any) -> None:
        if mark is not None and _BARE_TAG.match(self.text, _index(mark)):
            raise YamlError(_TAG_PROBLEM, mark.line)

    def _refuse_flow_scalar(self, event: Any) -> None:
        source = self.text[_index(event.start_mark) : _index(event.end_mark)]
        properties = _PROPERTIES.match(source)
        match = _COLON_OR_QUESTION_MARK.search(source, (properties.end() if properties else 0) + 1)
        if match is None:
            return
        line = event.start_mark.line + source[: match.start()].count("\n")
        if match[0] == "?":
            raise YamlError(f"did not find expected ',' or '{self.flow[-1]}'", line)
        raise YamlError("found unexpected ':'", line)
