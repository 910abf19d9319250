"""Rules about keys and values: what YAML, the decoder or the substitution makes of them without a word."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from coupler.cloudinit.grammar import Kind, Lineage
from coupler.cloudinit.parse import NodeKind
from coupler.cloudinit.plan import ENVIRONMENT_FILE
from coupler.cloudinit.scalars import is_yes_or_no, resolve
from coupler.cloudinit.substitute import VARIABLES
from coupler.cloudinit.yamlport import YamlError
from coupler.errors import Edit, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.cloudinit.outline import Entry
    from coupler.cloudinit.parse import Node
    from coupler.cloudinit.subject import Subject
    from coupler.errors import Finding

_VARIABLE = re.compile("|".join(re.escape(variable) for variable in VARIABLES))
_TRUTHS = {"true": "true", "false": "false"}
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")


def _hyphenated_keys(subject: Subject) -> Iterator[Finding]:
    spellings: Counter[tuple[int, str]] = Counter()
    entries = [entry for entry in subject.outline.entries() if entry.key is not None]
    for entry in entries:
        spellings[id(entry.section), _underscored(entry)] += 1
    for entry in entries:
        name = _underscored(entry)
        if "-" not in entry.name.value:
            continue
        alone = spellings[id(entry.section), name] == 1
        fix = subject.replaced(entry.name, name) if alone else ()
        if subject.lineage is Lineage.FLATCAR:
            severity, message = Severity.ERROR, f"Flatcar silently ignores the key {entry.name.value}"
        else:
            severity, message = Severity.WARNING, f"the key {entry.name.value} works on classic CoreOS only"
        yield subject.finding("hyphenated-key", severity, message, entry.name, f"write {name}", fix)


def _underscored(entry: Entry) -> str:
    return entry.name.value.replace("-", "_")


def _duplicate_keys(subject: Subject) -> Iterator[Finding]:
    seen: dict[tuple[int, str], Node] = {}
    for entry in subject.outline.entries():
        name = _underscored(entry)
        first = seen.setdefault((id(entry.section), name), entry.name)
        exact = first.value == entry.name.value
        classic = subject.lineage is Lineage.COREOS  # it makes a mixture of the two; Flatcar refuses what is exact
        if first is not entry.name and (classic or not exact):
            message = f"the key {name} stands here a second time, first in line {first.line}"
            severity = Severity.ERROR if classic else Severity.WARNING
            yield subject.finding("duplicate-key", severity, message, entry.name, "keep one of them")


def _boolean_words(subject: Subject) -> Iterator[Finding]:
    for entry in subject.outline.entries():
        value = entry.value
        if entry.key is None or value.kind is not NodeKind.SCALAR or not value.plain or value.tag:
            continue
        word = is_yes_or_no(value.value)
        if entry.key.type.kind is Kind.BOOL and word is not None:
            text = str(word).lower()
            message = f"{value.value} is a boolean only in YAML 1.1"
            fix = subject.replaced(value, text)
            yield subject.finding("boolean-word", Severity.WARNING, message, value, f"write {text}", fix)
        if entry.key.type.kind is Kind.STRING and (word is not None or value.value.lower() in _TRUTHS):
            message = f"{value.value} is text here, and a boolean to other readers of YAML"
            hint, fix = f'write "{value.value}"', subject.quoted(value, value.value)
            yield subject.finding("boolean-word", Severity.WARNING, message, value, hint, fix)


def _quoted_values(subject: Subject) -> Iterator[Finding]:
    for entry in subject.outline.entries():
        value = entry.value
        if entry.key is None or value.kind is not NodeKind.SCALAR or value.plain or value.tag:
            continue
        meant = _meant(value.value, entry.key.type.kind)
        if meant is None:
            continue
        kind = "boolean" if entry.key.type.kind is Kind.BOOL else "number"
        what = "takes no" if subject.lineage is Lineage.COREOS else "refuses the document over a"
        message = f"{entry.key.name} wants a {kind}: coreos-cloudinit {what} quoted one"
        fix = subject.replaced(value, meant)
        yield subject.finding("quoted-value", Severity.ERROR, message, value, f"write {meant} without quotes", fix)


def _meant(text: str, wanted: Kind) -> str | None:
    """Return the boolean or number that a quoted text is meant to be, None if it is not."""
    if wanted is Kind.BOOL:
        word = is_yes_or_no(text)
        return _TRUTHS.get(text.lower()) if word is None else str(word).lower()
    match = _NUMBER.fullmatch(text) if wanted in (Kind.INT, Kind.FLOAT) else None
    if match is None or (wanted is Kind.INT and match[1]) or re.match(r"[-+]?0\d", text):
        return None
    return text


def _empty_values(subject: Subject) -> Iterator[Finding]:
    for entry in subject.outline.entries():
        if entry.key is None or entry.key.type.kind is Kind.STRUCT or entry.value.kind is not NodeKind.SCALAR:
            continue
        try:
            empty = resolve(entry.value, subject.lineage).value is None
        except YamlError:
            continue
        if empty:
            message = f"{entry.key.name} has no value and is left out"
            yield subject.finding("empty-value", Severity.WARNING, message, entry.name, "remove the key")


def _substitutions(subject: Subject) -> Iterator[Finding]:
    for number, line in enumerate(subject.text.split("\n"), start=1):
        last_end = -1
        comment = line.lstrip().startswith("#")
        for match in () if comment else _VARIABLE.finditer(line):
            place = (number, match.start() + 1)
            if line[: match.start()].endswith("\\"):
                continue
            if match.start() == last_end:
                message = f"{match[0]} directly after another variable is not replaced"
                yield subject.at("missed-substitution", Severity.WARNING, message, place, "put something between them")
                continue
            last_end = match.end()
            name = VARIABLES[match[0]]
            message = f"{match[0]} becomes empty on a node that does not have {name} in {ENVIRONMENT_FILE}"
            hint = f"let a unit read the address at run time, or write \\{match[0]} for the text itself"
            yield subject.at("empty-substitution", Severity.WARNING, message, place, hint)


def _encoded_substitutions(subject: Subject) -> Iterator[Finding]:
    for encoding, content, plain in subject.decoded():
        if match := _VARIABLE.search(plain):
            message = f"{match[0]} in {encoding} content is not replaced: substitution sees the encoded text"
            hint = "write the content as plain text"
            yield subject.finding("encoded-substitution", Severity.WARNING, message, content, hint)


def _line_ends(subject: Subject) -> Iterator[Finding]:
    places = [match.start() for match in re.finditer(r"\r(?=\n)", subject.text)]
    if places:
        first = subject.text.count("\n", 0, places[0]) + 1
        message = (
            f"a carriage return ends lines, here and {len(places) - 1} times more; YAML reads over it, diffs do not"
        )
        fix = tuple(Edit(place, place + 1, "") for place in places)
        yield subject.at("dos-line-ends", Severity.INFO, message, (first, 1), "let lines end with a newline alone", fix)
    if not subject.text.endswith("\n"):
        last = subject.text.count("\n") + 1
        message = "the last line has no newline, and so has a file or unit whose content ends there"
        fix = (Edit(len(subject.text), len(subject.text), "\n"),)
        yield subject.at("no-final-newline", Severity.INFO, message, (last, 1), "end the document with a newline", fix)


RULES = (
    _hyphenated_keys,
    _duplicate_keys,
    _boolean_words,
    _quoted_values,
    _empty_values,
    _substitutions,
    _encoded_substitutions,
    _line_ends,
)
