"""Rules for what the real validator lets pass and a node then suffers from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.cloudinit.golang import DecodeError, clean_path, decode_content, join_path
from coupler.cloudinit.grammar import Kind, Lineage
from coupler.cloudinit.parse import Node, NodeKind
from coupler.cloudinit.plan import ENVIRONMENT_FILE, UPDATE_CONF, is_network_unit
from coupler.cloudinit.scalars import is_yes_or_no, resolve
from coupler.cloudinit.substitute import VARIABLES
from coupler.cloudinit.unitfile import Setting, is_unit_name, load_problem, settings_of, words_of
from coupler.cloudinit.yamlport import YamlError
from coupler.errors import Finding, Location, Severity, excerpt_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.cloudinit.outline import Outline

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_PASSWORD_HASH = re.compile(r"[*!]|!?\$[0-9a-z]+\$.+")
_VARIABLE = re.compile("|".join(re.escape(variable) for variable in VARIABLES))
_DEADLOCK = frozenset(("user-config.target", "system-config.target", "coreos-cloudinit.service"))
_STARTING = frozenset(("start", "restart", "reload-or-restart"))
_MAX_PLAIN_MODE = 0o777


@dataclass(frozen=True)
class Subject:
    """A document under examination."""

    text: str
    file: str
    lineage: Lineage
    outline: Outline

    def finding(self, code: str, severity: Severity, message: str, node: Node, hint: str | None = None) -> Finding:
        """Return a finding about the place of a node."""
        return self.at(code, severity, message, (node.line, node.column), hint)

    def at(
        self, code: str, severity: Severity, message: str, place: tuple[int, int], hint: str | None = None
    ) -> Finding:
        """Return a finding about a line and column."""
        line, column = place
        return Finding(code, severity, message, Location(self.file, line, column), excerpt_of(self.text, line), hint)

    def value(self, node: Node, name: str) -> str:
        """Return the text of a scalar in a mapping, empty if it is not there."""
        found = self.outline.at(node, name)
        return found.value if found.kind is NodeKind.SCALAR else ""

    def truth(self, node: Node, name: str) -> bool:
        """Return a boolean of a mapping as the lineage reads it."""
        text = self.value(node, name)
        return text in ("true", "True", "TRUE") or bool(is_yes_or_no(text))


def lint(subject: Subject) -> list[Finding]:
    """Return the findings of every rule."""
    return [finding for rule in _RULES for finding in rule(subject)]


def _hyphenated_keys(subject: Subject) -> Iterator[Finding]:
    for entry in subject.outline.entries():
        if entry.key is not None and "-" in entry.name.value:
            hint = f"write {entry.key.name}"
            if subject.lineage is Lineage.FLATCAR:
                message = f"Flatcar silently ignores the key {entry.name.value}"
                yield subject.finding("hyphenated-key", Severity.ERROR, message, entry.name, hint)
            else:
                message = f"the key {entry.name.value} works on classic CoreOS only"
                yield subject.finding("hyphenated-key", Severity.WARNING, message, entry.name, hint)


def _duplicate_keys(subject: Subject) -> Iterator[Finding]:
    seen: dict[tuple[int, str], Node] = {}
    for entry in subject.outline.entries():
        name = entry.name.value.replace("-", "_")
        first = seen.setdefault((id(entry.section), name), entry.name)
        exact = first.value == entry.name.value
        if first is not entry.name and (subject.lineage is Lineage.COREOS or not exact):
            message = f"the key {name} stands here a second time, first in line {first.line}"
            yield subject.finding("duplicate-key", Severity.WARNING, message, entry.name, "keep one of them")


def _permissions(subject: Subject) -> Iterator[Finding]:
    for file in subject.outline.items("write_files"):
        mode = subject.outline.at(file, "permissions")
        if mode.kind is not NodeKind.SCALAR or not re.fullmatch(r"0?[0-7]{3,4}", mode.value):
            continue
        if mode.plain and not mode.tag:
            message = f"permissions: {mode.value} is an integer to YAML; its digits are taken for the octal mode"
            hint = f'write "{mode.value.rjust(4, "0")}"'
            yield subject.finding("unquoted-permissions", Severity.WARNING, message, mode, hint)
        if int(mode.value, 8) > _MAX_PLAIN_MODE:
            message = f"the file gets mode {int(mode.value, 8) & _MAX_PLAIN_MODE:04o}: special bits are lost in silence"
            yield subject.finding("special-bits", Severity.ERROR, message, mode, "set them with chmod in a unit")


def _boolean_words(subject: Subject) -> Iterator[Finding]:
    for entry in subject.outline.entries():
        value = entry.value
        if entry.key is None or value.kind is not NodeKind.SCALAR or not value.plain or value.tag:
            continue
        word = is_yes_or_no(value.value)
        if entry.key.type.kind is Kind.BOOL and word is not None and subject.lineage is Lineage.COREOS:
            message = f"{value.value} is a boolean only in YAML 1.1"
            yield subject.finding("boolean-word", Severity.WARNING, message, value, f"write {str(word).lower()}")
        if entry.key.type.kind is Kind.STRING and (word is not None or value.value.lower() in ("true", "false")):
            message = f"{value.value} is text here, and a boolean to other readers of YAML"
            yield subject.finding("boolean-word", Severity.WARNING, message, value, f'write "{value.value}"')


def _substitutions(subject: Subject) -> Iterator[Finding]:
    for number, line in enumerate(subject.text.split("\n"), start=1):
        last_end = -1
        for match in _VARIABLE.finditer(line):
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


def _unit_names(subject: Subject) -> Iterator[Finding]:
    for unit in subject.outline.items("coreos", "units"):
        name = subject.outline.at(unit, "name")
        drop_ins = subject.outline.at(unit, "drop_ins")
        if not name.value:
            yield subject.finding("unit-name", Severity.WARNING, "a unit without a name is skipped", unit)
        elif "/" in name.value:
            message = f"the unit name {name.value} leaves the folder of units"
            yield subject.finding("unit-path", Severity.ERROR, message, name)
        elif not is_unit_name(name.value) and not is_network_unit(name.value):
            message = f"{name.value} is no unit name for systemd"
            yield subject.finding("unit-name", Severity.ERROR, message, name, "end it with .service or another type")
        for drop_in in drop_ins.children if drop_ins.kind is NodeKind.SEQUENCE else []:
            piece = subject.outline.at(subject.outline.follow(drop_in), "name")
            if "/" in piece.value:
                message = f"the drop-in name {piece.value} leaves the unit's folder"
                yield subject.finding("unit-path", Severity.ERROR, message, piece)
            elif piece.value and not piece.value.endswith(".conf"):
                message = f"systemd reads no drop-in that does not end with .conf: {piece.value}"
                yield subject.finding("drop-in-name", Severity.ERROR, message, piece, f"write {piece.value}.conf")


def _unit_text(subject: Subject) -> Iterator[Finding]:
    for unit in subject.outline.items("coreos", "units"):
        name, content = subject.value(unit, "name"), subject.outline.at(unit, "content")
        settings = _all_settings(subject, unit)
        problem = load_problem(name, settings) if content.value and is_unit_name(name) else None
        if problem is not None:
            yield subject.finding("unit-text", Severity.ERROR, f"systemd will not load {name}: {problem}", content)
        if subject.truth(unit, "mask") and content.value:
            message = f"the content of {name} is deleted again: mask puts a link in its place"
            yield subject.finding("masked-content", Severity.WARNING, message, content)
        command = subject.value(unit, "command")
        if command in _STARTING and (target := _awaited(settings)):
            message = f"{name} is started by what {target} waits for, and waits for {target}: both hang"
            place = subject.outline.at(unit, "command")
            yield subject.finding(
                "unit-deadlock", Severity.ERROR, message, place, f"drop After={target}, or the command"
            )
        if command in _STARTING and subject.truth(unit, "mask"):
            message = f"{name} is masked and started: the start fails and ends the run"
            yield subject.finding("masked-start", Severity.ERROR, message, subject.outline.at(unit, "command"))


def _all_settings(subject: Subject, unit: Node) -> list[Setting]:
    """Return the settings of a unit's content and of its drop-ins."""
    drop_ins = map(subject.outline.follow, subject.outline.at(unit, "drop_ins").children)
    texts = [subject.value(unit, "content"), *(subject.value(drop_in, "content") for drop_in in drop_ins)]
    return [setting for text in texts for setting in settings_of(text)]


def _awaited(settings: list[Setting]) -> str | None:
    """Return the target of the cloud-config itself that a unit is ordered after."""
    return next((word for word in words_of(settings, "Unit", "After") if word in _DEADLOCK), None)


def _locksmith(subject: Subject) -> Iterator[Finding]:
    if subject.value(subject.outline.at(subject.outline.root, "coreos", "update"), "reboot_strategy") != "off":
        return
    for unit in subject.outline.items("coreos", "units"):
        if subject.value(unit, "name") == "locksmithd.service" and subject.value(unit, "command") in _STARTING:
            message = "reboot_strategy off masks locksmithd: its start fails and ends the run"
            yield subject.finding("masked-start", Severity.ERROR, message, subject.outline.at(unit, "command"))


def _paths(subject: Subject) -> Iterator[Finding]:
    writers: dict[str, str] = {}
    for path, writer, node in _written(subject):
        if path in ("/", "."):
            message = "a file without a path ends the run"
            yield subject.finding("path-missing", Severity.ERROR, message, node, "give it a path")
        elif path in writers:
            message = f"{path} is written by {writers[path]} and again by {writer}, which wins"
            yield subject.finding("path-conflict", Severity.WARNING, message, node, "let one of them write it")
        else:
            writers[path] = writer


def _written(subject: Subject) -> Iterator[tuple[str, str, Node]]:
    """Yield (path, who writes it, the place that says so) in the order of writing."""
    outline = subject.outline
    for file in outline.items("write_files"):
        node = outline.at(file, "path")
        yield join_path("/", node.value), "write_files", node if node.line else file
    generated = {
        ("coreos", "oem"): "/etc/oem-release",
        ("coreos", "update"): UPDATE_CONF,
        ("manage_etc_hosts",): "/etc/hosts",
        ("coreos", "flannel"): "/run/flannel/options.env",
    }
    for keys, path in generated.items():
        node = outline.at(outline.root, *keys)
        if node.children or (node.kind is NodeKind.SCALAR and node.value):
            yield path, ".".join(keys), node
    for unit in outline.items("coreos", "units"):
        name, node = subject.value(unit, "name"), outline.at(unit, "name")
        folder = clean_path(f"/{'run' if subject.truth(unit, 'runtime') else 'etc'}/systemd/")
        folder += "/network" if is_network_unit(name) else "/system"
        if subject.value(unit, "content"):
            yield join_path(folder, name), f"the unit {name}", node
        for drop_in in outline.at(unit, "drop_ins").children:
            item = outline.follow(drop_in)
            yield join_path(folder, f"{name}.d", subject.value(item, "name")), f"a drop-in of {name}", item


def _secrets(subject: Subject) -> Iterator[Finding]:
    for number, line in enumerate(subject.text.split("\n"), start=1):
        if match := _PRIVATE_KEY.search(line):
            yield _secret(subject, "a private key stands in the document", (number, match.start() + 1))
    for file in subject.outline.items("write_files"):
        encoding, content = subject.value(file, "encoding"), subject.outline.at(file, "content")
        try:
            plain = decode_content(content.value, encoding) if encoding else ""
        except DecodeError:
            continue
        if _PRIVATE_KEY.search(plain):
            yield _secret(subject, "a private key stands in encoded content", (content.line, content.column))
    for entry in subject.outline.entries():
        name = entry.key.name if entry.key else ""
        place = (entry.value.line, entry.value.column)
        if name == "etcd_password" and entry.value.value:
            yield _secret(subject, "a password stands in the document", place)
        if name == "passwd" and entry.value.value and not _PASSWORD_HASH.fullmatch(entry.value.value):
            yield _secret(subject, "passwd wants a hash (mkpasswd -m sha-512), and this is none", place)


def _secret(subject: Subject, message: str, place: tuple[int, int]) -> Finding:
    hint = "the document goes to git: bring secrets to the nodes another way"
    return subject.at("secret", Severity.ERROR, message, place, hint)


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


_RULES = (
    _hyphenated_keys,
    _duplicate_keys,
    _permissions,
    _boolean_words,
    _substitutions,
    _unit_names,
    _unit_text,
    _locksmith,
    _paths,
    _secrets,
    _empty_values,
)
